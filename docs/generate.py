"""Write the pages that are made from the code; a test holds them equal to it: `make docs`."""

import json
from pathlib import Path

from pruning import catalogue
from pruning.errors import CODES
from pruning.report.schema import Report

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; edit the code instead. -->\n"


def errors_page() -> str:
    """Every error code with its HTTP status and meaning."""
    rows = "\n".join(f"| `{c}` | {status} | {title} |" for c, (status, title) in CODES.items())
    return f"""{NOTE}# Error codes

Every error of the API is `application/problem+json` (RFC 9457): a stable `code`, `type`
(/problems/ and the code), `title` (what the code means), `detail` (what is wrong), `where` (the
field, layer, tensor, operator or header), `hint` (what to do), and for programs `errors` (every
wrong field) and `details`; `status`, `instance` and `request_id` are of the request.

What fails later carries the same fields without those of a request: a job and each of its attempts
under `error`, a rejected model or dataset under `error`, and the events `state`. There `message`
repeats `detail`, and fields without a value are null. In `details.last_error` stands the error of
the last attempt. The client raises `SecateurError` with the same code.

| code | HTTP status | meaning |
|---|---|---|
{rows}
"""


def criteria_page() -> str:
    """Every criterion and compensation, as `GET /v1/criteria` has them."""
    parts = [NOTE + "# Criteria and compensations\n"]
    for title, group in (
        ("Criteria", catalogue.criteria()),
        ("Compensations", catalogue.compensations()),
    ):
        parts.append(f"## {title}\n")
        for kind, declaration in group.items():
            entry = catalogue.describe(kind, declaration)
            needs = ", ".join(entry["needs"]) or "nothing beyond the weights"
            parts.append(
                f"### `{kind}`: {entry['title']}\n\n{entry['summary']}\n\n"
                f"- Formula: `{entry['formula']}`\n"
                + (f"- Paper: {entry['paper']}\n" if entry["paper"] else "")
                + f"- Unit: {entry['unit']}\n- Needs: {needs}\n- Cost: {entry['cost']}\n"
            )
            fields = {k: v for k, v in entry["parameters"]["properties"].items() if k != "kind"}
            if fields:
                defaults = ", ".join(f"`{k}` ({v.get('default')})" for k, v in fields.items())
                parts.append(f"- Parameters (default): {defaults}\n")
    return "\n".join(parts)


def report_schema() -> str:
    """The JSON Schema of report.json, as it is written (every field is there)."""
    schema = Report.model_json_schema(mode="serialization")
    version = Report.model_fields["schema_version"].default
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:secateur:report:{version}",
        "$comment": "Made by docs/generate.py from pruning/report/schema.py. A field that is added "
        "raises the second number of the version, one that changes or goes the first.",
    }
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


PAGES = {
    "errors.md": errors_page,
    "criteria.md": criteria_page,
    "report.schema.json": report_schema,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
