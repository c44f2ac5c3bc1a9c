"""Progress over a scripted sequence of events."""

import io

import pytest
from rich.console import Console

from deepmaker_jax import events
from deepmaker_jax.report import Progress
from tests.report.conftest import ESCAPE, MARKUP


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def record(
    id, *, accuracy=0.6, num_bytes=20_000, status="ok", reason=None, seconds=100.0, **fidelity
):
    """Returns what a ledger line holds that progress looks at."""
    return {
        "id": id, "status": status, "reason": reason, "fidelity": fidelity,
        "costs": {"params": 8000, "flash_bytes": num_bytes},
        "measured": {"val_accuracy": accuracy},
        "seconds": {"compile": 0.0, "train": seconds, "eval": 0.0},
    }  # fmt: skip


# (seconds on the clock, event, the plain line or None)
SCRIPT = [
    (0, events.Started("runs/x", 2, 2, 0, 1), "run runs/x: 2 generations of 2, 1 at once"),
    (0, events.GenerationStarted(0, 2, 2), "generation 0: 2 candidates, 2 to train"),
    (30, events.Epoch("aa", "search", 1, 4, 2.3), None),
    (
        75,
        events.Epoch("aa", "search", 3, 4, 2.0),
        # 0.75 of 4 candidates took 75 s, so the other 3.25 take 325 s.
        "aa: epoch 3/4, loss 2; 1 in training; search: about 5 min left",
    ),
    (80, events.Epoch("aa", "search", 4, 4, 1.9), None),
    (
        100,
        events.Measured("search", record("aa"), 1, 2),
        "1/2 aa: error 40.00 %, 8,000 parameters, 2 min; search: about 5 min left",
    ),
    (
        200,
        events.Measured(
            "search", record("bb", accuracy=None, status="diverged", reason="loss is NaN"), 2, 2
        ),
        "2/2 bb: diverged, loss is NaN; search: about 3 min left",
    ),
    (
        200,
        events.GenerationDone(0, 2, 0.25, [record("aa")]),
        "generation 0 done: 2 candidates, front of 1, hypervolume 0.2500, "
        "best error 40.00 % in 32 KB of flash",
    ),
    (200, events.Note("a note"), "a note"),
    (200, events.GenerationStarted(1, 2, 1), "generation 1: 2 candidates, 1 to train"),
    (
        300,
        events.Measured("search", record("cc", accuracy=0.7, num_bytes=60_000), 2, 2),
        "2/2 cc: error 30.00 %, 8,000 parameters, 2 min",
    ),
    (
        300,
        events.GenerationDone(1, 4, 0.5, [record("cc", accuracy=0.7, num_bytes=60_000)]),
        "generation 1 done: 4 candidates, front of 1, hypervolume 0.5000, "
        "best error 40.00 % in 32 KB, 30.00 % in 64 KB of flash",
    ),
    (
        300,
        events.FinalStarted(["cc"], 10, 2),
        "final training: 1 network, 10 epochs each, 2 seeds",
    ),
    (
        500,
        events.Measured("final", record("cc", seconds=200, seed=4), 1, 2),
        "1/2 cc-seed4: 8,000 parameters, 3 min; final training: about 3 min left",
    ),
    (500, events.FinalStarted(["aa", "cc"], 10), "final training: 2 networks, 10 epochs each"),
    (500, events.FinalStarted(["aa", "cc"], 10, 1, 2),
     "final training: 2 networks, 10 epochs each; 2 known"),
    (500, events.FinalStarted(["aa", "cc"], 10), "final training: 2 networks, 10 epochs each"),
    (
        900,
        events.Measured("final", record("aa", seconds=400), 1, 2),
        "1/2 aa: 8,000 parameters, 7 min; final training: about 7 min left",
    ),
    (1300, events.Measured("final", record("cc", seconds=400), 2, 2),
     "2/2 cc: 8,000 parameters, 7 min"),
    (1400, events.Exported("aa", 1, 2, 90.0), "aa: exported and checked (1/2) after 2 min"),
    (1400, events.Finished("runs/x", {"members": [{}, {}]}), "finished: 2 networks in runs/x"),
]  # fmt: skip


def play(progress, clock):
    with progress:
        for now, event, _ in SCRIPT:
            clock.now = now
            progress.update(event)


def test_one_plain_line_an_event_and_few_for_epochs():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock=clock)
    play(progress, clock)
    assert stream.getvalue().splitlines() == [line for _, _, line in SCRIPT if line is not None]
    assert progress.out == "runs/x"


