"""Killed at any instant, or damaged in any file, a run ends as one that nobody disturbed.

The long form of the first is `benchmarks/kill.py`.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import re
import shutil

import numpy as np
import pytest

from benchmarks import kill
from deepmaker_jax import run
from deepmaker_jax.cli import main
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch, Measured, Note
from deepmaker_jax.export import check as checking
from deepmaker_jax.report import figure, plots
from tests.tiny import DIGITS, TINY, Stopped, go

FURTHER = ("cut", "deleted")  # ways in which `deploy` and `train` are tried, which take seconds
SHOWN = ("config.json", "front.json", "ledger.jsonl", "manifest.json")  # what show and report read
PAGE = ("report.html", "front.png", "hypervolume.png")


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flip,
    "emptied": lambda data: b"",
    "deleted": None,
}


def damage(path, how):
    change = DAMAGES[how]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns (folder, what it is) of a run that nobody disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, kill.undisturbed(out, "inline")


@pytest.fixture(scope="module")
def deployed(finished, tmp_path_factory):
    """The same with a member's files for a device, and the page that tells of them."""
    out = shutil.copytree(finished[0], tmp_path_factory.mktemp("deployed") / "run")
    assert main(["deploy", str(out), "--targets", "mcu", "--members", "1"]) == 0
    return out


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
    assert kill.check(out, whole, ["a search 1", "a final 1"]) == []
    (out / "front.json").write_bytes(b"{}")
    (out / "models" / ".half").touch()
    weights, *_ = sorted((out / "robustness").rglob("*.safetensors"))
    weights.write_bytes(b"")
    assert kill.check(out, whole, ["a search 1", "b search 1", "a search 1"]) == [
        "front.json is another",
        f"{weights.relative_to(out)} is another",
        "models/.half was left behind",
        "epoch a search 1 was trained again",
    ]


