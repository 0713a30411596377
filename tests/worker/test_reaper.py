"""The reaper's turn, on a real store."""

from bench import Bench, until

from worker.reaper import Reaper


def test_a_sweep_that_meets_a_broken_disk_does_not_end_the_reaping(bench: Bench):
    bench.db.dispose()
    (bench.settings.blob_dir / "00").write_text("not a folder")
    settings = bench.settings.model_copy(update={"lease_seconds": 0.0, "reaper_seconds": 0.0})
    job = bench.submit("succeed")
    bench.settings = settings
    bench.claim()
    reaper = Reaper(bench.db, bench.blobs, settings)

    def reaped() -> bool:
        reaper.turn()
        return bench.job(job).state == "queued"

    assert until(reaped, 5)
