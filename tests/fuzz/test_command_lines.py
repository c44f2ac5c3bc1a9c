"""Command lines, through `main(argv)`.

Everything is real up to the moment in which a run would make its folder: parsing, checks, reading
the data, the space within its limits, the choice of the program. There the run is stopped, and
counts as accepted.
"""

import collections
import dataclasses
import functools
import os
import typing

import numpy as np
import pytest

from deepmaker_jax import cli, run_folder
from deepmaker_jax.config import Config
from deepmaker_jax.data import tfds_source
from deepmaker_jax.errors import InputError
from experiments import cifar10, digits, images, mnist
from tests.fuzz.core import ESCAPES, MARKUP, ODD, Door, generator, listing

NUMBERS = (
    "0", "-1", "1", "2", "3", "4", "7", "16", "64", "2147483647", "2147483648", "1" + "0" * 30,
    "9" * 5000, "1e3", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "0.1", "None", "none", "",
    "x", "0x10", "१२", "1_000", " 5", "+5", "--", "-", "=", "True",
)  # fmt: skip
WORDS = (
    "", " ", "-", "--", "x", "=", "a=b", "None", "../..", "/", "/dev/null", "/dev/zero",
    "/proc/1/x", "~", "a\nb", "a\0b", "\udcff", "\ud800", ESCAPES, MARKUP, "é漢", "x" * 5000,
    "@file", "kernel=3", "kernel=7", "kernel=3|5", "kernel=", "=3", "kernel=3=5", "stages=1|1",
    "error", "params", "macs", "flash_bytes", "latency_ms", "light", "none", "mcu", "fpga", "pico",
    "neuropower", "deepmaker", "0123456789ab", "nsga2", "auto", "vmap", "random", "cosine",
)  # fmt: skip


class AcceptedError(BaseException):
    """A run was about to make its folder."""


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Stops every run where it would make its folder; commands run in an empty one."""

    def claim(*_, **__):
        raise AcceptedError

    def download(*_):
        raise InputError("no network")

    monkeypatch.setattr(run_folder, "claim", claim)
    monkeypatch.setattr(tfds_source, "_run_child", download)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def given(main, argv):
    try:
        return main(argv)
    except AcceptedError:
        return 0


@functools.cache
def flags():
    """Returns (flag, kind) of every setting."""

    def inside(settings, prefix):
        found = []
        for name, kind in typing.get_type_hints(settings).items():
            flag = prefix + name.replace("_", "-")
            if dataclasses.is_dataclass(kind):
                found += inside(kind, f"{flag}.")
            elif name not in ("experiment", "preset"):
                found.append((flag, kind))
        return found

    return inside(Config, "--")


def words(rng, flag, kind):
    """Returns a flag and values that it may or may not take."""
    if kind is bool and rng.integers(4):
        return [flag if rng.integers(2) else flag.replace("--", "--no-", 1)]
    numeric = kind in (int, float, int | None, float | None)
    pool = NUMBERS if numeric == (rng.integers(10) > 0) else WORDS
    if typing.get_origin(kind) is typing.Literal and rng.integers(2):
        pool = typing.get_args(kind)
    values = [pool[rng.integers(len(pool))] for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 2]))]
    if rng.integers(6) == 0:
        return [f"{flag}={','.join(values)}"]
    return [flag, *values]


def line(rng, presets, places):
    """Returns the arguments of an experiment."""
    argv = [presets[rng.integers(len(presets))]] if rng.integers(5) else []
    if rng.integers(8) == 0:
        argv = [WORDS[rng.integers(len(WORDS))]]
    if places:
        argv += ["--data", places[rng.integers(len(places))]]
    for _ in range(rng.integers(1, 4)):
        flag, kind = flags()[rng.integers(len(flags()))]
        argv += words(rng, flag, kind)
    if rng.integers(12) == 0:
        argv.insert(int(rng.integers(len(argv) + 1)), WORDS[rng.integers(len(WORDS))])
    return argv


def test_experiments(stopped, capsys):
    """Of digits, of arrays of one's own, and of data that are not there."""
    door, ends = Door("experiments", capsys), collections.Counter()
    pixels = np.zeros((120, 12, 12, 1), np.uint8)
    np.savez(stopped / "mine.npz", x_train=pixels, y_train=np.arange(120) % 3)
    (stopped / "empty").mkdir()
    mine = str(stopped / "mine.npz")
    nowhere = [str(stopped / "empty"), str(stopped / "missing"), mine, "/dev/null", "/dev/zero", ""]
    kinds = (
        lambda case: (digits.main, ["demo"], []),
        lambda case: (images.main, ["smoke", "small"], [mine]),
        lambda case: ((cifar10, mnist, images)[case % 9 // 3].main, ["smoke", "small"], nowhere),
    )
    for case in range(360):
        rng = generator(door.name, case)
        main, presets, places = kinds[case % 3](case)
        argv = line(rng, presets, places)
        before = listing(stopped)
        code = door.give(case, argv, lambda main=main, argv=argv: given(main, argv))
        ends[case % 3, code] += 1
        assert listing(stopped) == before, argv
        assert not os.listdir(stopped / "here"), argv
    assert min(ends[0, 0], ends[1, 0]) >= 5
    door.check(refused=90, accepted=10)


def test_deepmaker(stopped, capsys):
    """Of `deepmaker`: no run folder is there."""
    door = Door("deepmaker", capsys)
    commands = ("show", "report", "train", "deploy", "check")
    more = ("--members", "--targets", "--workers", "--epochs", "--data", "--out", "--help", "-h")
    texts = [value for value in ODD if isinstance(value, str)]
    for case in range(260):
        rng = generator(door.name, case)
        argv = [commands[rng.integers(5)]] if rng.integers(10) else []
        for _ in range(rng.integers(0, 5)):
            pool = (WORDS, NUMBERS, more, texts)[rng.integers(4)]
            argv.append(str(pool[rng.integers(len(pool))]))
        before = listing(stopped)
        door.give(case, argv, lambda argv=argv: given(cli.main, argv))
        assert listing(stopped) == before, argv
    door.check(refused=150, accepted=1)
