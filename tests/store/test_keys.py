import base64
import hashlib

import pytest

from pruning.errors import SecateurError
from store.queries import keys
from store.tables import ApiKey


def test_a_secret_tells_who_asks(empty) -> None:
    with empty.database.write() as session:
        project = keys.create_project(session, "p")
        key, secret = keys.create_key(session, project.id, "laptop")
    with empty.database.read() as session:
        principal = keys.authenticate(session, secret)
    assert principal == keys.Principal(project.id, key.id)


def test_a_secret_is_256_random_bits_and_not_stored(empty) -> None:
    with empty.database.write() as session:
        project = keys.create_project(session, "p")
        secrets = [keys.create_key(session, project.id, "k")[1] for _ in range(3)]
    assert len(set(secrets)) == 3
    for secret in secrets:
        assert secret.startswith("sct_")
        assert len(base64.urlsafe_b64decode(secret[4:] + "=")) == 32
    stored = empty.rows(ApiKey)
    assert {k.sha256 for k in stored} == {hashlib.sha256(s.encode()).hexdigest() for s in secrets}
    assert all(len(k.start) == 8 for k in stored)


@pytest.mark.parametrize("secret", ["", "sct_", "sct_" + "a" * 43, "\x00", "\ud800", "é"])
def test_a_wrong_secret_is_nobody(empty, secret) -> None:
    with empty.database.write() as session:
        project = keys.create_project(session, "p")
        keys.create_key(session, project.id, "k")
    with empty.database.read() as session:
        assert keys.authenticate(session, secret) is None


def test_a_deleted_key_is_nobody_and_only_its_project_deletes_it(empty) -> None:
    with empty.database.write() as session:
        mine, theirs = (keys.create_project(session, n).id for n in ("mine", "theirs"))
        key, secret = keys.create_key(session, mine, "k")
    with pytest.raises(SecateurError) as refused, empty.database.write() as session:
        keys.delete(session, theirs, key.id)
    assert refused.value.code == "not_found"
    with empty.database.write() as session:
        assert [k.id for k in keys.list_page(session, mine).items] == [key.id]
        assert keys.list_page(session, theirs).items == []
        keys.delete(session, mine, key.id)
        assert keys.authenticate(session, secret) is None


def test_the_first_project_is_the_oldest(empty) -> None:
    with empty.database.write() as session:
        assert keys.first_project(session) is None
        first = keys.create_project(session, "first")
        keys.create_project(session, "second")
        assert keys.first_project(session) == first
