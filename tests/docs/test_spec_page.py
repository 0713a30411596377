"""docs/spec.md knows every field and every kind of a spec."""

from pathlib import Path

import pytest

from pruning.spec import places

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()

NAMES = sorted(
    {
        name
        for variants in places().values()
        for kind, model in variants.items()
        for name in (kind, *model.model_fields)
        if name and name not in {"kind", "lr", "momentum", "weight_decay"}
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_a_spec_can_hold_is_on_the_page(name: str):
    assert name in PAGE
