"""config.json, front.json and manifest.json as anybody might write them, at each command.

Behind the doors stand a runtime that gives the reference's own logits, a backend that writes one
file, and for most pages plots that are not drawn; everything else is real.
"""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from deepmaker_jax import arch as archs
from deepmaker_jax import config as config_module
from deepmaker_jax import deploy, longer
from deepmaker_jax.cli import main
from deepmaker_jax.config import Config
from deepmaker_jax.data import load
from deepmaker_jax.export import check as checking
from deepmaker_jax.export.manifest import MANIFEST, REFERENCE, made_entry
from deepmaker_jax.export.weights import save_weights
from deepmaker_jax.files import sha256
from deepmaker_jax.report import figure, plots
from deepmaker_jax.spaces import deepmaker
from deepmaker_jax.train.init import random_variables
from tests.fuzz import run as runs
from tests.fuzz.core import ODD, Door, as_text, changed, damaged, generator, listing, odd

ROOT = str(pathlib.Path(__file__).parents[2])
PAGE = {"report.html", "front.png", "hypervolume.png"}
VERDICT = re.compile(r"error: \d+ of \d+ files are missing, damaged or disagree\n")
FAILED = re.compile(r"error: \d+ failed, as each manifest\.json says: run again to retry\n")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / MANIFEST).write_text("{}")
    return runs.make(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Plots without a picture."""
    monkeypatch.setattr(plots, "render", lambda *_, **__: figure.Plot("<svg></svg>", b"PNG"))


def documents(run):
    bundle = next((run / "models").iterdir())
    return [run / "config.json", run / "front.json", bundle / MANIFEST]


def altered(rng, text):
    """A document with other parts, or other bytes."""
    if rng.integers(4) == 0:
        return damaged(rng, text.encode())
    return as_text(changed(rng, json.loads(text))).encode("utf-8", "surrogateescape")


def alter(rng, run, paths):
    """Changes one of the documents; returns (what puts it back, its new bytes)."""
    path = paths[rng.integers(len(paths))]
    text = path.read_text()
    bad = altered(rng, text)
    runs.put(path, bad)
    return (lambda: runs.put(path, text)), path.name.encode() + bad


def test_show(run, tmp_path, capsys):
    door = Door("show", capsys)
    for case in range(260):
        back, bad = alter(generator(door.name, case), run, documents(run))
        before = listing(tmp_path)
        door.give(case, bad, lambda: main(["show", str(run)]))
        assert listing(tmp_path) == before, case
        back()
    door.check(refused=60, accepted=60)


@pytest.mark.usefixtures("undrawn")
def test_report(run, tmp_path, capsys):
    door = Door("report", capsys)
    for case in range(220):
        back, bad = alter(generator(door.name, case), run, documents(run))
        before = listing(tmp_path)
        code = door.give(case, bad, lambda: main(["report", str(run)]))
        new = {pathlib.Path(name).name for name in listing(tmp_path).keys() - before.keys()}
        assert new == (PAGE if code == 0 else set()), case
        assert code == 0 or listing(tmp_path) == before, case
        for name in new:
            (run / name).unlink()
        back()
    door.check(refused=50, accepted=50)


def test_report_with_its_plots(run, tmp_path, capsys):
    """Numbers in the places that become points and axes."""
    door = Door("plots", capsys)
    config, front = (json.loads(path.read_text()) for path in documents(run)[:2])
    # NaN and infinities are no JSON: the doors above refuse them.
    numbers = [x for x in ODD if isinstance(x, int | float) and abs(x) <= sys.float_info.max]
    numbers += [10**300, -(10**300), 1e-9, 123.5]
    for case in range(12):
        rng = generator(door.name, case)
        values = [numbers[i] for i in rng.integers(len(numbers), size=9)]
        objectives = copy.deepcopy(config["objectives"])
        if case % 3 == 0:
            objectives[rng.integers(2)][("ideal", "reference")[rng.integers(2)]] = values[0]
        published = {"params": values[1], "accuracy": values[2], "bytes": values[3]}
        changes = {
            "objectives": objectives,
            "program": {"threads": values[4], "device": "cpu"},
            "references": [published | {"name": "x", "source": "y"}],
        }
        member = front["members"][rng.integers(len(front["members"]))]
        member["objectives"] = dict.fromkeys(member["objectives"], values[5])
        member |= {"test_accuracy": values[6], "params": values[7], "int8_bytes": values[8]}
        runs.put(run / "config.json", as_text(config | changes))
        runs.put(run / "front.json", as_text(front))
        door.give(case, (values, case), lambda: main(["report", str(run)]))
    door.check(least=12, refused=0, accepted=8)


def test_check(run, tmp_path, capsys, monkeypatch):
    """Ends with exit code 1 for what is damaged, and reads nothing outside of the run."""
    runs.standing_in(monkeypatch)
    door = Door("check", capsys)
    for case in range(240):
        rng = generator(door.name, case)
        place = run if rng.integers(3) else documents(run)[2].parent
        back, bad = alter(rng, run, documents(run)) if case else (lambda: None, b"")
        before = listing(tmp_path)

        def check(place=place):
            code = main(["check", str(place)])
            said = capsys.readouterr()
            assert code != 1 or VERDICT.fullmatch(said.err), said.err
            assert "outside/" not in said.out, said.out
            print(said.out, end="")
            print(said.err, end="", file=sys.stderr)
            return code

        door.give(case, bad, check, codes=(0, 1, 2))
        assert listing(tmp_path) == before, case
        back()
    door.check(refused=60, accepted=30)


REFERENCES = ("images", "labels", "logits")


def odd_reference(rng):
    arrays = runs.reference()
    name = REFERENCES[rng.integers(3)]
    kind = rng.integers(12)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = arrays[name][: rng.integers(5)]
    elif kind == 2:
        arrays[name] = arrays[name].astype(("f8", "i1", "U3", "?", "c8")[rng.integers(5)])
    elif kind == 3:
        arrays[name] = arrays[name][..., None]
    elif kind == 4:
        arrays[name] = np.array([None, 1], object)
    elif kind == 5:
        arrays["logits"] = arrays["logits"] * np.float32(rng.choice([np.nan, np.inf, 0, 1e30]))
    else:
        return damaged(rng, runs.packed(arrays))
    return runs.packed(arrays)


def test_check_of_references(run, capsys, monkeypatch):
    """reference.npz is other arrays, or none, and the manifest has its sum."""
    runs.standing_in(monkeypatch)
    door = Door("references", capsys)
    path = documents(run)[2]
    manifest = json.loads(path.read_text())
    for case in range(360):
        rng = generator(door.name, case)
        bad = odd_reference(rng)
        place = path.parent / REFERENCE
        place.write_bytes(bad)
        entry = {"bytes": len(bad), "sha256": sha256(place)}
        files = manifest["files"] | {REFERENCE: manifest["files"][REFERENCE] | entry}
        runs.put(path, json.dumps(manifest | {"files": files}))
        door.give(case, bad, lambda: main(["check", str(run)]), codes=(0, 1))
    door.check(refused=180, accepted=0)


def stand_in(backend, bundle, *, stop, limit_seconds):
    """Writes one file where a backend would."""
    path = bundle / backend.name / "made.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("made")
    made = made_entry(path, tool="tests")
    return {f"{backend.name}/made.txt": made | {"parity": {"max_abs_error": 0.0}}}


def test_deploy(run, tmp_path, capsys, monkeypatch):
    """Writes into the target's folder of a bundle, and nowhere else."""
    monkeypatch.setattr(deploy, "run_backend", stand_in)
    door = Door("deploy", capsys)
    whole = tmp_path / "whole"
    shutil.move(run, whole)
    for case in range(220):
        rng = generator(door.name, case)
        shutil.copytree(whole, run)
        _, bad = alter(rng, run, documents(run)) if case else (None, b"")
        bundle = documents(run)[2].parent
        if rng.integers(10) == 0:  # a link where the target's files would go
            shutil.rmtree(bundle / "mcu")
            (bundle / "mcu").symlink_to(tmp_path / "outside")
        before = listing(tmp_path)
        door.give(
            case, bad, lambda: main(["deploy", str(run), "--targets", "mcu"]), codes=(0, 1, 2)
        )
        after = listing(tmp_path)
        touched = {
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        }
        inside = os.path.relpath(bundle, tmp_path)
        for name in touched:
            assert name.startswith(f"{inside}/mcu") or name == f"{inside}/{MANIFEST}", (case, name)
        shutil.rmtree(run)
    door.check(refused=50, accepted=40)


OUTSIDE = (
    "../outside", "../../outside", "/etc", "", ".", "..", "models/../../outside", "models/\0",
    "models/\ud800", "models\\..\\..\\outside", "a" * 5000, "models/\x1b[2J",
)  # fmt: skip


@pytest.mark.parametrize("command", ["check", "deploy"])
def test_a_front_that_names_bundles_elsewhere(command, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deploy, "run_backend", stand_in)
    door = Door(f"{command} of bundles elsewhere", capsys)
    path = documents(run)[1]
    front = json.loads(path.read_text())
    for case, name in enumerate(OUTSIDE):
        front["members"][0]["bundle"] = name
        runs.put(path, json.dumps(front))
        before = listing(tmp_path)
        words = [command, str(run), *(["--targets", "mcu"] if command == "deploy" else [])]
        code = door.give(case, name, lambda words=words: main(words), codes=(0, 1, 2))
        assert code == (1 if command == "check" else 2), name
        assert listing(tmp_path) == before, name


@pytest.mark.parametrize("command", ["check", "deploy"])
def test_a_manifest_that_names_files_elsewhere(command, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deploy, "run_backend", stand_in)
    door = Door(f"{command} of files elsewhere", capsys)
    path = documents(run)[2]
    manifest = json.loads(path.read_text())
    entry = {"status": "ok", "bytes": 2, "sha256": sha256(tmp_path / "outside" / MANIFEST)}
    for case, name in enumerate(OUTSIDE):
        runs.put(path, json.dumps(manifest | {"files": manifest["files"] | {name: entry}}))
        before = listing(tmp_path)
        words = [command, str(run), *(["--targets", "mcu"] if command == "deploy" else [])]
        code = door.give(case, name, lambda words=words: main(words), codes=(0, 1, 2))
        assert code == (1 if command == "check" else 2), name
        assert listing(tmp_path) == before, name


@pytest.mark.parametrize("name", ["config.json", "front.json", "ledger.jsonl", MANIFEST, REFERENCE])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "endless"])
def test_a_file_that_is_no_file(name, kind, run, tmp_path, capsys):
    door = Door(f"{kind} for {name}", capsys)
    path = run / name if (run / name).exists() else documents(run)[2].parent / name
    path.unlink()
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: path.symlink_to(tmp_path / "missing"),
        "endless": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    before = listing(tmp_path)
    door.give("show", kind, lambda: main(["show", str(run)]))
    door.give("check", kind, lambda: main(["check", str(run)]), codes=(0, 1, 2))
    door.give(
        "deploy", kind, lambda: main(["deploy", str(run), "--targets", "mcu", "--members", "9"])
    )
    assert listing(tmp_path) == before


