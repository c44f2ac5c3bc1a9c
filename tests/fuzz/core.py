"""The core of the fuzz tests: seeded changes of good input, and doors that hold each to the rule.

A door counts what comes through it. Every input must end in exit code 0, or in one line on stderr
that begins with `error: `: never in another exception, a hang, text that commands the terminal, or
a file that was not there before. A failure names the door and the case; the generators are seeded
by the case alone, so the same test gives the same input again.
"""

import collections
import contextlib
import copy
import faulthandler
import hashlib
import json
import pathlib
import signal
import stat
import sys
import tracemalloc
from typing import Any

import numpy as np

from deepmaker_jax.cli import guarded

# For one input, of computing and on the clock; the slowest takes a second.
HANG_SECONDS, WAIT_SECONDS = 20, 240
DEEP = "@deep@"  # stands for what is nested too deep for Python to write
LEVELS = 50_000
ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r\n"
MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;$\\frac{1}{$"
# What stands in for a value of any document.
ODD = (
    None, True, False, 0, -1, 1, 2, 7, 255, 2**31, -(2**31), 2**63, 10**30, -(10**400), 0.5, -0.5,
    1e-300, 5e-324, 1e30, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), "", " ", "x",
    "x" * 5000, "0", "1e5", "null", "ok", "failed", "log2", "../../outside", "/etc/passwd", "..",
    ".", "a/../../b", "a\\..\\b", "a\0b", "\ud800", "é漢字", ESCAPES, MARKUP, "{}", [], {}, [[]],
    [{}], {"": None}, {"x": {"x": {}}}, [None], [1, "a", None], ["ok"] * 50, DEEP,
)  # fmt: skip

# By name, the fewest different inputs that a door is given; `Door.check` asserts it.
DOORS = {
    "experiments": 200, "deepmaker": 200, "settings": 550, "resumed settings": 400,
    "settings of a trained run": 200, "genomes": 450, "architectures": 600, "ledgers": 280,
    "resumed ledgers": 200, "CIFAR batches": 280, "CIFAR archives": 300, "idx files": 280,
    "npz files": 290, "pictures": 230, "weights": 260, "show": 230, "report": 200, "check": 220,
    "references": 200, "deploy": 200, "train": 200,
}  # fmt: skip


class Attack:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class HangError(BaseException):
    """An input took longer than any may."""


class Door:
    """Counts the inputs at one door, and holds every end to the rule.

    Attributes:
      seen: sums of the inputs, so that equal ones count once.
      ends: how many ended with each exit code.
    """

    def __init__(self, name: str, capsys: Any):
        self.name, self._capsys = name, capsys
        self.seen: set[bytes] = set()
        self.ends: collections.Counter[int] = collections.Counter()

    def give(self, case: object, content: object, run: Any, *, codes=(0, 2)) -> int:
        """Runs one input to its end and returns the exit code.

        Args:
          case: what makes the input again: a seed, or a name.
          content: the input itself, to tell it from others.
          run: returns an exit code.
          codes: that it may end with.
        """
        content = content if isinstance(content, bytes) else repr(content).encode()
        self.seen.add(hashlib.sha256(content).digest())
        what = f"{self.name}, case {case}: {content[:600]!r}"
        self._capsys.readouterr()
        try:
            with _limited():
                code = run()
        except SystemExit as stop:  # --help
            code = stop.code or 0
        except (Exception, HangError) as error:
            raise AssertionError(f"{what} ended in {type(error).__name__}: {error}") from error
        said = self._capsys.readouterr()
        assert code in codes, f"{what} ended with {code}: {said.err}"
        lines = said.err.splitlines()
        assert len(lines) == (code != 0), f"{what} said {said.err!r}"
        assert all(line.startswith("error: ") for line in lines), f"{what} said {said.err!r}"
        loose = [c for c in said.out + said.err if not (c.isprintable() or c == "\n")]
        assert not loose, f"{what} wrote {loose!r} to the terminal"
        self.ends[code] += 1
        return code

    def call(self, case: object, content: object, work: Any) -> int:
        """Runs what is behind a command as a command does."""
        return self.give(case, content, lambda: guarded(work))

    def check(self, *, refused: int, accepted: int = 1, least: int | None = None) -> None:
        """Asserts how many different inputs there were, and how many of them ended how.

        Args:
          refused: at least so many.
          accepted: at least so many.
          least: inputs in all; None for what `DOORS` has.
        """
        least = DOORS[self.name] if least is None else least
        assert len(self.seen) >= least, f"{self.name}: only {len(self.seen)} different inputs"
        assert self.ends.total() - self.ends[0] >= refused, f"{self.name}: {self.ends}"
        assert self.ends[0] >= accepted, f"{self.name}: {self.ends}"


