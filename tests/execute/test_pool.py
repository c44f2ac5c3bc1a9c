"""Jobs in processes of their own."""

from concurrent.futures.process import BrokenProcessPool

from deepmaker_jax.execute import pool
from deepmaker_jax.execute.pool import pooled

JOBS = {
    "fine": ("1 + 1",),
    "raises": ("1 / 0",),
    "dies": ("__import__('os')._exit(3)",),
    "placed": ("__import__('os').environ['PLACE']",),
}


def test_a_job_that_raises_or_dies_takes_no_other_along():
    found = list(pooled(eval, JOBS, num_workers=2, PLACE="here"))
    assert sorted(name for name, _ in found) == sorted(JOBS)
    results = dict(found)
    assert (results["fine"], results["placed"]) == (2, "here")
    assert isinstance(results["raises"], ZeroDivisionError)
    assert isinstance(results["dies"], BrokenProcessPool)


def test_a_job_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(pool, "TICK_SECONDS", 0.2)
    hanging = {"hangs": ("__import__('time').sleep(3600)",)}
    ((name, result),) = pooled(eval, hanging, num_workers=1, patience_seconds=1)
    assert name == "hangs"
    assert isinstance(result, BrokenProcessPool)
