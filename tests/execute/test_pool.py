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


def test_what_had_not_begun_goes_on_side_by_side_after_a_death(tmp_path):
    """Two that wait for each other end only if they are done at once."""
    meets = (
        "[__import__('pathlib').Path({mine!r}).touch()] + [__import__('time').sleep(0.05) for _ in"
        " iter(lambda: __import__('pathlib').Path({other!r}).exists(), True)]"
    )
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    jobs = {
        "dies": JOBS["dies"],
        "dies too": JOBS["dies"],
        "one": (meets.format(mine=here, other=there),),
        "two": (meets.format(mine=there, other=here),),
    }
    found = dict(pooled(eval, jobs, num_workers=2, patience_seconds=60))
    assert isinstance(found["dies"], BrokenProcessPool)
    assert isinstance(found["dies too"], BrokenProcessPool)
    assert isinstance(found["one"], list)
    assert isinstance(found["two"], list)


def test_a_job_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(pool, "TICK_SECONDS", 0.2)
    hanging = {"hangs": ("__import__('time').sleep(3600)",)}
    ((name, result),) = pooled(eval, hanging, num_workers=1, patience_seconds=1)
    assert name == "hangs"
    assert isinstance(result, BrokenProcessPool)
