import pytest

from store import keys as command
from store.db import Database
from store.migrate import upgrade
from store.queries import keys
from store.settings import Settings, get_settings


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


def test_makes_the_project_once_and_a_key_each_time(settings: Settings, capsys):
    upgrade(settings)
    secrets = []
    for _ in range(2):
        assert command.main(["--project", "vision"]) == 0
        secrets.append(capsys.readouterr().out.strip())
    with Database(settings).read() as session:
        first, second = (keys.authenticate(session, secret) for secret in secrets)
    assert first is not None
    assert second is not None
    assert first.project_id == second.project_id
    assert first.key_id != second.key_id
