"""README's experiment of one's own, run from a folder outside the clone."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from deepmaker_jax.cli import main

README = pathlib.Path(__file__).parent.parent / "README.md"


def without_targets(out):
    """Returns the lines but those of members' targets, which come as they are made: 1/4 ID ..."""
    return [line for line in out.splitlines() if not re.match(r"\d+/\d+ ", line)]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(code.splitlines()) < 60
    path = tmp_path_factory.mktemp("elsewhere") / "mine.py"
    path.write_text(code)
    return path


def as_users_do():
    """Returns the environment without the tests' own ways of compiling."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def start(script, *args):
    done = subprocess.run(
        [sys.executable, str(script), *args],
        cwd=script.parent, env=as_users_do(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def stop_after_the_first_measurements(script):
    """Starts the script and sends it a Ctrl-C once two candidates are measured."""
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=script.parent, env=as_users_do(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    said = []
    with process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("2/4 "):
                process.send_signal(signal.SIGINT)
    return process.returncode, "".join(said)


def test_it_has_help_stops_resumes_and_reports(script):
    code, out, _ = start(script, "--help")
    assert code == 0
    assert "quick (default): A minute on 2 cores." in out
    assert "--search.population" in out

    run = script.parent / "runs" / "bars-quick-seed0"
    code, said = stop_after_the_first_measurements(script)
    assert code == 130, said
    assert "to go on: " in said.splitlines()[-1]
    paid = (run / "ledger.jsonl").read_text()
    assert 2 <= len(paid.splitlines()) <= 4
    assert not (run / "front.json").exists()

    code, out, said = start(script)
    assert code == 0, said
    assert (run / "ledger.jsonl").read_text().startswith(paid)
    config = json.loads((run / "config.json").read_text())
    assert config["space"]["name"] == "chains"
    assert config["strategy"] == "MutationOnly"
    assert [o["name"] for o in config["objectives"]] == ["error", "energy"]
    front = json.loads((run / "front.json").read_text())
    for member in front["members"]:
        assert member["objectives"]["energy"] == pytest.approx(0.005 * member["macs"])
        assert member["id"] in out
        assert (run / member["bundle"] / "model_int8.tflite").exists()
    lines = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    children = [line for line in lines if line["generation"] > 0]
    assert children
    assert len({(line["id"], str(line["fidelity"])) for line in lines}) == len(lines)

    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == page

    ledger = (run / "ledger.jsonl").read_bytes()
    code, again, said = start(script)
    assert code == 0, said
    assert without_targets(again) == without_targets(out)
    deployed = set(again.splitlines()) - set(without_targets(again))
    assert len(deployed) == len(front["members"])
    assert all("there already" in line for line in deployed)
    assert (run / "ledger.jsonl").read_bytes() == ledger
