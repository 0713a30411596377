import json
from pathlib import Path

import pytest

from secateur import SecateurError, config


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECATEUR_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("SECATEUR_URL", raising=False)
    monkeypatch.delenv("SECATEUR_API_KEY", raising=False)
    return tmp_path / "config"


def test_the_service_written_last_is_the_default() -> None:
    assert config.resolve() == config.Connection(config.DEFAULT_URL, None)
    config.write_credentials("http://127.0.0.1:1000/", "sct_a")
    config.write_credentials("http://127.0.0.1:2000", "sct_b")
    assert config.resolve() == config.Connection("http://127.0.0.1:2000", "sct_b")
    config.write_credentials("http://127.0.0.1:1000", "sct_a")
    assert config.resolve() == config.Connection("http://127.0.0.1:1000", "sct_a")


def test_a_stored_key_only_goes_to_its_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_credentials("http://127.0.0.1:1000", "sct_a")
    assert config.resolve("https://elsewhere.example").api_key is None
    monkeypatch.setenv("SECATEUR_URL", "https://elsewhere.example")
    assert config.resolve().api_key is None
    monkeypatch.setenv("SECATEUR_API_KEY", "sct_env")
    assert config.resolve().api_key == "sct_env"
    assert config.resolve(api_key="sct_given").api_key == "sct_given"


def test_only_the_owner_can_read_the_file(folder: Path) -> None:
    path = config.write_credentials("http://127.0.0.1:1000", "sct_a")
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text()) == {"http://127.0.0.1:1000": "sct_a"}
    assert [p.name for p in folder.iterdir()] == ["credentials.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_a_damaged_file_is_named_and_left_alone(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "credentials.json").write_text(content)
    with pytest.raises(SecateurError) as caught:
        config.resolve()
    assert caught.value.where == str(folder / "credentials.json")
    assert (folder / "credentials.json").read_text() == content


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "nonsense"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SecateurError) as caught:
        config.resolve(url)
    assert caught.value.code == "usage"