def everything(out):
    """Every file's bytes, by path."""
    return {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def damaged(out, path, how):
    """A file of the run is damaged in the block; then it and the page are as they were."""
    kept = {file: file.read_bytes() for file in (path, *(out / name for name in PAGE))}
    damage(path, how)
    try:
        yield
    finally:
        for file, data in kept.items():
            file.write_bytes(data)


def told(capsys, *words):
    """Runs a command that may say one line on stderr; returns (exit code, all that it said)."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert said.err.count("\n") == (code != 0), (words, said.err)
    assert code == 0 or said.err.startswith("error: "), (words, said.err)
    return code, said.out + said.err


@pytest.mark.parametrize("how", DAMAGES)
def test_whatever_file_is_damaged_the_tool_says_which_and_ends_with_no_more_than_a_line(
    deployed, capsys, monkeypatch, how
):
    """`check` names every file of a run, also one that is missing; what reads one names it."""
    monkeypatch.setattr(checking, "RUNTIMES", {})  # what is not damaged need not be run
    monkeypatch.setattr(plots, "render", lambda *_, **__: figure.Plot("<svg></svg>", b"PNG"))
    before = everything(deployed)
    names = {str(path.relative_to(deployed)) for path in before}
    assert {name.split("/")[2] for name in names if name.count("/") == 3} == {"mcu"}
    assert names >= {*PAGE, "config.json", "front.json", "ledger.jsonl"}
    first = next(path.parent for path in before if path.parent.name == "mcu").parent
    for path in before:
        name = path.name
        if name in PAGE:
            continue  # made again below
        with damaged(deployed, path, how):
            code, said = told(capsys, "check", deployed)
            bad = [line.split()[1] for line in said.splitlines() if line.startswith(checking.BAD)]
            assert (code, str(path) in bad) == (1, True), (path, said)
            if name in SHOWN:
                code, said = told(capsys, "show", deployed)
                assert (code in (0, 2), name in said) == (True, True), (path, said)
                code, said = told(capsys, "report", deployed)
                page = (deployed / PAGE[0]).read_text()
                lacks = "".join(re.findall('<p class="lacks">.*?</p>', page))
                told_of = said if code else lacks
                assert (code in (0, 2), name in told_of) == (True, True), (path, said)
            if how not in FURTHER:
                continue
            if path.parent == first:
                words = ("deploy", deployed, "--targets", "mcu", "--members", "1")
                code, said = told(capsys, *words)
                assert (code, name in said) == (2, True), (path, said)
            if name == "weights.safetensors":
                code, said = told(capsys, "train", deployed, path.parent.name, "--epochs", "1")
                assert code == 2, (path, said)
                assert name in said or "has no weights" in said
    assert everything(deployed) == before


def test_the_page_is_made_again_to_the_same_bytes(deployed):
    before = everything(deployed)
    for name, how in zip(PAGE, ("cut", "flipped", "deleted"), strict=True):
        damage(deployed / name, how)
    assert main(["report", str(deployed)]) == 0
    assert everything(deployed) == before


def test_what_was_made_for_a_device_is_made_again(deployed, tmp_path):
    """All but what was measured: every file that was damaged, each in another way."""
    out = shutil.copytree(deployed, tmp_path / "run")
    before = {path: data for path, data in everything(out).items() if path.parent.name == "mcu"}
    assert len(before) > 3
    for path, how in zip(before, itertools.cycle(DAMAGES), strict=False):
        damage(path, how)
    assert main(["deploy", str(out), "--targets", "mcu", "--members", "1"]) == 0
    after = everything(out)
    assert {path: after.get(path) for path in before} == before
    assert main(["check", str(out)]) == 0


def again(out):
    """Gives the same command; returns what it notes."""
    config, events = dataclasses.replace(kill.CONFIG, out=str(out), executor="inline"), []
    run(config, data=DIGITS, on_event=events.append)
    return [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize(
    ("front", "weights", "manifest"), [("cut", "flipped", None), ("deleted", "deleted", "emptied")]
)
def test_the_same_command_makes_again_what_is_not_whole(
    finished, tmp_path, front, weights, manifest
):
    """Of one member the weights, of the other whatever was made of them, each in another way."""
    out = shutil.copytree(finished[0], tmp_path / "run")
    one, other = sorted((out / "models").iterdir())
    damage(out / "front.json", front)
    damage(one / "weights.safetensors", weights)
    ways, hurt = itertools.cycle(DAMAGES), {one / "weights.safetensors"}
    hurt |= {out / "front.json"} if front != "deleted" else set()  # it may not have been there yet
    for path in sorted(other.iterdir()):
        if path.name == "manifest.json" and manifest is not None:
            damage(path, manifest)
            hurt.add(path)
        elif path.name not in ("manifest.json", "weights.safetensors"):
            damage(path, next(ways))
            hurt |= {path} if manifest is None else set()  # else nothing says what it was
    noted = {pathlib.Path(text.split()[0]) for text in again(out)}
    assert noted == hurt
    assert kill.check(out, finished[1]) == []
    assert again(out) == []


def test_a_damaged_checkpoint_is_not_gone_on_from_and_the_end_is_the_same(tmp_path):
    """A training that was stopped after its second epoch of four, in each kind of damage."""
    config = dataclasses.replace(TINY, final=dataclasses.replace(TINY.final, members=1))

    def on_two(event):
        return isinstance(event, Epoch) and event.stage == "final" and event.num_done == 2

    def once_trained(event):
        return isinstance(event, Measured) and event.stage == "final"

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=on_two)
    (path,) = (tmp_path / "run" / "checkpoints").rglob("*.*")
    begun, weights = path.relative_to(tmp_path / "run"), {}
    for how in (None, *DAMAGES):
        out = shutil.copytree(tmp_path / "run", tmp_path / f"{how}")
        if how is not None:
            damage(out / begun, how)
        epochs = []

        def stop(event, epochs=epochs):
            if isinstance(event, Epoch):
                epochs.append(event.num_done)
            return once_trained(event)

        with pytest.raises(Stopped):
            go(out, config=config, stop=stop)
        assert epochs == ([3, 4] if how is None else [1, 2, 3, 4]), how
        (trained,) = out.glob("models/*/weights.safetensors")
        weights[how] = trained.read_bytes()
    assert len(set(weights.values())) == 1


def test_a_candidate_that_was_interrupted_goes_on_from_its_last_epoch(tmp_path):
    search = dataclasses.replace(TINY.search, generations=1, epochs=4)
    config = dataclasses.replace(TINY, search=search)

    def on_two(event):
        return isinstance(event, Epoch) and event.num_done == 2

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=on_two)
    epochs = []

    def once_measured(event):
        if isinstance(event, Epoch):
            epochs.append(event.num_done)
        return isinstance(event, Measured)

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=once_measured)
    assert epochs == [3, 4]


def test_weights_of_another_network_are_not_taken_for_a_members(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "run")
    one, other = sorted((out / "models").iterdir())
    shutil.copy(one / "weights.safetensors", other / "weights.safetensors")
    assert main(["check", str(out)]) == 1
    again(out)
    assert kill.check(out, finished[1]) == []


def test_bundles_that_changed_places_are_named_by_all_that_read_them(deployed, tmp_path, capsys):
    out = shutil.copytree(deployed, tmp_path / "run")
    one, other = sorted((out / "models").iterdir())
    shutil.move(one, out / "models" / "aside")
    shutil.move(other, one)
    shutil.move(out / "models" / "aside", other)
    for command in ("show", "report", "deploy"):
        code, said = told(capsys, command, out)
        assert (code, f"manifest.json is that of '{other.name}'" in said) == (2, True), said


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("config.json", "deleted", r"holds files but no config\.json"),
        ("config.json", "cut", r"config\.json cannot be read as JSON"),
        ("config.json", "flipped", r"config\.json (cannot be read|does not match its own sum)"),
        ("ledger.jsonl", "flipped", r"ledger\.jsonl line \d+ .*: delete that line"),
    ],
)
def test_what_cannot_be_made_again_is_refused_with_the_reason(finished, tmp_path, name, how, said):
    out = shutil.copytree(finished[0], tmp_path / "run")
    damage(out / name, how)
    with pytest.raises(InputError, match=said):
        again(out)


def test_what_a_ledger_lost_is_measured_again(finished, tmp_path):
    """A line that was deleted, and the last two, of which half a line is left."""
    out = shutil.copytree(finished[0], tmp_path / "run")
    path = out / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:-2], lines[-2][:40]]))
    again(out)
    assert len(path.read_bytes().splitlines()) == len(lines)
    assert kill.check(out, finished[1]) == []
