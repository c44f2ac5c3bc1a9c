"""The main job from its command line: shown, reported, trained longer, ended by signals."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deepmaker_jax import load, longer
from deepmaker_jax.cli import main
from experiments import digits
from tests.execute.ray_workers import alive, descendants
from tests.tiny import DIGITS

ROOT = pathlib.Path(__file__).parent.parent
# The command line of the same, without the defaults.
ARGS = [
    "demo", "--space.only", "optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0",
    "kernel=3", "--limits.params", "4000", "--search.population", "4", "--search.generations", "3",
    "--search.epochs", "2", "--final.members", "2", "--final.epochs", "4",
    "--final.calibration-images", "64",
]  # fmt: skip
SHORTER = ["--search.generations", "1", "--search.epochs", "1", "--final.epochs", "1"]


def files_below(folder):
    """Every file's bytes by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_command_line_runs_shows_reports_and_trains_longer(tmp_path, capsys):
    out = tmp_path / "run"
    assert digits.main([*ARGS, "--out", str(out), "--executor", "inline"]) == 0
    said = capsys.readouterr()
    front = json.loads((out / "front.json").read_text())
    for member in front["members"]:
        assert f" {member['id']} mcu: ok, 3 of 4 files" in said.out
    assert "generation 2 done: 12 candidates" in said.err
    assert (out / "report.html").stat().st_size > 20_000
    assert (out / "front.png").exists()
    assert main(["show", str(out)]) == 0
    assert front["members"][0]["id"] in capsys.readouterr().out
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    best = front["members"][0]["id"]
    capsys.readouterr()
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    said = capsys.readouterr()
    assert "epoch 1/2: loss " in said.out
    assert " left\n" in said.out
    assert "epoch 2/2: loss " in said.out
    for name in ("weights.safetensors", "model_int8.tflite"):
        (line,) = (line for line in said.out.splitlines() if f"/{name}: " in line)
        manifest = json.loads((out / "models" / best / "manifest.json").read_text())
        assert line.endswith(f", before {manifest['files'][name]['accuracy']:.4f}")
    added = out / "longer" / f"{best}-2"
    network = load(added / "models" / best)
    assert network.logits(DIGITS.test_images).shape == (len(DIGITS.test_labels), 10)
    before = files_below(added)
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    assert "epoch" not in capsys.readouterr().out  # it was there: nothing is paid again
    assert files_below(added) == before
    own = added / "models" / best / "weights.safetensors"
    shutil.copy(out / "models" / best / "weights.safetensors", own)
    assert main(["check", str(out), "--sums-only"]) == 1
    assert f"damaged   {own} is not what its final training" in capsys.readouterr().out
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    assert "epoch 2/2: loss " in capsys.readouterr().out
    assert files_below(added) == before
    assert main(["train", str(out), best, "--epochs", "3", "--out", str(added)]) == 2
    assert "holds another training" in capsys.readouterr().err
    assert main(["train", str(out), "0" * 12]) == 2
    assert "must be one of" in capsys.readouterr().err
    assert main(["deploy", str(added), "--targets", "mcu"]) == 0
    assert f"1/1 {best} mcu: ok" in capsys.readouterr().out
    assert main(["show", str(out)]) == 0
    assert f" longer/{best}-2\n" in capsys.readouterr().out
    assert main(["check", str(out), "--sums-only"]) == 0


def test_a_longer_training_goes_on_where_its_run_was_moved(tmp_path, capsys, monkeypatch):
    out, moved = tmp_path / "run", tmp_path / "moved"
    rest = ["--targets", "none", "--quiet", "--executor", "inline"]
    assert digits.main([*ARGS, *SHORTER, *rest, "--out", str(out)]) == 0
    best = json.loads((out / "front.json").read_text())["members"][0]["id"]
    words = [best, "--epochs", "2"]
    assert main(["train", str(out), *words, "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    capsys.readouterr()

    def stop(words):
        if words.startswith("epoch 1/2"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(longer, "say", stop)
        assert main(["train", str(out), *words]) == 130
    out.rename(moved)
    assert main(["show", str(moved)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "not ended" in line)
    assert line.endswith(f"it goes on with deepmaker train {moved} {best} --epochs 2")
    monkeypatch.chdir(moved)
    assert main(["train", ".", *words]) == 0
    said = capsys.readouterr().out
    assert ("epoch 1/2" in said, "epoch 2/2" in said) == (False, True)
    whole = tmp_path / "whole" / "models"
    assert files_below(moved / "longer" / f"{best}-2" / "models") == files_below(whole)


# The command with a compile that does not end.
COMPILING = """
import sys, time
from deepmaker_jax.execute import runtime
runtime.one_thread()
import jax
def compile(*_, **__):
    print("compiling", file=sys.stderr, flush=True)
    time.sleep(3600)
jax.stages.Lowered.compile = compile
from experiments import digits
raise SystemExit(digits.main(sys.argv[1:]))
"""


def stop(out, moment, executor, send, program=("-m", "experiments.digits")):
    """Runs the command until it says `moment`; returns (exit code, what it said).

    Args:
      out: run folder.
      moment: words of the line at which `send(pid)` is called.
      executor: of the run.
      send: ends the process with this number.
      program: what Python is given before the arguments.
    """
    process = subprocess.Popen(
        [sys.executable, *program, *ARGS, *SHORTER, "--out", str(out), "--executor", executor],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    said, begun, is_sent = [], [], False
    for line in process.stderr:
        said.append(line)
        if moment in line and not is_sent:
            begun, is_sent = descendants(process.pid), True
            send(process.pid)
    code = process.wait()
    process.stderr.close()
    assert begun or executor != "ray"  # its processes have sessions of their own
    deadline = time.monotonic() + 60  # what a killed process has begun takes a moment
    while (left := alive(begun) + of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    return code, said


def of_session(pid):
    """Returns the processes of the session that `pid` began."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    ("number", "code", "moment", "executor"),
    [
        (signal.SIGINT, 130, "generation 0: ", "processes"),  # workers are still importing
        (signal.SIGINT, 130, "compiling", "inline"),
        (signal.SIGTERM, 143, "exported and checked (1/", "inline"),
        (signal.SIGINT, 130, "final training: ", "processes"),
        (signal.SIGINT, 130, "1/4 ", "ray"),
        (signal.SIGTERM, 143, "1/4 ", "ray"),
    ],
)
def test_a_signal_to_the_whole_group_ends_it_cleanly_with_the_command_that_resumes(
    tmp_path, number, code, moment, executor
):
    out = tmp_path / "run"
    program = ("-c", COMPILING) if moment == "compiling" else ("-m", "experiments.digits")
    # As a terminal does.
    ended, said = stop(out, moment, executor, lambda pid: os.killpg(pid, number), program)
    assert ended == code, said
    assert "python -m experiments.digits demo" in said[-1]
    assert str(out) in said[-1]
    assert "Traceback" not in "".join(said)
    assert len(said) == len(set(said))
    assert not (out / "checkpoints" / "shared").exists()


def test_a_killed_run_leaves_nothing_of_the_cluster_that_it_began(tmp_path):
    """Its signal is its own: nobody tells Ray's processes."""
    code, said = stop(tmp_path / "run", "1/4 ", "ray", lambda pid: os.kill(pid, signal.SIGKILL))
    assert code == -signal.SIGKILL, said
