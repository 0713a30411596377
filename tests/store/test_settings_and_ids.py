import re
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from store.ids import PREFIXES, new_id
from store.settings import Settings


def test_places_follow_the_data_folder_unless_given(tmp_path) -> None:
    settings = Settings(data_dir=tmp_path, slots_dir=tmp_path / "fast")
    assert settings.database_url == f"sqlite:///{tmp_path}/secateur.db"
    assert settings.blob_dir == tmp_path / "blobs"
    assert settings.slots_dir == tmp_path / "fast"


def test_settings_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("SECATEUR_DATA_DIR", "~/trees")
    monkeypatch.setenv("SECATEUR_LEASE_SECONDS", "12.5")
    monkeypatch.setenv("SECATEUR_CHILD_MEMORY_BYTES", "")
    settings = Settings()
    assert settings.data_dir == Path.home() / "trees"
    assert settings.lease_seconds == 12.5
    assert settings.child_memory_bytes is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_postgres_url_uses_the_installed_driver(scheme) -> None:
    settings = Settings(database_url=f"{scheme}://u:p@h/d")
    assert settings.database_url == "postgresql+psycopg://u:p@h/d"


def test_secrets_in_urls_are_not_shown() -> None:
    settings = Settings(database_url="postgresql://u:hunter2@h/d", redis_url="redis://:hunter2@h")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat_seconds": 20},
        {"max_attempts": 0},
        {"device": "tpu"},
        {"port": -1},
        # What a job has written and not yet verified would be swept.
        {"wall_seconds": 600, "blob_grace_seconds": 620},
    ],
)
def test_settings_that_can_not_work_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize("wall", [10, 3600, 86_400])
def test_blobs_outlast_the_longest_attempt_unless_told(wall) -> None:
    settings = Settings(wall_seconds=wall)
    assert settings.blob_grace_seconds > wall + settings.lease_seconds
    assert Settings(wall_seconds=wall, blob_grace_seconds=90_000).blob_grace_seconds == 90_000


@pytest.mark.parametrize(("kind", "prefix"), PREFIXES.items())
def test_an_id_is_a_prefix_and_26_characters(kind, prefix) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9a-hjkmnp-tv-z]{{26}}", new_id(kind))
    assert new_id(prefix).startswith(f"{prefix}_")


def test_an_unknown_kind_has_no_id() -> None:
    with pytest.raises(ValueError, match="tree"):
        new_id("tree")


def test_ids_are_ordered_by_time_and_never_repeat() -> None:
    made: list[list[str]] = []

    def make() -> None:
        made.append([new_id("job") for _ in range(3000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made)
    assert len({i for ids in made for i in ids}) == 12_000


def test_an_id_of_a_later_millisecond_is_greater(monkeypatch) -> None:
    first = new_id("job")
    monkeypatch.setattr(time, "time_ns", lambda start=time.time_ns(): start + 10_000_000_000)
    second = new_id("job")
    monkeypatch.undo()
    assert first < second < new_id("job")  # also when the clock is set back
