"""What a person sees while a run works: a live panel on a terminal, else plain lines."""

import collections
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deepmaker_jax import events
from deepmaker_jax.report import text
from deepmaker_jax.report.show import line
from deepmaker_jax.report.view import part

LINE_SECONDS = 60.0  # plain lines about epochs are at least this far apart
REFRESH_SECONDS = 0.1
MAX_SHOWN = 8  # candidates in training that the panel lists
MIN_WORK = (
    0.5  # candidates' (with rungs, generations') worth of training before a guess of the time
)


class Estimate:
    """Time left in a stage from what was trained in it; epochs count as parts of a candidate.

    The pace is that from the first epoch's end on: what was compiled before, others use too.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self.training: dict[str, events.Epoch] = {}
        self.start(0)

    def start(self, num_left: int) -> None:
        """Begins a stage in which `num_left` candidates are to be trained."""
        self._began, self._num_measured, self.num_left = self._clock(), 0, num_left
        self._before = 0.0  # what was trained when the pace begins
        self.training.clear()

    def epoch(self, epoch: events.Epoch) -> bool:
        """Counts an epoch; returns whether the pace begins with it."""
        is_first = not self.training and not self._num_measured
        self.training[epoch.id] = epoch
        if is_first:
            self._began, self._before = self._clock(), self._begun()
        return is_first

    def _begun(self) -> float:
        return sum(epoch.num_done / max(1, epoch.num_epochs) for epoch in self.training.values())

    def measured(self, id: str, num_left: int) -> None:
        """Counts a finished candidate."""
        self.training.pop(id, None)
        self._num_measured, self.num_left = self._num_measured + 1, num_left

    def seconds_left(self) -> float | None:
        """Returns the seconds that the stage still takes at its pace; None if unknown so far."""
        begun = self._begun()
        work = self._num_measured + begun - self._before
        if work < MIN_WORK:
            return None
        return (self._clock() - self._began) / work * max(0.0, self.num_left - begun)


class Progress:
    """Shows the events of `deepmaker_jax.events` as they come; a context manager.

    Attributes:
      out: the run folder, once the run has started.
    """

    def __init__(
        self,
        stream: TextIO | Console | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Shows on `stream`, stderr if None; `quiet` shows nothing but notes."""
        if isinstance(stream, Console):
            console = stream
        else:
            console = Console(file=stream or sys.stderr, highlight=False)
        self.out = ""
        self._console, self._quiet, self._clock = console, quiet, clock
        is_live = console.is_terminal and not console.is_dumb_terminal and not quiet
        # No refresh thread: worker processes may be forked from this one.
        # stdout is left alone: it may be a file.
        live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live = live if is_live else None
        self._shown_at = -math.inf
        self._num_generations = self._population = self._generation = 0
        self._num_done = self._num_total = 0
        self._stage, self._hypervolume = "starting", None
        self._statuses: collections.Counter[str] = collections.Counter()
        self._best: dict[int, float] = {}  # {size class in bytes: lowest error}
        self._estimate = Estimate(clock)
        self._rung, self._num_rungs = 0, 1
        self._since: tuple[float, float] | None = None  # (when, share of the search) it began

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.update("", refresh=True)
            self._live.stop()

    def update(self, event: events.Event) -> None:
        """Takes one event in and shows it."""
        self._take(event)
        words = self._words(event)
        lasting = not isinstance(event, events.Epoch | events.Measured)
        wanted = isinstance(event, events.Note | events.ProgramChanged) or not self._quiet
        if words and wanted and (lasting or not self._live):
            line(self._console, words)
            self._shown_at = self._clock()
        if self._live and (lasting or self._clock() - self._shown_at >= REFRESH_SECONDS):
            self._live.update(self._panel(), refresh=True)
            self._shown_at = self._clock()

    def _take(self, event: events.Event) -> None:
        """Updates what is known."""
        if isinstance(event, events.Started):
            self.out = event.out
            self._num_generations, self._population = event.num_generations, event.population
        elif isinstance(event, events.GenerationStarted):
            if event.generation == 0 or self._stage != "search":
                self._estimate.start(0)
            self._stage, self._generation = "search", event.generation
            self._rung, self._num_rungs = event.rung, event.num_rungs
            self._num_total = event.num_candidates
            self._num_done = event.num_candidates - event.num_new
            if event.num_new and self._since is None:
                self._since = self._clock(), self._share()
            self._estimate.num_left = event.num_new + self._later()
        elif isinstance(event, events.FinalStarted):
            self._stage = "final training"
            self._num_done, self._num_total = event.num_known, len(event.ids) * event.num_seeds
            self._estimate.start(self._num_total - self._num_done)
        elif isinstance(event, events.Epoch):
            if self._estimate.epoch(event):
                self._since = self._clock(), self._share()
        elif isinstance(event, events.Measured):
            self._num_done, self._num_total = event.num_done, event.num_total
            if event.stage == "latency":
                return
            later = self._later() if event.stage == "search" else 0
            self._estimate.measured(event.name, event.num_total - event.num_done + later)
            self._statuses[event.record["status"]] += 1
            if event.stage == "search":
                self._note_best(event.record)
        elif isinstance(event, events.GenerationDone):
            self._hypervolume = event.hypervolume
            for record in event.front:
                self._note_best(record)
        elif isinstance(event, events.Exported):
            self._stage, self._num_done, self._num_total = "export", event.num_done, event.num_total

    def _later(self) -> int:
        """Returns the candidates of the generations after this one."""
        return max(0, self._num_generations - 1 - self._generation) * self._population

    def _note_best(self, record: dict[str, Any]) -> None:
        error, num_bytes = _error(record), text.number(part(record, "costs").get("flash_bytes"))
        if record["status"] == "ok" and error is not None and num_bytes and num_bytes > 0:
            limit = 2 ** math.ceil(math.log2(num_bytes))
            self._best[limit] = min(error, self._best.get(limit, math.inf))

    def _words(self, event: events.Event) -> str | None:
        """Returns an event as one line; None for those that say too little."""
        if isinstance(event, events.Started):
            known = f", {event.num_known} measurements known" if event.num_known else ""
            return (
                f"run {event.out}: {event.num_generations} generations of {event.population}, "
                f"{event.num_workers} at once{known}"
            )
        if isinstance(event, events.GenerationStarted):
            rung = f", rung {event.rung + 1} of {event.num_rungs}" if event.num_rungs > 1 else ""
            return (
                f"generation {event.generation}{rung}: {event.num_candidates} candidates, "
                f"{event.num_new} to train"
            )
        if isinstance(event, events.Epoch):
            if self._clock() - self._shown_at < LINE_SECONDS:
                return None
            others = len(self._estimate.training)
            return (
                f"{event.id}: epoch {event.num_done}/{event.num_epochs}, loss "
                f"{text.short(event.loss)}; {others} in training{self._left()}"
            )
        if isinstance(event, events.Measured):
            return f"{event.num_done}/{event.num_total} {_result(event)}{self._left()}"
        if isinstance(event, events.GenerationDone):
            return (
                f"generation {event.generation} done: {event.num_candidates} candidates, front of "
                f"{len(event.front)}, hypervolume {event.hypervolume:.4f}{self._best_words()}"
            )
        if isinstance(event, events.FinalStarted):
            seeds = f", {event.num_seeds} seeds" if event.num_seeds > 1 else ""
            num = len(event.ids)
            networks = f"{num} network{'s' * (num != 1)}"
            known = f"; {event.num_known} known" if event.num_known else ""
            return f"final training: {networks}, {event.num_epochs} epochs each{seeds}{known}"
        if isinstance(event, events.Exported):
            return (
                f"{event.id}: exported and checked ({event.num_done}/{event.num_total}) after "
                f"{text.duration(event.seconds)}"
            )
        if isinstance(event, events.Finished):
            return f"finished: {len(event.front['members'])} networks in {event.out}"
        return event.text

    def _share(self) -> float:
        """Returns how much of the search is done, each rung of a generation counted alike."""
        of_rung = self._num_done / max(1, self._num_total)
        of_generation = (self._rung + of_rung) / self._num_rungs
        return (self._generation + of_generation) / max(1, self._num_generations)

    def _seconds_left(self) -> float | None:
        """Returns the seconds that the stage still takes at its pace; None if unknown so far."""
        if self._stage != "search" or self._num_rungs == 1 or self._since is None:
            return self._estimate.seconds_left()
        # Candidates do not count alike here: they train for one epoch or for many.
        (began, before), share = self._since, self._share()
        if self._num_generations * (share - before) < MIN_WORK:
            return None
        return (self._clock() - began) / (share - before) * (1 - share)

    def _left(self) -> str:
        seconds = self._seconds_left()
        return "" if not seconds else f"; {self._stage}: about {text.duration(seconds)} left"

    def _best_words(self) -> str:
        best = [f"{text.percent(e)} in {_limit(size)}" for size, e in self._steps()]
        return f", best error {', '.join(best)} of flash" if best else ""

    def _steps(self) -> list[tuple[int, float]]:
        """Returns the sizes at which the best error falls, the smallest first."""
        steps: list[tuple[int, float]] = []
        for size in sorted(self._best):
            if not steps or self._best[size] < steps[-1][1]:
                steps.append((size, self._best[size]))
        return steps

    def _panel(self) -> Group:
        """Returns what the terminal shows until the next event."""
        head = self._stage
        if self._stage == "search":
            head = f"generation {self._generation} of 0..{self._num_generations - 1}"
            head += f", rung {self._rung + 1} of {self._num_rungs}" if self._num_rungs > 1 else ""
        counts = ", ".join(f"{self._statuses[s]} {s}" for s in sorted(self._statuses) if s != "ok")
        counts = f" ({text.plain(counts)} so far)" if counts else ""
        row = Table.grid(padding=(0, 2))
        row.add_row(
            Text(head, style="bold"),
            ProgressBar(total=max(1, self._num_total), completed=self._num_done, width=30),
            Text(f"{self._num_done}/{self._num_total}{counts}"),
            Text(self._left().removeprefix("; ")),
        )
        parts: list[Any] = [row]
        training = list(self._estimate.training.values())
        if training:
            table = Table.grid(padding=(0, 2))
            for epoch in training[:MAX_SHOWN]:
                table.add_row(
                    Text("  " + text.plain(epoch.id, limit=40)),
                    ProgressBar(total=epoch.num_epochs, completed=epoch.num_done, width=16),
                    Text(f"epoch {epoch.num_done}/{epoch.num_epochs}"),
                    Text(f"loss {text.short(epoch.loss)}"),
                )
            parts.append(table)
            if len(training) > MAX_SHOWN:
                parts.append(Text(f"  and {len(training) - MAX_SHOWN} more in training"))
        if self._hypervolume is not None:
            parts.append(Text(f"hypervolume {self._hypervolume:.4f}{self._best_words()}"))
        return Group(*parts)


def _error(record: dict[str, Any]) -> float | None:
    accuracy = text.number(part(record, "measured").get("val_accuracy"))
    return None if accuracy is None else 1 - accuracy


def _limit(num_bytes: int) -> str:
    """Returns a power of two of bytes: 32 KB."""
    return f"{num_bytes // 1024} KB" if num_bytes >= 1024 else f"{num_bytes} B"


def _result(event: events.Measured) -> str:
    """Returns a measurement in words."""
    record = event.record
    costs = part(record, "costs")
    seconds = sum(text.number(v) or 0.0 for v in part(record, "seconds").values())
    name = f"{event.name}: "
    if record["status"] != "ok":
        return f"{name}{record['status']}, {record['reason']}"
    if event.stage == "latency":
        taken = part(record, "measured").get("latency_ms")
        return f"{name}latency {text.quantity(taken, 'ms')}"
    words = [f"{text.whole(costs.get('params'))} parameters", text.duration(seconds)]
    if event.stage == "search":
        words.insert(0, f"error {text.percent(_error(record))}")
    return name + ", ".join(words)
