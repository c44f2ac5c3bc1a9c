"""A run that dies at a chosen moment, or meets a disk that takes no more; see `kill`.

    python -m benchmarks.mortal EXECUTOR

Where, what and how stand in an environment variable, so that the run's workers know it too.
"""

import dataclasses
import errno
import json
import os
import pathlib
import resource
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

from deepmaker_jax.execute import runtime

runtime.one_thread()  # before JAX starts: the same bits inline as in a worker

from deepmaker_jax import Config, load_data, report, run  # noqa: E402
from deepmaker_jax.cli import guarded  # noqa: E402
from deepmaker_jax.config import (  # noqa: E402
    FinalConfig,
    LimitConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
)
from deepmaker_jax.events import Epoch  # noqa: E402

CONFIG = Config(
    validation_share=0.2,
    space=SpaceConfig(
        only=("optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0", "kernel=3")
    ),
    limits=LimitConfig(params=4_000),
    search=SearchConfig(
        population=4, generations=3, epochs=4, rungs=2, oversample=4, objectives=("error", "params")
    ),
    train=TrainConfig(batch_size=64),
    final=FinalConfig(members=2, epochs=4, seeds=2, calibration_images=64),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
VARIABLE = "DEEPMAKER_DEATH"  # by which a run's processes know theirs


class Death(NamedTuple):
    """How a run is to end.

    Attributes:
      kind: "file", "clock", "full", "limit" or "age".
      at: before this operation on a file of the run folder, from 1 on, or from it on
        ("full"); so many seconds after its work began; a file's largest size in bytes;
        nothing for a run that ends of age.
      all: its workers are killed with it.
    """

    kind: str
    at: float = 0.0
    all: bool = False


def _append(path: pathlib.Path, text: str = ".") -> int:
    """Adds to a file that processes share, and returns its length."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, text.encode())
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def _die(all_of_them: bool) -> None:
    """Kills the run's first process, which leads the group, or the group."""
    leader = os.getpgrp()
    if all_of_them:
        os.killpg(leader, signal.SIGKILL)
    os.kill(leader, signal.SIGKILL)


def _watch(out: str, control: pathlib.Path, death: Death) -> None:
    """Counts operations on files of the run folder, and dies before the chosen one."""

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITES
        if (writes or event in CHANGES) and str(args[0]).startswith(out + os.sep):
            number = _append(control / "operations")
            if death.kind == "file" and number == death.at:
                _die(death.all)
            takes_room = event not in ("os.remove", "os.rmdir", "shutil.rmtree")
            if death.kind == "full" and number >= death.at and takes_room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)


if VARIABLE in os.environ:  # a process of a run, its workers included: they import this module too
    OUT, CONTROL, DEATH = json.loads(os.environ[VARIABLE])
    _watch(OUT, pathlib.Path(CONTROL), Death(*DEATH))


def live(executor: str) -> int:
    """Runs until it dies, and leaves what it has seen in the control folder.

    Returns:
      Its exit code, if it lives on.
    """
    if not runtime.is_one_thread():
        raise RuntimeError("JAX started before it could be limited to one thread")
    control, death = pathlib.Path(CONTROL), Death(*DEATH)

    def on_event(event: Any) -> None:
        _append(control / "stages", f"{type(event).__name__}\n")
        if isinstance(event, Epoch):
            _append(control / "epochs", f"{event.id} {event.stage} {event.num_done}\n")

    data = load_data("digits")
    if death.kind == "clock":
        timer = threading.Timer(death.at, _die, (death.all,))
        timer.daemon = True
        timer.start()
    if death.kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(death.at), resource.RLIM_INFINITY))

    def work() -> None:
        began = time.perf_counter()
        run(
            dataclasses.replace(CONFIG, out=OUT, executor=executor),
            data=data, command="the same again", on_event=on_event,
        )  # fmt: skip
        _append(control / "stages", "report\n")
        report.write_report(pathlib.Path(OUT))
        _append(control / "seconds", str(time.perf_counter() - began))

    return guarded(work)


if __name__ == "__main__":
    sys.exit(live(sys.argv[1]))
