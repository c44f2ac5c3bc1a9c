"""Independent jobs in processes of their own: a process that dies takes no other's job along."""

import collections
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

    A process that dies breaks its pool: what was under way in that goes on one by one, each in
    a pool of its own, so that only the job that kills its process, or hangs and so has it
    killed, ends as a `BrokenProcessPool`; what had not begun goes on side by side. Left early,
    the processes are ended at once.

    Args:
      function: of a module; called in the processes.
      jobs: {name: its arguments}.
      num_workers: jobs at once, at least 1.
      patience_seconds: without a job's end, after which the processes are killed.
      **environment: variables that the processes find.
    """
    waiting = collections.deque(jobs)
    while waiting:
        under_way: list[str] = []
        for name, result in _one_pool(
            function, jobs, waiting, num_workers, patience_seconds, environment
        ):
            if isinstance(result, BrokenProcessPool):
                under_way.append(name)
            else:
                yield name, result
        for name in under_way:
            alone = collections.deque([name])
            yield from _one_pool(function, jobs, alone, 1, patience_seconds, environment)


def _one_pool(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    waiting: collections.deque[str],
    num_workers: int,
    patience_seconds: float,
    environment: dict[str, str],
) -> Iterator[tuple[str, Any | BaseException]]:
    """Does jobs until none waits or the pool breaks; takes off `waiting` those that it begins."""
    num_workers = min(num_workers, len(waiting))
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context("spawn"),
        initializer=runtime.belong_to_parent,
    )  # fmt: skip
    running: dict[concurrent.futures.Future[Any], str] = {}
    finished = is_broken = False
    silent = 0.0
    try:
        while running or (waiting and not is_broken):
            # No more than are done at once: of others it were not known that they had not begun.
            while waiting and len(running) < num_workers and not is_broken:
                try:
                    with runtime.starting_workers(**environment):
                        job = pool.submit(function, *jobs[waiting[0]])
                except BrokenProcessPool:
                    is_broken = True
                else:
                    running[job] = waiting.popleft()
            began = time.monotonic()
            done, _ = concurrent.futures.wait(
                running, TICK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
            )
            # Not the time in which this process was stopped itself.
            silent = 0.0 if done else silent + min(time.monotonic() - began, TICK_SECONDS)
            if silent > patience_seconds:
                _kill(pool)
            for job in done:
                error = job.exception()
                is_broken = is_broken or isinstance(error, BrokenProcessPool)
                yield running.pop(job), error or job.result()
        finished = True
    finally:
        if not finished:  # a Ctrl-C must not wait for work that nobody will use
            _kill(pool)
        pool.shutdown(cancel_futures=True)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
