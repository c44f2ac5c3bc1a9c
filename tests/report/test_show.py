"""The front in the terminal."""

import html
import io
import shutil

import pytest
from rich.console import Console

from deepmaker_jax.backends.boards import BOARDS, excess
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import write_document
from deepmaker_jax.report import print_finished, read_run, show, tables, write_report
from deepmaker_jax.report.robustness import ranked
from tests.report.conftest import ERROR, HOSTILE, LATENCY, MARKUP, write_longer


def printed(function, *args, width=80, terminal=False, **rest):
    """Returns what `function` prints on a console of `width`."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal)
    function(*args, console, **rest)
    return stream.getvalue()


def test_the_table_has_every_member_in_order_within_80_columns(make_run):
    run = make_run(60)
    view = read_run(run)
    rows = tables.rows(view)
    lines = printed(show, run).splitlines()
    assert lines[0].startswith("cifar10 small: finished, 60 measurements (3 diverged, 2 failed, 2 ")
    assert [line.split()[0] for line in lines[2 : 2 + len(rows)]] == [row.id for row in rows]
    columns = tables.columns(view, rows)
    for line, row in zip(lines[2:], rows, strict=False):
        assert line.split() == " ".join(column.cell(row) for column in columns).split()
        assert len(line) <= 80
    assert lines[2 + len(rows)].startswith("smaller, lost: ")
    assert rows[0].id in lines[2 + len(rows)]
    assert lines[3 + len(rows)] == (
        "val. %: after the search's training; test %: after the final one"
    )


def test_the_ranking_by_robustness_follows_within_80_columns(make_run):
    run = make_run(60, num_seeds=3)
    found = ranked(read_run(run))
    lines = printed(show, run).splitlines()[5 + len(found) :]
    assert lines[0].split()[:4] == ["network", "test", "%", "corrupt"]
    assert lines[0].endswith("over seeds")
    for line, figures in zip(lines[1:], found, strict=False):
        accuracy, corrupted = (f"{100 * x:.2f}" for x in (figures.accuracy, figures.corrupted))
        assert line.split()[:3] == [figures.id, accuracy, corrupted]
        assert line.endswith(f"{accuracy} ± 1.23")
    assert all(len(line) <= 80 for line in lines[: 1 + len(found)])


def test_the_targets_follow_with_what_they_say(make_run):
    run = make_run(60)
    rows = tables.rows(read_run(run))
    lines = printed(show, run).splitlines()[8 + 2 * len(rows) :]
    heading = ["network", "arm", "cpu", "fpga", "mcu", "arena", "boards", "fastest"]
    assert lines[0].split() == heading
    flash = int(rows[0].int8_bytes)
    num_fit = sum(not excess(name, flash_bytes=flash, arena_bytes=104_432) for name in BOARDS)
    fit = f"{num_fit} of {len(BOARDS)}"
    said = f"{rows[0].id} ok ok no failed 102.0 KB {fit} tflite_int8 0.2 ms"
    assert lines[1].split() == said.split()
    other = lines[2].split()
    assert other[:6] == [rows[1].id, "-", "-", "-", "-", "-"]
    assert other[-1] == "-"
    number = len(rows)
    assert lines[1 + number].startswith(f"mcu: failed for 1 of {number}: mcu/<script>")
    assert lines[2 + number] == f"fpga: unsupported for 1 of {number}: fpga: pip install hls4ml"
    assert all(len(line) <= 80 for line in lines[: 1 + number])
    assert "arena" not in printed(show, make_run(20, finished=False, name="running"))


def test_a_reference_that_names_nothing_is_said_wherever_it_would_count(make_run):
    unknown = "reference 000000000000 is neither a member nor a published network"
    run = make_run(60, reference="0" * 12)
    page = write_report(run)
    said = printed(print_finished, run, page=page, following="")
    for text in (printed(show, run), said, page.read_text()):
        assert unknown in text
    assert "neither" not in printed(show, make_run(60, name="other"))


def test_an_objective_of_ones_own_is_shown_with_its_unit_and_how(make_run):
    run = make_run(20, objectives=[ERROR, LATENCY])
    lines = printed(show, run).splitlines()
    assert LATENCY["name"] in lines[1]
    assert all(" ms " in line for line in lines[2 : 2 + len(tables.rows(read_run(run)))])
    assert f"{LATENCY['name']}: {LATENCY['how']}" in lines


def test_a_running_search_is_shown_from_its_ledger(make_run):
    run = make_run(20, finished=False)
    said = printed(show, run)
    assert "front so far, 20 measurements (1 diverged, 1 failed), generation 1, hypervol" in said
    assert [row.id in said for row in tables.rows(read_run(run))].count(False) == 0
    assert "test %" not in said


@pytest.mark.parametrize("finished", [True, False])
def test_nothing_measured_yet_is_said(make_run, finished):
    said = printed(show, make_run(0, finished=finished))
    assert "0 measurements" in said
    assert said.endswith("No candidate has been measured yet.\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_harmless(make_run, terminal):
    run = make_run(9, hostile=True)
    front = {"objectives": [], "members": [{"id": HOSTILE, "arch": {}, "params": 5}]}
    write_document(run / "front.json", front)
    said = printed(show, run, terminal=terminal)
    assert "\x1b]0" not in said
    assert "\x1b[31m" not in said
    assert "\x07" not in said
    assert "\u202e" not in said
    assert MARKUP in said
    assert "\\x1b]0;pwned\\x07" in said


def test_a_narrow_terminal_cuts_nothing(make_run):
    run = make_run(30)
    assert printed(show, run, width=20) == printed(show, run, width=200)


def test_the_end_says_where_files_are_and_what_to_try(make_run):
    run = make_run(30)
    page = run / "report.html"
    said = printed(print_finished, run, page=page, following="deepmaker train [red]x")
    assert said.splitlines()[-4:] == [
        f"report  {page}",
        f"front   {run / 'front.json'}",
        f"models  {run / 'models'} (1 bundle)",
        "next    deepmaker train [red]x",
    ]
    assert said.startswith("network ")


def test_no_run_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        show(tmp_path, Console(file=io.StringIO()))


def test_stdout_is_the_default(make_run, capsys):
    show(make_run(9))
    assert capsys.readouterr().out.startswith("cifar10 small: finished")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("front.json", "front.json is missing: the run has not ended, or lost it"),
        ("ledger.jsonl", "ledger.jsonl is missing, and with it measurements of"),
        ("robustness", ".json is missing: run its experiment again"),
        ("models", "manifest.json is missing: run its experiment again"),
        ("models/ID/model_int8.tflite", "model_int8.tflite is missing: run its experiment again"),
        ("models/ID/mcu/main.cc", "mcu/main.cc is missing: deploy it again"),
        ("models/ID/mcu", "mcu/main.cc is missing, and 2 more of its bundle's files are not whole"),
    ],
)
def test_what_a_finished_run_has_lost_is_said(make_run, name, said):
    run = make_run(30)
    assert read_run(run).gaps == []
    (id,) = (bundle.name for bundle in (run / "models").iterdir())
    lost = run / name.replace("ID", id)
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert said in (shown := printed(show, run))
    command = "python -m experiments.cifar10 small --seed 0"
    assert f"its experiment, to be given --out {run}: {command}" in shown
    assert html.escape(said) in write_report(run).read_text()


def test_a_file_that_was_cut_is_said(make_run):
    run = make_run(30)
    (path,) = run.glob("models/*/model_int8.tflite")
    path.write_bytes(b"TFL3")
    said = f"{path.relative_to(run)} is not as long as manifest.json says: run its experiment again"
    assert said in printed(show, run)


def test_longer_trainings_follow_with_where_they_lie_and_how_they_go_on(make_run):
    run = make_run(60)
    before = printed(show, run)
    member, other = read_run(run).front["members"][:2]
    done = write_longer(run, member, epochs=100)
    going = write_longer(run, other, epochs=7, ended=False)
    damaged = write_longer(run, other, epochs=9)
    (damaged / "config.json").write_text("{")
    table = printed(show, run).removeprefix(before).splitlines()
    assert " ".join(table[1].split()) == "trained longer epochs test % int8 int8 % in"
    figures = ["+100", "87.65", "52.0", "KB", "85.12", f"longer/{done.name}"]
    assert table[2].split() == [member["id"], *figures]
    assert all(len(line) <= 80 for line in table[:3])
    command = f"deepmaker train {run} {other['id']} --epochs 7"
    problems = {
        f"{going} has not ended: it goes on with {command}",
        f"{damaged}/config.json cannot be read as JSON",
    }
    assert {line.partition(" (")[0] for line in table[3:]} == problems
