"""The main job from its command line: shown, reported, trained longer, ended by signals."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from deepmaker_jax import (
    load,
)
from deepmaker_jax.cli import main
from experiments import digits
from tests.tiny import DIGITS

ROOT = pathlib.Path(__file__).parent.parent
# The command line of the same, without the defaults.
ARGS = [
    "demo", "--space.only", "optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0",
    "--limits.params", "4000", "--search.population", "4", "--search.generations", "3",
    "--search.epochs", "2", "--final.members", "2", "--final.epochs", "4",
    "--final.calibration-images", "64",
]  # fmt: skip


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
    assert "epoch 2/2: loss " in said.out
    assert "model_int8.tflite" in said.out
    added = out / "longer" / f"{best}-2"
    longer = load(added / "models" / best)
    assert longer.logits(DIGITS.test_images).shape == (len(DIGITS.test_labels), 10)
    before = files_below(added)
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    assert "epoch" not in capsys.readouterr().out  # it was there: nothing is paid again
    assert files_below(added) == before
    assert main(["train", str(out), best, "--epochs", "3", "--out", str(added)]) == 2
    assert "holds another training" in capsys.readouterr().err
    assert main(["train", str(out), "0" * 12]) == 2
    assert "must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "moment", "executor"),
    [
        (signal.SIGINT, 130, "generation 0: ", "processes"),  # workers are still importing
        (signal.SIGTERM, 143, "1/4 ", "inline"),
        (signal.SIGINT, 130, "final training: ", "processes"),
        (signal.SIGINT, 130, "1/4 ", "ray"),
    ],
)
def test_a_signal_to_the_whole_group_ends_it_cleanly_with_the_command_that_resumes(
    tmp_path, number, code, moment, executor
):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.digits", *ARGS, "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--executor", executor],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, sent = [], False
    for line in process.stderr:
        said.append(line)
        if line.startswith(moment) and not sent:
            os.killpg(process.pid, number)  # as a terminal does
            sent = True
    assert process.wait() == code
    process.stdout.close()
    process.stderr.close()
    assert "python -m experiments.digits demo" in said[-1]
    assert str(out) in said[-1]
    assert "Traceback" not in "".join(said)
    assert len(said) == len(set(said))
    assert not (out / "checkpoints" / "shared").exists()
    deadline = time.monotonic() + 20  # Python's own resource tracker takes a moment
    while _of_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _of_session(process.pid) == []


def _of_session(pid):
    """Processes of the session that `pid` began: none may be left."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            found.append(entry.parent.name)
    return found