def test_with_rungs_the_time_left_is_told_by_generations():
    """A generation of two rungs took 200 s, so the other three take 600 s."""
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock=clock)
    script = [
        (0, events.Started("runs/x", 4, 2, 0, 1)),
        (0, events.GenerationStarted(0, 2, 2, 0, 2)),
        (60, events.Measured("search", record("aa"), 1, 2)),
        (100, events.Measured("search", record("bb"), 2, 2)),
        (100, events.GenerationStarted(0, 1, 1, 1, 2)),
        (200, events.Measured("search", record("aa"), 1, 1)),
    ]
    with progress:
        for clock.now, event in script:
            progress.update(event)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "generation 0, rung 1 of 2: 2 candidates, 2 to train"
    assert "left" not in lines[2]
    assert lines[3].endswith("search: about 12 min left")
    assert lines[5].endswith("search: about 10 min left")


@pytest.mark.parametrize(
    ("num_rungs", "left"),
    [
        # 40 s a candidate, of which 7 and then 6 are left.
        (1, ["", "; search: about 5 min left", "; search: about 4 min left"]),
        # 60 s a rung of a generation, of which 7 are left.
        (2, ["", "", "; search: about 7 min left"]),
    ],
)
def test_what_is_compiled_before_the_first_epoch_is_not_expected_again(num_rungs, left):
    stream, clock = io.StringIO(), Clock()
    script = [
        (0, events.Started("runs/x", 4, 2, 0, 1)),
        (0, events.GenerationStarted(0, 2, 2, 0, num_rungs)),
        (600, events.Epoch("aa", "search", 1, 2, 2.3)),
        (620, events.Measured("search", record("aa"), 1, 2)),
        (660, events.Measured("search", record("bb"), 2, 2)),
    ]
    with Progress(stream, clock=clock) as progress:
        for clock.now, event in script:
            progress.update(event)
    lines = stream.getvalue().splitlines()[2:]
    said = [line.removeprefix("aa: epoch 1/2, loss 2.3; 1 in training") for line in lines]
    assert ["".join(line.partition("; search")[1:]) for line in said] == left


def test_quiet_says_notes_only():
    stream, clock = io.StringIO(), Clock()
    play(Progress(stream, quiet=True, clock=clock), clock)
    assert stream.getvalue() == "a note\n"


def test_a_terminal_gets_a_panel_and_lasting_lines():
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    play(Progress(console, clock=clock), clock)
    said = stream.getvalue()
    assert "generation 0 of 0..1" in said
    assert "epoch 3/4" in said
    assert "search: about 5 min left" in said
    assert "1/2" in said
    assert "2/2 (1 diverged so far)" in said
    assert "hypervolume 0.5000, best error 40.00 % in 32 KB, 30.00 % in 64 KB of flash" in said
    assert "generation 1 done: 4 candidates" in said
    # Single measurements pass by in the panel.
    assert "8,000 parameters" not in said
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1


def test_the_panel_lists_a_bounded_number_of_candidates():
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with Progress(console, clock=clock) as progress:
        progress.update(events.Started("r", 1, 20, 0, 20))
        progress.update(events.GenerationStarted(0, 20, 20))
        for i in range(20):
            clock.now += 1
            progress.update(events.Epoch(f"id{i}", "search", 1, 2, 1.0))
    assert "and 12 more in training" in stream.getvalue()
    assert "id8" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_harmless(terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200)
    with Progress(console) as progress:
        progress.update(events.Started(f"{MARKUP}{ESCAPE}", 1, 1, 0, 1))
        progress.update(events.Epoch(f"{MARKUP}{ESCAPE}", "search", 1, 1, float("nan")))
        hostile = record(f"id{ESCAPE}", status=f"bad{ESCAPE}", reason=f"{MARKUP}{ESCAPE}")
        progress.update(events.Measured("search", hostile, 1, 1))
        progress.update(events.Note(f"{MARKUP}{ESCAPE}"))
    said = stream.getvalue()
    assert "\x1b]0" not in said
    assert "\x1b[31m" not in said
    assert "\x07" not in said
    assert "\u202e" not in said
    assert f"{MARKUP}\\x1b]0;pwned\\x07\\x1b[31mred\\u202e\\x0a" in said


def test_a_resumed_run_says_what_it_knows():
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.update(events.Started("runs/x", 5, 16, 37, 2))
    assert stream.getvalue() == (
        "run runs/x: 5 generations of 16, 2 at once, 37 measurements known\n"
    )


def test_an_error_inside_leaves_the_terminal_usable():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), Progress(console):
        raise KeyboardInterrupt
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
