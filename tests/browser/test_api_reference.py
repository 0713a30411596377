"""/docs in a real browser: every operation is there, and nothing comes from elsewhere."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from store.migrate import upgrade
from store.settings import Settings
from tests.api.conftest import serving
from tests.browser.devtools import Browser, tab

pytestmark = pytest.mark.browser

SHOT = Path(__file__).parents[2] / "build" / "screenshots" / "docs.png"
COUNT = "document.querySelectorAll('.opblock').length"
EXPANDED = "document.querySelectorAll('.opblock.is-open .responses-table').length"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("api"), device="cpu")
    upgrade(settings)
    app = create_app(settings)
    operations = sum(len(methods) for methods in app.openapi()["paths"].values())
    with serving(app) as url:
        yield url, operations


def test_the_reference_shows_every_operation_and_asks_nobody_else(
    browser: Browser, served: tuple[str, int]
) -> None:
    url, operations = served
    with tab(browser, 1180, dark=False) as page:
        page.open(f"{url}/docs")
        until = time.monotonic() + 30
        while page.run(COUNT) < operations and time.monotonic() < until:
            time.sleep(0.1)
        assert page.run(COUNT) == operations
        page.run("document.querySelector('[id$=create_job] .opblock-summary-control').click()")
        while not page.run(EXPANDED) and time.monotonic() < until:
            time.sleep(0.1)
        assert page.run(EXPANDED) == 1
        page.screenshot(SHOT)
        elsewhere = [u for u in page.requests() if not u.startswith((url + "/", "data:"))]
        assert elsewhere == []
        assert [c for c in page.complaints() if "Content Security Policy" in c] == []
