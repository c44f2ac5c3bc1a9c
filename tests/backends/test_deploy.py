"""Deployment: what is missing or stale, in parallel, nothing lost, bad input refused."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deepmaker_jax import deploy as deploying
from deepmaker_jax import machine, report
from deepmaker_jax.backends import BACKENDS, Tool, tool
from deepmaker_jax.backends.worker import made_from, run_backend
from deepmaker_jax.cli import main
from deepmaker_jax.deploy import Deployed, at_the_end, deploy, not_ready
from deepmaker_jax.errors import InputError
from deepmaker_jax.export import read_bundle
from deepmaker_jax.export.manifest import ENTRY_KEYS, made_entry, write_manifest
from deepmaker_jax.files import lock, write_document
from tests.backends import own
from tests.backends.conftest import ID, write_run

OWN = {"table": own.TABLE, "broken": own.BROKEN, "dying": own.DYING}
STOPPED = """
import pathlib, sys
from deepmaker_jax.cli import guarded
from deepmaker_jax.deploy import deploy_and_print
from tests.backends import own
late = own.TABLE._replace(name="late", timed=True)
backends = {"table": own.TABLE, "hanging": own.HANGING, "late": late}
work = lambda: deploy_and_print(pathlib.Path(sys.argv[1]), backends=backends)
if __name__ == "__main__":
    sys.exit(guarded(work, resume=lambda: "the same again"))
"""


def runs(pid):
    """Whether a process is there and not just a name that nobody has asked for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid):
    """Whether a process that was killed is gone before long."""
    deadline = time.monotonic() + 60
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not runs(pid)


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
    assert files["broken"]["reason"] == "RuntimeError: no memory left at PATH"
    assert files["dying"]["reason"] == "its process ended with 3"
    assert not any((run / "models" / ID / name).exists() for name in ("broken", "dying"))
    assert ends(int((run / "models" / "pid").read_text()))
    assert {event.num_done for event in events.values()} == {1, 2, 3}


def test_what_a_backend_cannot_do_is_unsupported_with_every_reason_and_not_built(run):
    (event,) = deploy(run, backends={"picky": own.PICKY})
    assert (event.status, event.reason) == ("unsupported", "picky: too new; too old")
    entry = manifest_of(run)["files"]["picky"]
    assert set(ENTRY_KEYS) <= set(entry)
    assert not (run / "models" / ID / "picky").exists()
    assert not (run / "models" / ID / own.PATH).exists()


def test_what_an_agreeing_target_leaves_out_is_told_once_and_not_under_quiet(monkeypatch, capsys):
    left = "table/circuit: built; running it needs a kiln"
    ends = [("ok", left), ("unsupported", "table: too new"), ("ok", left)]
    events = [Deployed("a", "table", *end, 1, 2, 3.0, i, 3) for i, end in enumerate(ends, 1)]
    monkeypatch.setattr(deploying, "deploy", lambda run, **_: (event for event in events))
    deploying.deploy_and_print(pathlib.Path("run"))
    assert capsys.readouterr().out.splitlines() == [
        "1/3 a table: ok, 1 of 2 files, 3 s",
        "2/3 a table: unsupported, 1 of 2 files, 3 s; table: too new",
        "3/3 a table: ok, 1 of 2 files, 3 s",
        f"{left} (2 networks)",
    ]
    deploying.deploy_and_print(pathlib.Path("run"), quiet=True)
    assert capsys.readouterr().out == ""


def test_a_backend_that_takes_too_long_is_ended(run):
    (event,) = deploy(run, backends={"hanging": own.HANGING}, limit_seconds=8)
    assert (event.status, event.reason) == ("failed", "hanging: took longer than 8 s")
    assert not (run / "models" / ID / "hanging").exists()


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
    write_manifest(run / "models" / ID, manifest)
    (event,) = deploy(run, backends={"table": own.TABLE})
    assert event.seconds > 0


def numpy_of(version):
    (found,) = own.probe()
    return [found._replace(version=version)]


