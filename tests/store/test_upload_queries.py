import threading

import pytest

from pruning.errors import SecateurError
from store.queries import datasets, jobs, models
from store.tables import Dataset, Job, Model

KINDS = pytest.mark.parametrize(
    ("queries", "table", "kind"), [(models, Model, "model"), (datasets, Dataset, "dataset")]
)


def create(world, queries, content: str, project: str | None = None, name: str | None = None):
    with world.database.write() as session:
        blob = world.blob(content)
        return queries.create(session, project or world.project, name or content, blob, world.at(0))


def refused(world, query, *args, **rest) -> SecateurError:
    with pytest.raises(SecateurError) as error, world.database.write() as session:
        query(session, *args, **rest)
    return error.value


@KINDS
def test_an_upload_waits_for_its_check(world, queries, table, kind) -> None:
    row, created = create(world, queries, "new")
    assert created
    assert (row.state, row.bytes, row.facts, row.error) == ("checking", 3, None, None)
    [check] = world.rows(Job, subject_id=row.id)
    assert (check.kind, check.klass, check.state) == (f"check_{kind}", "check", "queued")


@KINDS
def test_the_same_bytes_are_one_upload_within_a_project(world, queries, table, kind) -> None:
    row, _ = create(world, queries, "same")
    again, created = create(world, queries, "same")
    assert (again.id, created) == (row.id, False)
    theirs, created = create(world, queries, "same", world.stranger())
    assert created
    assert theirs.id != row.id
    assert len(world.rows(Job, subject_id=row.id)) == 1


@KINDS
def test_the_same_bytes_under_another_name_are_an_upload_of_their_own(
    world, queries, table, kind
) -> None:
    row, _ = create(world, queries, "same", name="first.onnx")
    other, created = create(world, queries, "same", name="second.onnx")
    assert created
    assert (other.name, other.sha256) == ("second.onnx", row.sha256)
    assert len(world.rows(Job, subject_id=other.id)) == 1
    again, created = create(world, queries, "same", name="first.onnx")
    assert (again.id, created) == (row.id, False)
    with world.database.write() as session:
        queries.delete(session, world.project, row.id)
    assert world.rows(table, id=other.id)[0].sha256 == row.sha256


@KINDS
def test_rejected_bytes_may_be_uploaded_again(world, queries, table, kind) -> None:
    row, _ = create(world, queries, "bad")
    world.finish(world.claimed("check"), "failed")
    again, created = create(world, queries, "bad")
    assert created
    assert again.id != row.id


@KINDS
def test_uploads_at_once_of_the_same_bytes_make_one_row(world, queries, table, kind) -> None:
    gate = threading.Barrier(5)
    made = []

    def send() -> None:
        gate.wait()
        made.append(create(world, queries, "race"))

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({row.id for row, _ in made}) == 1
    assert sum(created for _, created in made) == 1
    assert len(world.rows(table, sha256=world.blob("race").sha256)) == 1


@KINDS
def test_uploads_of_another_project_are_not_found(world, queries, table, kind) -> None:
    row, _ = create(world, queries, "mine")
    stranger = world.stranger()
    for query in (queries.get, queries.usable, queries.delete):
        error = refused(world, query, stranger, row.id)
        assert (error.code, error.where) == ("not_found", kind)
    with world.database.read() as session:
        assert queries.list_page(session, stranger).items == []
        assert queries.get(session, world.project, row.id).name == "mine"


@KINDS
def test_pages_of_uploads(world, queries, table, kind) -> None:
    wanted = [create(world, queries, f"u{i}")[0].id for i in range(3)][::-1]
    with world.database.read() as session:
        first = queries.list_page(session, world.project, limit=2, state="checking")
        rest = queries.list_page(session, world.project, limit=2, cursor=first.next_cursor)
    assert [r.id for r in first.items] == wanted[:2]
    assert [r.id for r in rest.items] == [
        wanted[2],
        *([world.model] if kind == "model" else [world.data["calibration"]]),
    ]
    assert rest.next_cursor is None


@KINDS
def test_an_upload_is_kept_while_a_job_refers_to_it(world, queries, table, kind) -> None:
    row_id = world.model if kind == "model" else world.data["calibration"]
    first, second = world.submit(), world.submit()
    error = refused(world, queries.delete, world.project, row_id)
    assert error.code == "in_use"
    assert error.message.startswith("2 jobs refer")
    assert first in error.message
    assert "Delete those jobs first" in error.hint
    for _ in range(2):
        world.finish(world.claimed())
    assert refused(world, queries.delete, world.project, row_id).details == {"jobs": 2}
    with world.database.write() as session:
        again = jobs.retry(session, world.project, first)
        jobs.request_cancel(session, world.project, again.id)
        for job_id in (first, again.id):
            jobs.delete(session, world.project, job_id)
    assert refused(world, queries.delete, world.project, row_id).message.startswith("1 job refers")
    with world.database.write() as session:
        jobs.delete(session, world.project, second)
        queries.delete(session, world.project, row_id)
    assert world.rows(table, id=row_id) == []


@KINDS
def test_deleting_an_upload_ends_its_check(world, queries, table, kind) -> None:
    queued, _ = create(world, queries, "queued")
    with world.database.write() as session:
        queries.delete(session, world.project, queued.id)
    assert world.claim("check") is None

    running, _ = create(world, queries, "running")
    claim = world.claimed("check")
    with world.database.write() as session:
        queries.delete(session, world.project, running.id)
    assert world.job(claim.job_id).cancel_requested
    assert world.finish(claim, "cancelled")
    assert world.rows(table, id=running.id) == []


def test_a_model_deleted_while_a_job_is_submitted_leaves_no_job_without_model(world) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(2)

    def run(name, query, *args, **rest) -> None:
        gate.wait()
        try:
            with world.database.write() as session:
                query(session, *args, **rest)
            outcomes.append(name)
        except SecateurError as error:
            outcomes.append(error.code)

    for i in range(8):
        row, _ = create(world, models, f"m{i}")
        world.finish(world.claimed("check"), summary={"facts": world.facts})
        outcomes.clear()
        submit = {"model_id": row.id, "data": world.data, "spec": {}}
        threads = [
            threading.Thread(
                target=run, args=("created", jobs.create, world.project), kwargs=submit
            ),
            threading.Thread(target=run, args=("deleted", models.delete, world.project, row.id)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) in (["created", "in_use"], ["deleted", "not_found"])
