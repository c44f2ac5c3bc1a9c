"""Jobs in processes of their own."""

from concurrent.futures.process import BrokenProcessPool

from deepmaker_jax.execute import pool
from deepmaker_jax.execute.pool import pooled

JOBS = {
    "fine": ("1 + 1",),
    "raises": ("1 / 0",),
    "dies": ("__import__('os')._exit(3)",),
    "placed": ("__import__('os').environ['PLACE']",),
    "hangs": ("__import__('time').sleep(3600)",),
}


def test_a_job_that_raises_dies_or_hangs_takes_no_other_along(monkeypatch):
    monkeypatch.setattr(pool, "TICK_SECONDS", 0.5)
    found = list(pooled(eval, JOBS, num_workers=2, patience_seconds=15, PLACE="here"))
    assert sorted(name for name, _ in found) == sorted(JOBS)
    results = dict(found)
    assert (results["fine"], results["placed"]) == (2, "here")
    assert isinstance(results["raises"], ZeroDivisionError)
    assert isinstance(results["dies"], BrokenProcessPool)
    assert isinstance(results["hangs"], BrokenProcessPool)