@contextlib.contextmanager
def _limited():
    """Raises in what computes or waits too long; ends the process if it cannot be interrupted."""

    def stop(signum, frame):
        raise HangError(f"more than {HANG_SECONDS} s of computing, or {WAIT_SECONDS} of waiting")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS)
    faulthandler.dump_traceback_later(2 * WAIT_SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextlib.contextmanager
def memory(most: int):
    """Asserts that what the block does takes at most so many bytes at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"it took {peak} bytes"


def generator(door: str, case: int) -> np.random.Generator:
    """Returns the generator of one case of one door, the same in every process."""
    return np.random.default_rng([case, *door.encode()])


def damaged(rng: np.random.Generator, data: bytes, *, other: bytes = b"") -> bytes:
    """Returns bytes that were cut, flipped, deleted, doubled, overwritten, spliced or emptied."""
    size = len(data)
    at, to = sorted(int(i) for i in rng.integers(0, size + 1, 2))
    kind = rng.integers(10)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[at:]
    if kind == 2:
        return data[:at] + data[to:]
    if kind == 3:
        return data[:to] + data[at : at + min(to - at, 4096)] + data[to:]
    if kind == 4:
        block = rng.integers(0, 256, rng.integers(1, 64), np.uint8).tobytes()
        return data[:at] + block + data[at + len(block) :]
    if kind == 5:
        return data[:at] + rng.integers(0, 256, rng.integers(1, 64), np.uint8).tobytes() + data[at:]
    if kind == 6:
        return data[:at] + (other or data)[to:]
    if kind == 7:
        filling = bytes([rng.choice([0, 0x20, 0x7F, 0x80, 0xFF])]) * int(rng.integers(1, 200))
        return data[:at] + filling + data[at + len(filling) * int(rng.integers(2)) :]
    changed = bytearray(data or b"\0")
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Returns (container, key) of everything inside a document."""
    found, waiting = [], [value]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            found.append((inner, key))
            if isinstance(inner[key], dict | list):
                waiting.append(inner[key])
    return found


def odd(rng: np.random.Generator) -> Any:
    """Returns a value that hardly any place expects."""
    return copy.deepcopy(ODD[rng.integers(len(ODD))])


def changed(rng: np.random.Generator, value: Any) -> Any:
    """Returns a copy of a document with one to three of its parts replaced, removed or retyped."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.integers(1, 4)):
        places = _places(root)
        # The document as a whole is one place of hundreds.
        inner, key = places[rng.integers(len(places))]
        kind = rng.integers(8)
        if kind <= 2:
            inner[key] = odd(rng)
        elif kind == 3 and inner is not root:
            del inner[key]
        elif kind == 4:
            inner[key] = [inner[key]] if rng.integers(2) else {"x": inner[key]}
        elif kind == 5:
            inner[key] = str(inner[key])
        elif kind == 6 and isinstance(inner, dict):
            name = odd(rng)
            inner[name if isinstance(name, str) else str(name)] = inner.pop(key)
        elif kind == 6:
            inner.append(copy.deepcopy(inner[key]))
        else:
            other, place = places[rng.integers(len(places))]
            with contextlib.suppress(KeyError, IndexError):
                inner[key] = copy.deepcopy(other[place])
    return root[0] if root else None


def as_text(value: Any) -> str:
    """Returns a document as JSON, as loose as a hostile writer's: NaN, surrogates, bottomless."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * LEVELS + "]" * LEVELS)


def listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Returns {path: (size, time of its last change)} of all below a folder; folders have none."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        is_folder = stat.S_ISDIR(state.st_mode)
        found[str(path.relative_to(folder))] = (
            (0, 0) if is_folder else (state.st_size, state.st_mtime_ns)
        )
    return found
