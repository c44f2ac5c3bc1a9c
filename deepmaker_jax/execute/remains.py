"""Ends what is left of a cluster that a run began, once the run is gone: killed, it cannot do so.

Ray's raylet takes its workers along, but not its agents, nor the folder. This is a program of its
own that imports nothing of the package: `python remains.py FOLDER`, with a pipe from the run.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import time

LIMIT_SECONDS = 30.0  # in which all must have ended: a killed process takes no longer
TICK_SECONDS = 0.1


def writing_into(folder: str, *, but: int) -> list[int]:
    """Returns the processes, one apart, that write into a folder, as a cluster's do into its own.

    By `/proc`: none where there is no such thing.
    """
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            files = [file.name for file in (path / "fd").iterdir() if _is_in(folder, file)]
            if int(path.name) != but and any(_is_written(path / "fdinfo" / n) for n in files):
                found.append(int(path.name))
    return found


def _is_in(folder: str, file: pathlib.Path) -> bool:
    try:
        return os.readlink(file).startswith(folder + os.sep)
    except OSError:
        return False


def _is_written(info: pathlib.Path) -> bool:
    flags = info.read_text().partition("flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def end(folder: str, *, but: int) -> None:
    """Kills the processes of a cluster, not the run itself (`but`), and removes its folder."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while (left := writing_into(folder, but=but)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(TICK_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run = os.getppid()
    sys.stdin.buffer.read()  # until the run has closed its end of the pipe, or has ended
    end(sys.argv[1], but=run)
