"""Schemathesis over the whole document with a key, for a few seconds; longer by a variable."""

import os
from pathlib import Path

import pytest

from tests.api.conftest import Caller
from tests.schemathesis.run import run

SECONDS = int(os.environ.get("SECATEUR_SCHEMATHESIS_SECONDS", "8"))


@pytest.mark.timeout(240)
def test_every_operation_keeps_what_the_document_says(caller: Caller, tmp_path: Path) -> None:
    status, said = run(caller.service.url, caller.secret, SECONDS, tmp_path, "--seed", "1")
    assert status == 0, said
    assert "Tested: " in said
