"""Units side by side in the lanes of their size classes' programs, in a thread of this process."""

import heapq
import itertools

import jax

from deepmaker_jax.errors import StorageError
from deepmaker_jax.events import ProgramChanged
from deepmaker_jax.execute.inline import Inline
from deepmaker_jax.execute.unit import StageName, Task, Unit
from deepmaker_jax.execute.work import do_unit, job_of, on_device, outcome_of, seed_of
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.lanes.wiring import choose, fit, turns
from deepmaker_jax.train.memory import is_out_of_memory
from deepmaker_jax.train.population import Population

# (minus the turns of its lane's loops, when it came, the unit): the longest first, so that lanes
# that run side by side, and wait for the longest among them, are alike.
Queue = list[tuple[int, int, Unit]]


class Lanes(Inline):
    """The executor for accelerators: one size class's program at a time, all its slots filled.

    What fits no size class trains by itself. A program that wants more memory than
    there is gets half as many lanes, and with none left its size class is given up, and
    with it the larger ones of its kernel, which would want more.
    """

    def __init__(self, task: Task):
        self.num_workers = max((n for lanes in task.lanes.values() for n in lanes), default=1)
        self._lanes = {
            (stage, of): num
            for stage, lanes in task.lanes.items()
            for of, num in zip(task.size_classes, lanes, strict=True)
        }
        self._waiting: dict[tuple[StageName, SizeClass | None, int], Queue] = {}
        self._came = itertools.count()
        super().__init__(task)

    def _work(self) -> None:
        while True:
            self._sort(wait=not any(self._waiting.values()))
            (stage, of, seed), units = max(self._waiting.items(), key=lambda item: len(item[1]))
            if of is not None:
                self._side_by_side(stage, of, seed, units)
            else:
                *_, unit = heapq.heappop(units)
                self._results.put(do_unit(unit, self._task, self._results.put, self._go_on))

    def _sort(self, *, wait: bool) -> None:
        """Puts what was submitted into its size class's and seed's queue; waits for the first."""
        while wait or not self._units.empty():
            wait, unit = False, self._units.get()
            self._go_on()
            if unit is not None:
                self._put(unit)

    def _put(self, unit: Unit) -> None:
        of = self._class_of(unit) if unit.stage in self._task.lanes else None
        num = 0 if of is None else turns(fit(unit.arch, of))
        queue = self._waiting.setdefault((unit.stage, of, seed_of(unit, self._task)), [])
        heapq.heappush(queue, (-num, next(self._came), unit))

    def _class_of(self, unit: Unit) -> SizeClass | None:
        try:
            return choose(unit.arch, self._task.size_classes)
        except Exception:  # noqa: BLE001 - what is wrong with it is told once it is tried
            return None

    def _side_by_side(self, stage: StageName, of: SizeClass, seed: int, units: Queue) -> None:
        """Trains the units of one size class and seed until none of them waits."""
        task, doing = self._task, list[Unit]()

        def next_job():
            self._sort(wait=False)
            while units:
                *_, unit = heapq.heappop(units)
                try:
                    job = job_of(unit, task, self._results.put)
                except Exception as error:  # noqa: BLE001 - one candidate must not end a run
                    self._results.put(outcome_of(unit, error))
                    continue
                doing.append(unit)
                return job
            return None

        try:
            population = Population(
                of, on_device(task), settings=task.settings, seed=seed,
                input_scale=task.input_scale, num_lanes=self._lanes[stage, of],
            )  # fmt: skip
            for job, trained in population.train(next_job, self._go_on):
                doing.remove(job.key)
                self._results.put(outcome_of(job.key, trained))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - a program that fails must not end a run
            lost = doing or [unit for *_, unit in units]
            if is_out_of_memory(error):
                for unit in doing:
                    self._put(unit)
                self._shrink(stage, of)
                return
            for unit in lost:
                self._results.put(outcome_of(unit, error))
            if not doing:
                units.clear()

    def _shrink(self, stage: StageName, of: SizeClass) -> None:
        """Goes on with half as many lanes, or without the size class."""
        before, num_devices = self._lanes[stage, of], len(jax.local_devices())
        after = self._lanes[stage, of] = before // num_devices // 2 * num_devices
        lost = [] if after else self._from(of)
        names = ", ".join(c.name for c in lost)
        how = f"programs of their own for the networks of {names}" if lost else f"{after} lanes"
        self._results.put(
            ProgramChanged(
                f"size class {of.name} wants more memory than there is with {before} lanes: "
                f"{stage} goes on with {how}"
            )
        )
        if lost:
            classes = tuple(c for c in self._task.size_classes if c not in lost)
            self._task = self._task._replace(size_classes=classes)
            again = [queue for (_, wanted, _), queue in self._waiting.items() if wanted in lost]
            for *_, unit in sorted(itertools.chain(*again), key=lambda waiting: waiting[1]):
                self._units.put(unit)
            for queue in again:
                queue.clear()

    def _from(self, of: SizeClass) -> list[SizeClass]:
        """Returns a size class and the larger ones that its networks fit too."""
        classes = self._task.size_classes
        return [c for c in classes[classes.index(of) :] if c.kernel == of.kernel]
