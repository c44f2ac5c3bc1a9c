"""Deployment: what is missing or stale, in parallel, nothing lost, bad input refused."""

import functools
import json
import pathlib
import shutil

import pytest

from deepmaker_jax import deploy as deploying
from deepmaker_jax import report
from deepmaker_jax.backends import Tool
from deepmaker_jax.cli import main
from deepmaker_jax.deploy import at_the_end, deploy
from deepmaker_jax.errors import InputError
from deepmaker_jax.export import read_bundle
from deepmaker_jax.export.manifest import ENTRY_KEYS
from tests.backends import own
from tests.backends.conftest import ID, write_run

OWN = {"table": own.TABLE, "broken": own.BROKEN, "dying": own.DYING}


def manifest_of(run, id=ID):
    return json.loads((run / "models" / id / "manifest.json").read_text())


def test_a_backend_of_ones_own_is_under_60_lines_and_deploys(run):
    assert len(pathlib.Path(own.__file__).read_text().splitlines()) < 60
    (event,) = deploy(run, backends={"table": own.TABLE})
    assert (event.id, event.target, event.status) == (ID, "table", "ok")
    entry = read_bundle(run / "models" / ID)["files"][own.PATH]
    parity = entry["parity"]
    assert (parity["max_abs_error"], parity["images"]) == (0.0, 100)


def test_a_backend_that_fails_or_dies_loses_nothing_of_the_others(run):
    before = manifest_of(run)["files"]
    events = {event.target: event for event in deploy(run, backends=OWN, num_workers=2)}
    assert {name: event.status for name, event in events.items()} == {
        "table": "ok", "broken": "failed", "dying": "failed",
    }  # fmt: skip
    files = manifest_of(run)["files"]
    assert {name: files[name] for name in before} == before
    assert files[own.PATH]["status"] == "ok"
    assert files["broken"]["reason"] == "RuntimeError: RuntimeError: no memory left at PATH"
    assert files["dying"]["reason"] == "RuntimeError: its process ended with 3"
    assert {event.num_done for event in events.values()} == {1, 2, 3}


def test_what_a_backend_cannot_do_is_unsupported_with_every_reason_and_not_built(run):
    (event,) = deploy(run, backends={"picky": own.PICKY})
    assert (event.status, event.reason) == ("unsupported", "picky: too new; too old")
    entry = manifest_of(run)["files"]["picky"]
    assert set(ENTRY_KEYS) <= set(entry)
    assert not (run / "models" / ID / "picky").exists()
    assert not (run / "models" / ID / own.PATH).exists()


def test_a_backend_that_takes_too_long_is_ended(run):
    (event,) = deploy(run, backends={"hanging": own.HANGING}, limit_seconds=8)
    assert (event.status, event.reason) == ("failed", "hanging: RuntimeError: took longer than 8 s")


def test_only_what_is_missing_stale_or_failed_is_made(run):
    backends = {name: OWN[name] for name in ("table", "broken")}
    list(deploy(run, backends=backends))
    path = run / "models" / ID / own.PATH
    made = path.stat().st_mtime_ns

    again = {event.target: event.seconds for event in deploy(run, backends=backends)}
    assert again["table"] == 0.0
    assert again["broken"] > 0.0  # what failed is tried again
    assert path.stat().st_mtime_ns == made

    path.write_bytes(b"damaged")
    (event,) = deploy(run, backends={"table": own.TABLE})
    assert (event.status, event.seconds > 0) == ("ok", True)

    manifest = manifest_of(run)
    manifest["files"]["model_int8.tflite"] = manifest["files"]["reference.npz"]  # exported anew
    shutil.copy(path.parents[1] / "reference.npz", path.parents[1] / "model_int8.tflite")
    (run / "models" / ID / "manifest.json").write_text(json.dumps(manifest))
    (event,) = deploy(run, backends={"table": own.TABLE})
    assert event.seconds > 0


