"""Independent jobs in processes of their own: a process that dies takes no other's job along."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from deepmaker_jax.execute import runtime


def pooled(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    *,
    num_workers: int,
    **environment: str,
) -> Generator[tuple[str, Any | BaseException], None, None]:
    """Yields (name, what the function returned or raised) as jobs finish.

    A process that dies breaks its pool: what that left undone goes on one by one, each
    in a pool of its own, so that only the job that kills its process ends as a
    `BrokenProcessPool`. Left early, the processes are ended at once.

    Args:
      function: of a module; called in the processes.
      jobs: {name: its arguments}.
      num_workers: jobs at once, at least 1.
      **environment: variables that the processes find.
    """
    waiting, alone = list(jobs), False
    while waiting:
        names, waiting = (waiting[:1], waiting[1:]) if alone else (waiting, [])
        batch = {name: jobs[name] for name in names}
        for name, result in _one_pool(function, batch, num_workers, environment):
            if isinstance(result, BrokenProcessPool) and not alone:
                waiting.append(name)
                continue
            yield name, result
        alone = True


def _one_pool(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    num_workers: int,
    environment: dict[str, str],
) -> Iterator[tuple[str, Any | BaseException]]:
    pool = concurrent.futures.ProcessPoolExecutor(
        min(num_workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"),
        initializer=runtime.end_with_parent,
    )  # fmt: skip
    finished = False
    try:
        with runtime.starting_workers(**environment):
            running = {pool.submit(function, *words): name for name, words in jobs.items()}
        for job in concurrent.futures.as_completed(running):
            yield running[job], job.exception() or job.result()
        finished = True
    finally:
        if not finished:  # a Ctrl-C must not wait for work that nobody will use
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(cancel_futures=True)
