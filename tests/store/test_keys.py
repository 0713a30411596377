import base64
import hashlib
import threading

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


def test_a_project_has_no_more_keys_than_it_may(empty) -> None:
    with empty.database.write() as session:
        mine, theirs = (keys.create_project(session, n).id for n in ("mine", "theirs"))
        for _ in range(3):
            keys.create_key(session, theirs, "k", limit=3)
            keys.create_key(session, mine, "k", limit=3)
    with pytest.raises(SecateurError) as refused, empty.database.write() as session:
        keys.create_key(session, mine, "k", limit=3)
    assert refused.value.code == "too_many_keys"
    with empty.database.write() as session:
        keys.delete(session, mine, keys.list_page(session, mine).items[0].id)
        keys.create_key(session, mine, "k", limit=3)
        # The operator's own command is not held to it.
        keys.create_key(session, mine, "k")


def test_requests_beside_each_other_make_no_more_keys_than_there_may_be(empty) -> None:
    with empty.database.write() as session:
        project = keys.create_project(session, "p").id
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        for _ in range(2):
            try:
                with empty.database.write() as session:
                    keys.create_key(session, project, "k", limit=5)
            except SecateurError as error:
                assert error.code == "too_many_keys"  # noqa: PT017

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(empty.rows(ApiKey)) == 5