def test_members_are_the_first_of_the_front(run):
    ids = (ID, "ba9876543210")
    shutil.copytree(run / "models" / ID, run / "models" / ids[1])
    write_run(run, ids=ids)
    events = list(deploy(run, members=1, backends={"table": own.TABLE}))
    assert [event.num_jobs for event in events] == [1]
    assert (run / "models" / ids[0] / own.PATH).exists()
    assert not (run / "models" / ids[1] / own.PATH).exists()
    with pytest.raises(InputError, match=r"members \(=3\) must be 1..2"):
        next(deploy(run, members=3, backends={"table": own.TABLE}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--targets", "arm", "toaster"], "targets (=toaster) must be among arm, mcu, cpu"),
        (["--members", "0"], "members (=0) must be 1..1"),
        (["--members", "2"], "members (=2) must be 1..1"),
        (["--members", "two"], "--members"),
        (["--workers", "-1"], "workers (=-1)"),
    ],
)
def test_bad_settings_are_one_line_and_exit_2(run, args, words, capsys):
    before = manifest_of(run)
    assert main(["deploy", str(run), *args]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert said.out == ""
    assert manifest_of(run) == before


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"TFL3")])
def test_a_bundle_without_a_whole_portable_file_is_one_line_and_exit_2(run, damage, capsys):
    damage(run / "models" / ID / "model_int8.tflite")
    assert main(["deploy", str(run)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "model_int8.tflite" in said.err


@pytest.mark.parametrize(
    ("front", "words"),
    [
        (None, "front.json is missing"),
        ("{}", "front.json is damaged"),
        ('{"members": [{"bundle": null}]}', "names no bundle"),
        ('{"members": [{"bundle": "models/0"}]}', "manifest.json is missing"),
    ],
)
def test_a_run_that_cannot_be_deployed_is_one_line_and_exit_2(tmp_path, front, words, capsys):
    if front is not None:
        (tmp_path / "front.json").write_text(front)
    assert main(["deploy", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err


def test_targets_lists_every_tool(capsys):
    assert main(["targets"]) == 0
    text = capsys.readouterr().out
    for words in ("arm: ", "mcu: ", "cpu: ", "gpu: ", "fpga: ", "ethos-u-vela", "qemu-aarch64"):
        assert words in text


def test_experiments_end_with_the_light_targets_whose_tools_are_here():
    here, missing = Tool("numpy", "2", "pip install numpy"), Tool("vela", None, "pip install vela")
    light = own.TABLE._replace(light=True)
    backends = {
        "heavy-one": own.TABLE,
        "light-one": light,
        "lame-one": light._replace(probe=lambda: [here, missing, missing._replace(name="vala")]),
    }
    line = "target lame-one is left out without vela, vala: pip install vela"
    assert at_the_end(["light"], backends) == (["light-one"], [line])
    assert at_the_end(["heavy-one", "light"], backends) == (["heavy-one", "light-one"], [line])
    assert at_the_end(["lame-one"], backends) == (["lame-one"], [])  # it says why it cannot
    assert at_the_end(["none"], backends) == at_the_end([], backends) == ([], [])
    with pytest.raises(InputError, match=r"targets \(=light none\) must be none alone"):
        at_the_end(["light", "none"], backends)
    with pytest.raises(InputError, match=r"must be among heavy-one, light-one, lame-one, light, "):
        at_the_end(["toaster"], backends)


def test_the_page_that_is_there_is_written_again(run, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(report, "write_report", written.append)
    only = functools.partial(deploying.deploy_and_print, backends={"table": own.TABLE})
    monkeypatch.setattr(deploying, "deploy_and_print", only)
    assert main(["deploy", str(run)]) == 0
    assert written == []
    (run / "report.html").touch()
    assert main(["deploy", str(run)]) == 0
    assert written == [run]
    assert "there already" in capsys.readouterr().out
