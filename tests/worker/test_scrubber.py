"""The control process finds damaged files that nobody asks for, while it leads."""

import time

from bench import Bench, until

from store.blobs import put
from store.clock import utcnow
from store.queries import blobs
from store.scrub import Progress, progress_file
from store.tables import Blob
from worker.scrubber import Scrubber


def damaged(bench: Bench) -> str:
    sha256 = str(bench.rows(Blob)[0].sha256)
    path = bench.blobs.path(sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return sha256


def test_a_damaged_file_is_set_aside_by_the_control_process(bench: Bench):
    sha256 = damaged(bench)
    bench.control()
    until(lambda: not bench.blobs.exists(sha256), 40, "the scrub")
    until(lambda: Progress.read(progress_file(bench.settings)).finished_at, 10, "the end of it")
    assert Progress.read(progress_file(bench.settings)).files["damaged"] == 1
    assert f"blob {sha256} is damaged" in bench.log()


def test_who_does_not_lead_reads_nothing_and_who_loses_the_lead_stops(bench: Bench):
    content = bytes(8 << 20)
    stored = put(bench.blobs, [content])
    with bench.db.write() as session:
        blobs.record(session, [stored], utcnow())
    leads = False
    settings = bench.settings.model_copy(update={"scrub_bytes_per_second": 1 << 20})
    scrubber = Scrubber(bench.db, bench.blobs, settings, lambda: leads)
    try:
        time.sleep(0.2)
        assert not progress_file(settings).exists()
        leads = True
        until(lambda: scrubber._scrub._free_at > time.monotonic(), 10, "the first pause")
        leads = False
        until(progress_file(settings).exists, 10, "what it leaves for the next leader")
        assert not Progress.read(progress_file(settings)).finished_at
    finally:
        began = time.monotonic()
        scrubber.end()
    assert time.monotonic() - began < 2
