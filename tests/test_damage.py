"""Killed at any instant, or damaged in any file, a run ends as one that nobody disturbed.

The long form of the first is `benchmarks/kill.py`.
"""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from benchmarks import kill
from deepmaker_jax import run
from deepmaker_jax.cli import main
from deepmaker_jax.errors import InputError
from tests.tiny import DIGITS

BUNDLE = (
    "weights.safetensors", "model_f32.tflite", "model_f16.tflite", "model_dynamic.tflite",
    "model_int8.tflite", "model.stablehlo.mlirbc", "model.jax_export", "model.onnx",
    "reference.npz",
)  # fmt: skip
OWN = ("config.json", "front.json", "ledger.jsonl")
NAMES = (*OWN, *(f"models/*/{name}" for name in ("manifest.json", *BUNDLE)))


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flip,
    "emptied": lambda data: b"",
    "deleted": None,
}
# A bundle's other files are held to their sums, for which being cut or empty is nothing else.
CASES = [
    (name, damage)
    for name in NAMES
    for damage in DAMAGES
    if damage in ("flipped", "deleted") or name.endswith((".json", ".jsonl"))
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns (folder, what it is) of a run that nobody disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, kill.undisturbed(out, "inline")


def test_a_killed_run_in_worker_processes_ends_with_the_bytes_of_an_inline_one(finished, tmp_path):
    """In another folder, with the same seed: place, executor and deaths change nothing."""
    _, whole = finished
    deaths = kill.torment(tmp_path / "run", whole, np.random.default_rng(1), "processes", most=1)
    assert len(deaths) == 1


@pytest.mark.parametrize(("seed", "kind"), [(0, "full"), (1, "limit")])
def test_a_run_that_met_a_full_disk_ends_with_one_line_and_then_with_the_same_bytes(
    finished, tmp_path, seed, kind
):
    rng = np.random.default_rng(seed)
    (death,) = kill.torment(tmp_path / "run", finished[1], rng, "inline", most=1, full=True)
    assert (death["kind"], death["code"]) == (kind, 1)


def test_what_a_killed_run_did_otherwise_is_noticed(finished, tmp_path):
    out, whole = shutil.copytree(finished[0], tmp_path / "run"), finished[1]
    assert kill.check(out, whole, epochs_again=2, allowed=2) == []
    (out / "front.json").write_bytes(b"{}")
    (out / "models" / ".half").touch()
    assert kill.check(out, whole, epochs_again=3, allowed=2) == [
        "front.json is another",
        "models/.half was left behind",
        "3 epochs were trained again, more than 2",
    ]


def damaged(finished, tmp_path, name, damage):
    """Returns a copy of the run with one damaged file, and that file."""
    out = shutil.copytree(finished[0], tmp_path / "run")
    path = sorted(out.glob(name))[0]
    change = DAMAGES[damage]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    return out, path


def again(out):
    run(dataclasses.replace(kill.CONFIG, out=str(out), executor="inline"), data=DIGITS)


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_no_command_ends_with_more_than_a_line(finished, tmp_path, capsys, name, damage):
    out, path = damaged(finished, tmp_path, name, damage)
    capsys.readouterr()
    for command in ("show", "report"):
        code = main([command, str(out)])
        said = capsys.readouterr().err
        assert (code, said.count("\n")) in ((0, 0), (1, 1), (2, 1)), (command, said)
        assert code == 0 or said.startswith("error: "), (command, said)
    code = main(["check", str(out)])
    said = capsys.readouterr()
    # A ledger may end anywhere, and a run folder may hold its bundles alone.
    is_whole = damage == "deleted" or (path.name == "ledger.jsonl" and damage != "flipped")
    assert code == (0 if path.parent == out and is_whole else 1)
    assert said.err.count("\n") == code
    assert code == 0 or path.name in said.out


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("front.json", "cut"),
        ("models/*/manifest.json", "emptied"),
        ("models/*/weights.safetensors", "flipped"),
        ("models/*/weights.safetensors", "deleted"),
    ],
)
def test_the_same_command_makes_again_what_is_not_whole(finished, tmp_path, name, damage):
    out, _ = damaged(finished, tmp_path, name, damage)
    again(out)
    assert kill.check(out, finished[1]) == []


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("config.json", "deleted", r"holds files but no config\.json"),
        ("config.json", "cut", r"config\.json cannot be read as JSON"),
        ("ledger.jsonl", "flipped", r"ledger\.jsonl line \d+ .*: delete that line"),
    ],
)
def test_what_cannot_be_made_again_is_refused_with_the_reason(
    finished, tmp_path, name, damage, said
):
    out, _ = damaged(finished, tmp_path, name, damage)
    with pytest.raises(InputError, match=said):
        again(out)


def test_a_line_that_is_deleted_from_the_ledger_is_measured_again(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "run")
    path = pathlib.Path(out) / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    again(out)
    assert len(path.read_bytes().splitlines()) == len(lines)
    assert kill.check(out, finished[1]) == []
