"""Independent jobs in processes of their own: a process that dies takes no other's job along."""

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from deepmaker_jax.execute import runtime

PATIENCE_SECONDS = 3600.0  # in which not one job ends: what is left hangs
TICK_SECONDS = 10.0


def pooled(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    *,
    num_workers: int,
    patience_seconds: float = PATIENCE_SECONDS,
    **environment: str,
) -> Generator[tuple[str, Any | BaseException], None, None]:
    """Yields (name, what the function returned or raised) as jobs finish.

    A process that dies breaks its pool: what that left undone goes on one by one, each
    in a pool of its own, so that only the job that kills its process, or hangs and so has
    it killed, ends as a `BrokenProcessPool`. Left early, the processes are ended at once.

    Args:
      function: of a module; called in the processes.
      jobs: {name: its arguments}.
      num_workers: jobs at once, at least 1.
      patience_seconds: without a job's end, after which the processes are killed.
      **environment: variables that the processes find.
    """
    waiting, alone = list(jobs), False
    while waiting:
        names, waiting = (waiting[:1], waiting[1:]) if alone else (waiting, [])
        batch = {name: jobs[name] for name in names}
        for name, result in _one_pool(function, batch, num_workers, patience_seconds, environment):
            if isinstance(result, BrokenProcessPool) and not alone:
                waiting.append(name)
                continue
            yield name, result
        alone = True


def _one_pool(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    num_workers: int,
    patience_seconds: float,
    environment: dict[str, str],
) -> Iterator[tuple[str, Any | BaseException]]:
    pool = concurrent.futures.ProcessPoolExecutor(
        min(num_workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"),
        initializer=runtime.belong_to_parent,
    )  # fmt: skip
    finished = False
    try:
        with runtime.starting_workers(**environment):
            running = {pool.submit(function, *words): name for name, words in jobs.items()}
        silent = 0.0
        while running:
            began = time.monotonic()
            done, _ = concurrent.futures.wait(
                running, TICK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
            )
            # Not the time in which this process was stopped itself.
            silent = 0.0 if done else silent + min(time.monotonic() - began, TICK_SECONDS)
            if silent > patience_seconds:
                _kill(pool)
            for job in done:
                yield running.pop(job), job.exception() or job.result()
        finished = True
    finally:
        if not finished:  # a Ctrl-C must not wait for work that nobody will use
            _kill(pool)
        pool.shutdown(cancel_futures=True)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
