"""One browser for the pages of a module."""

from collections.abc import Iterator

import pytest

from tests.browser.devtools import NAMES, Browser, find_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find_browser()
    if binary is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed and CHROMIUM names none")
    started = Browser(binary, tmp_path_factory.mktemp("browser"))
    yield started
    started.close()
