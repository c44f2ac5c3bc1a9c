"""README's experiment of one's own, run from a folder outside the clone."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(code.splitlines()) < 60
    path = tmp_path_factory.mktemp("elsewhere") / "mine.py"
    path.write_text(code)
    return path


def start(script, *args):
    command = [sys.executable, str(script), *args]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_it_has_help_runs_resumes_and_reports(script):
    code, out, _ = start(script, "--help")
    assert code == 0
    assert "quick (default): A minute on 2 cores." in out
    assert "--search.population" in out

    code, out, said = start(script)
    assert code == 0, said
    run = script.parent / "runs" / "bars-quick-seed0"
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
    assert (run / "report.html").exists()

    ledger = (run / "ledger.jsonl").read_bytes()
    code, again, said = start(script)
    assert code == 0, said
    assert again == out
    assert (run / "ledger.jsonl").read_bytes() == ledger

    code, _, said = start(script, "--seed", "1", "--out", str(run))
    assert code == 2
    assert "seed (was 0, now 1)" in said