def test_what_runs_a_file_may_say_anything(run, capsys, monkeypatch):
    """Logits of another shape, or of no numbers, are a verdict."""
    door = Door("runtimes", capsys)
    answers = [np.zeros((5, 9)), np.zeros((4, 10)), np.full((5, 10), np.nan), np.zeros(5)]
    for case, answer in enumerate(answers):
        runtime = checking.Runtime("in LiteRT", lambda path, images, a=answer: a.astype(np.float32))
        monkeypatch.setitem(checking.RUNTIMES, ".tflite", runtime)
        assert door.give(case, case, lambda: main(["check", str(run)]), codes=(1,)) == 1


def test_train(tmp_path, capsys, monkeypatch):
    """`deepmaker train` reads settings, a front, weights and data; what follows is left out."""
    monkeypatch.setattr(longer, "_train", lambda *_, **__: None)
    door, id = Door("train", capsys), "0123456789ab"
    arch = deepmaker((8, 8, 1), 10).decode(np.zeros(20, np.int32))
    found = load("digits")
    monkeypatch.setattr(longer.data_module, "load", lambda name, path, side: found)
    run, whole = tmp_path / "run", tmp_path / "whole"
    config = {
        "config": config_module.to_json(Config()),
        "data": {"name": "digits", "fingerprint": found.fingerprint},
    }
    front = {"members": [{"id": id, "arch": archs.to_json(arch)}]}
    weights = whole / "models" / id / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    save_weights(weights, arch, random_variables(arch, seed=0))
    runs.put(whole / "config.json", json.dumps(config))
    runs.put(whole / "front.json", json.dumps(front))
    for case in range(220):
        rng = generator(door.name, case)
        shutil.copytree(whole, run)
        paths = [run / "config.json", run / "front.json"]
        _, bad = alter(rng, run, paths) if case else (None, b"")
        member = id if rng.integers(4) else str(odd(rng))
        before = listing(tmp_path)
        code = door.give(
            case, (member, bad), lambda member=member: main(["train", str(run), member])
        )
        new = listing(tmp_path).keys() - before.keys()
        assert all(name.startswith("run/longer") for name in new), new
        assert code == 0 or not new, new
        shutil.rmtree(run)
    door.check(refused=80, accepted=5)


