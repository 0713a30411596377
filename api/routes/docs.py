"""`GET /docs`: the API reference in a browser, from files of this machine alone."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Secateur API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="reference"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null
});
"""
# Swagger UI sets styles on its elements.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DAY = {"cache-control": "public, max-age=86400"}


@router.get("/docs")
async def get_docs() -> Response:
    """The page."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})


@router.get("/docs/start.js")
async def get_docs_start() -> Response:
    """What starts it; a file, so that the page needs no script inside it."""
    return Response(_START, media_type="text/javascript", headers=_DAY)


@router.get("/docs/swagger-ui-bundle.js")
async def get_docs_script() -> Response:
    """Swagger UI."""
    return FileResponse(_file("swagger-ui-bundle.js"), media_type="text/javascript", headers=_DAY)


@router.get("/docs/swagger-ui.css")
async def get_docs_style() -> Response:
    """Its style."""
    return FileResponse(_file("swagger-ui.css"), media_type="text/css", headers=_DAY)


def _file(name: str) -> Path:
    """A file of the package that brings Swagger UI, whose own code stays unused."""
    found = find_spec("fastapi_swagger")
    if found is None or found.origin is None:
        raise RuntimeError("fastapi-swagger is not installed: pip install 'secateur[service]'")
    return Path(found.origin).parent / "resources" / name