def test_a_tool_that_is_gone_spoils_nothing_that_it_made(run):
    list(deploy(run, backends={"table": own.TABLE}))
    gone, newer = (
        own.TABLE._replace(probe=functools.partial(numpy_of, version)) for version in (None, "99")
    )
    (event,) = deploy(run, backends={"table": gone})
    assert (event.status, event.seconds) == ("ok", 0.0)
    (event,) = deploy(run, backends={"table": newer})
    assert event.seconds > 0


def test_what_cannot_be_started_is_a_failure_of_its_own(run, monkeypatch):
    def refuse(backend, bundle, **settings):
        if backend.name == "dying":
            raise OSError(24, "Too many open files")
        return run_backend(backend, bundle, **settings)

    monkeypatch.setattr(deploying, "run_backend", refuse)
    backends = {name: OWN[name] for name in ("table", "dying")}
    events = {event.target: event for event in deploy(run, backends=backends)}
    assert {name: event.status for name, event in events.items()} == {
        "table": "ok", "dying": "failed",
    }  # fmt: skip
    assert "Too many open files" in events["dying"].reason


@pytest.mark.parametrize("held", ["front.json", "ledger.jsonl"])
def test_a_run_that_another_process_works_in_is_left_alone(run, held, capsys):
    before = manifest_of(run)
    with open(run / held, "ab") as file:
        lock(file, run)
        assert main(["deploy", str(run), "--targets", "mcu"]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: {run} is in use by another process: wait for it\n"
    assert manifest_of(run) == before


def test_a_run_that_still_goes_on_is_not_deployed(run, capsys):
    (run / "front.json").unlink()
    for held, words in ((True, "it has not ended, another process works in it"),
                        (False, "the run has not ended, or lost it")):  # fmt: skip
        with open(run / "ledger.jsonl", "ab") as file:
            assert not held or lock(file, run)
            assert main(["deploy", str(run), "--targets", "mcu"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {run / 'front.json'} is missing: {words}")
        assert said.count("\n") == 1


@pytest.fixture
def longer(run):
    """Returns a longer training of the run's member, in the run folder."""
    folder = run / "longer" / f"{ID}-9"
    shutil.copytree(run / "models", folder / "models")
    write_document(folder / "config.json", {"config": {"member": ID, "epochs": 9}})
    (folder / "ledger.jsonl").touch()
    return folder


@pytest.mark.parametrize("part", ["longer", "bundle", "bundle of the run", "bundle alone", "here"])
def test_longer_trainings_and_bundles_are_deployed_and_held(run, longer, part, monkeypatch):
    place, held = {
        "longer": (longer, longer / "ledger.jsonl"),
        "bundle": (longer / "models" / ID, longer / "ledger.jsonl"),
        "bundle of the run": (run / "models" / ID, run / "front.json"),
        "bundle alone": (run.parent / ID, run.parent / ID / "weights.safetensors"),
        "here": (pathlib.Path(), longer / "ledger.jsonl"),
    }[part]
    if part == "bundle alone":
        shutil.copytree(run / "models" / ID, place)
    monkeypatch.chdir(longer / "models" / ID)
    before = manifest_of(run)
    with open(held, "ab") as file:
        lock(file, run)
        with pytest.raises(InputError, match="in use by another process"):
            next(deploy(place, backends={"table": own.TABLE}))
    (event,) = deploy(place, backends={"table": own.TABLE})
    assert (event.id, event.status) == (ID, "ok")
    bundle = place / "models" / ID if part == "longer" else place
    assert own.PATH in read_bundle(bundle)["files"]
    assert (manifest_of(run) == before) == (part != "bundle of the run")
    with pytest.raises(InputError, match=r"members \(=1\) is for a run's front"):
        deploy(place, members=1, backends={"table": own.TABLE})
    (bundle / "model_int8.tflite").write_bytes(b"TFL3")
    with pytest.raises(InputError, match="does not match its sum"):
        deploy(place, backends={"table": own.TABLE})


def test_a_bundle_is_that_of_its_folder(run):
    moved = shutil.copytree(run / "models" / ID, run.parent / "another")
    with pytest.raises(InputError, match=f"is that of '{ID}'"):
        deploy(moved, backends={"table": own.TABLE})


def test_a_longer_training_without_a_bundle_says_why(run, longer):
    weights = longer / "models" / ID / "weights.safetensors"
    for path in weights.parent.iterdir():
        path.unlink() if path != weights else None
    with pytest.raises(InputError, match="its run was begun with --final"):
        deploy(longer)
    (longer / "checkpoints").mkdir()
    with pytest.raises(InputError, match=f"has not ended: go on with deepmaker train {run} {ID}"):
        deploy(longer)
    with open(longer / "ledger.jsonl", "ab") as file:
        lock(file, longer)
        with pytest.raises(InputError, match="it has not ended, another process works in it"):
            deploy(longer)


def start_deployment(run):
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(run)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_a_deployment_that_is_killed_leaves_nothing_that_works_on(run):
    child = start_deployment(run)
    written = run / "models" / "pid"
    deadline = time.monotonic() + 120
    while not (written.exists() and written.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.kill()
    child.communicate(timeout=120)
    assert ends(int(written.read_text()))


def test_a_deployment_that_is_stopped_says_one_line_and_goes_on(run):
    before = manifest_of(run)
    (run / "models" / ID / "late").mkdir()
    made = run / "models" / ID / "late" / "older"
    made.write_bytes(b"of an earlier version")
    before["files"]["late/older"] = made_entry(made, tool="table 0")
    before["targets"] = {
        name: {"made_from": "another version", "tools": {}} for name in ("hanging", "late")
    }
    write_manifest(run / "models" / ID, before)
    child = start_deployment(run)
    assert child.stdout.readline().startswith(f"1/3 {ID} table: ok")
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    _, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (130, "stopped; to go on: the same again\n")
    assert set(manifest_of(run)["targets"]) == {"table", "late"}
    assert manifest_of(run)["files"]["late/older"] == before["files"]["late/older"]
    assert not (run / "models" / ID / "hanging").exists()
    read_bundle(run / "models" / ID)
    (again,) = deploy(run, backends={"table": own.TABLE})
    assert (again.status, again.seconds) == ("ok", 0.0)


@pytest.mark.parametrize(
    ("name", "files", "status"),
    [
        ("arm", {"model_aarch64.vmfb": "unsupported", "raspberry_pi.py": "ok"}, "unsupported"),
        ("fpga", {"network.cpp": "unsupported", "build_lib.sh": "ok"}, "unsupported"),
        ("fpga", {"network.cpp": "failed", "build_lib.sh": "ok"}, "failed"),
        ("mcu", {"model.h": "ok"}, "unsupported"),
        ("arm", {"model_aarch64.vmfb": "ran", "model_armv7a.vmfb": "unsupported"}, "ok"),
    ],
)
def test_a_target_is_ok_only_if_a_network_ran(name, files, status):
    entries = {
        f"{name}/{file}": {
            "status": "ok" if state == "ran" else state,
            "reason": None if state in ("ok", "ran") else "no qemu, no g++",
            "parity": {"images": 20} if state == "ran" else None,
        }
        for file, state in files.items()
    }
    event = deploying._event({"id": ID, "files": entries}, BACKENDS[name], 1.0, 1, 1)
    assert event.status == status
    assert event.num_ok == sum(entry["status"] == "ok" for entry in entries.values())


def test_what_files_are_made_from_names_versions_and_for_clocks_the_machine(run, monkeypatch):
    manifest, timed = manifest_of(run), own.TABLE._replace(timed=True)
    kinds = (own.TABLE, timed)
    before = [made_from(manifest, kind, own.probe()) for kind in kinds]
    assert before == [made_from(manifest, kind, own.probe()) for kind in kinds]
    monkeypatch.setattr(machine, "processor", lambda: "another one")
    moved = [made_from(manifest, kind, own.probe()) for kind in kinds]
    assert (moved[0], moved[1] != before[1]) == (before[0], True)
    monkeypatch.setattr(tool, "package", lambda name: Tool(name, "99", ""))
    assert made_from(manifest, own.TABLE, own.probe()) != before[0]


def test_programs_have_a_version_not_a_place():
    found = tool.program("bash", install="")
    assert re.match(r"\d+\.\d+", found.version)
    assert tool.program("no-such-program", install="").version is None


def test_members_are_the_first_of_the_front(run):
    ids = (ID, "ba9876543210")
    shutil.copytree(run / "models" / ID, run / "models" / ids[1])
    write_run(run, ids=ids)
    events = list(deploy(run, members=1, backends={"table": own.TABLE}))
    assert [event.num_jobs for event in events] == [1]
    assert (run / "models" / ids[0] / own.PATH).exists()
    assert not (run / "models" / ids[1] / own.PATH).exists()
    (run / "models" / ids[1] / "model_int8.tflite").unlink()  # of a member that nobody asks for
    (again,) = deploy(run, members=1, backends={"table": own.TABLE})
    assert again.seconds == 0.0
    with pytest.raises(InputError, match=r"members \(=3\) must be 1..2"):
        next(deploy(run, members=3, backends={"table": own.TABLE}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--targets", "arm", "toaster"], "targets (=toaster) must be among arm, mcu, cpu"),
        (["--targets", "none"], "targets (=none) must be among arm, mcu, cpu, gpu, fpga, light: "),
        (["--members", "0"], "members (=0) must be 1..1"),
        (["--members", "2"], "members (=2) must be 1..1"),
        (["--members", "two"], "members (=two) must be a whole number or None"),
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
        ("{}", "front.json has no list of members"),
        ('{"members": [{"id": "0", "bundle": null}]}', "names no bundle"),
        ('{"members": [{"id": "0", "bundle": "models/0"}]}', "manifest.json is missing"),
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
    (line,) = not_ready(["lame-one", "light-one", "light"], backends)
    assert line.startswith("target lame-one lacks vela, vala: pip install vela; ")
    with pytest.raises(
        InputError, match=r"targets \(=light none\) must be none alone, .* leave none out"
    ):
        at_the_end(["light", "none"], backends)
    with pytest.raises(InputError, match=r"must be among heavy-one, light-one, lame-one, light, "):
        at_the_end(["toaster"], backends)


def test_light_targets_are_those_of_an_experiment(run, monkeypatch, capsys):
    settings = []
    monkeypatch.setattr(deploying, "deploy_and_print", lambda path, **rest: settings.append(rest))
    monkeypatch.setattr(deploying, "at_the_end", lambda targets: (["mcu"], ["arm is left out"]))
    assert main(["deploy", str(run), "--targets", "light"]) == 0
    assert [rest["targets"] for rest in settings] == [["mcu"]]
    assert capsys.readouterr().out == "arm is left out\n"
    monkeypatch.setattr(deploying, "at_the_end", lambda targets: ([], ["mcu is left out"]))
    assert main(["deploy", str(run), "--targets", "light"]) == 0
    assert main(["deploy", str(run / "no such"), "--targets", "light"]) == 2
    assert len(settings) == 1  # nothing left is not all


def test_the_page_that_is_there_is_written_again(run, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(report, "write_report", written.append)
    only = functools.partial(deploying.deploy_and_print, backends={"table": own.TABLE})
    monkeypatch.setattr(deploying, "deploy_and_print", only)
    assert main(["deploy", str(run)]) == 0
    assert written == []
    (run / "report.html").touch()
    capsys.readouterr()
    assert main(["deploy", str(run)]) == 2  # this run has no config.json to draw it from
    said = capsys.readouterr()
    assert (said.out, "config.json is missing" in said.err) == ("", True)
    monkeypatch.setattr(report, "check_page", lambda run: None)
    assert main(["deploy", str(run)]) == 0
    assert written == [run]
    assert "there already" in capsys.readouterr().out