def test_a_member_that_is_elsewhere(tmp_path, capsys):
    door = Door("train elsewhere", capsys)
    runs.put(tmp_path / "run" / "config.json", json.dumps(
        {"config": config_module.to_json(Config()), "data": {"name": "digits", "fingerprint": "0"}}
    ))  # fmt: skip
    for name in (*OUTSIDE, "a/b"):
        runs.put(tmp_path / "run" / "front.json", json.dumps({"members": [{"id": name}]}))
        before = listing(tmp_path)
        door.give(name, name, lambda name=name: main(["train", str(tmp_path / "run"), name]))
        assert listing(tmp_path) == before, name
    door.check(least=len(OUTSIDE), refused=len(OUTSIDE), accepted=0)


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_folder_whose_name_is_no_text_on_a_terminal_that_knows_ascii(command, run):
    """In a process of its own: how it prints is settled before `main`."""
    odd = run.with_name(os.fsdecode("é\x1b[31m\n".encode() + b"\xff"))
    run.rename(odd)
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ROOT}
    child = subprocess.run(
        [sys.executable, "-m", "deepmaker_jax.cli", command, os.fsencode(odd)],
        env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert child.returncode == (1 if command == "check" else 0), child.stderr
    assert child.stderr.count(b"\n") == child.returncode, child.stderr
    assert not set(child.stdout + child.stderr) & {0x1B, 0xFF}
