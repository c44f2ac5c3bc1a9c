"""The part of a space within the limits that the targets can do: cut before any training."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import COSTS, LimitConfig
from deepmaker_jax.cost import cost_of
from deepmaker_jax.errors import InputError
from deepmaker_jax.rules import flag
from deepmaker_jax.spaces import Space
from deepmaker_jax.types import Genome

ENUMERABLE = 20_000  # spaces up to this many rows are listed whole
TRIES = 400  # random changes before a draw is given up
CLIMBS = 4  # from draws, to find the largest network
CLOSE = 0.7  # a network is close to a size from this share of it on
UNSUPPORTED = 1e6  # the excess of one reason why a target cannot do a network: above any cost's

# From a network to every reason why a target cannot do it; none if it can.
Supports = Callable[[ArchSpec], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Feasible:
    """A space, the limits on its costs, and what the targets can do.

    Attributes:
      space: the whole space.
      limits: {cost name: largest allowed value}.
      spread: the cost whose logarithm the draws are spread over.
      floor: of that cost; draws are spread from there.
      targets: {target name: its rule}.
    """

    space: Space
    limits: dict[str, int]
    spread: str = "params"
    floor: int = 1
    targets: Mapping[str, Supports] = dataclasses.field(default_factory=dict)

    def excess(self, genome: Genome) -> float:
        """Returns the worst ratio of cost to limit: at most 1 is feasible; 0 without limits.

        What a target cannot do is far above 1, the further the more reasons there are.
        """
        return self._excess(self.space.decode(genome))

    def _excess(self, arch: ArchSpec) -> float:
        worst = max((cost_of(arch, n) / limit for n, limit in self.limits.items()), default=0.0)
        return worst + UNSUPPORTED * len(self._reasons(arch))

    def _reasons(self, arch: ArchSpec) -> list[str]:
        return [f"{name}: {reason}" for name, rule in self.targets.items() for reason in rule(arch)]

    def allows(self, genome: Genome) -> bool:
        """Whether every cost is within its limit, and every target can do the network."""
        return self.excess(genome) <= 1

    def _smallest(self, value) -> Genome:
        """Returns a genome that no change of one gene makes smaller in `value(genome)`."""
        return self._descended(self.space.repair(np.zeros(len(self.space.genes), np.int32)), value)

    def _descended(self, best: Genome, value: Callable[[Genome], float]) -> Genome:
        """Returns where changes of one gene at a time lead, each to a smaller `value(genome)`."""
        best_value = value(best)
        improved = True
        while improved:
            improved = False
            for neighbour in self._neighbours(best):
                if (found := value(neighbour)) < best_value:
                    best, best_value, improved = neighbour, found, True
        return best

    @functools.cached_property
    def _least(self) -> int:
        """The `spread` cost of the smallest network."""
        return self._size(self._smallest(self._size))

    @functools.cached_property
    def _most(self) -> int:
        """The `spread` cost of the largest feasible network that is found; 0 if none is.

        Found by changes of one gene at a time, from the smallest network and from some draws: under
        several limits each may end at another height.
        """
        if self._is_small():
            return max(map(self._size, self.everything), default=0)
        rng = np.random.default_rng(0)
        starts = [self._smallest(self.excess), *self.space.sample(rng, num=CLIMBS)]
        shrunk = [self.shrink(rng, genome) for genome in starts]
        grown = [self._descended(g, self._smallness) for g in shrunk if g is not None]
        return max(map(self._size, grown), default=0)

    def _smallness(self, genome: Genome) -> float:
        return -self._size(genome) if self.allows(genome) else math.inf

    def _neighbours(self, genome: Genome) -> Iterator[Genome]:
        for i, num in enumerate(self.space.num_choices):
            for choice in range(num):
                if choice != genome[i]:
                    changed = genome.copy()
                    changed[i] = choice
                    yield self.space.repair(changed)

    def _find(self, num: int) -> list[Genome]:
        """Returns up to `num` different feasible genomes, found by walking from the smallest."""
        start = self._smallest(self.excess)
        found = {self.space.id(start): start} if self.allows(start) else {}
        frontier = list(found.values())
        while frontier and len(found) < num:
            for neighbour in self._neighbours(frontier.pop(0)):
                name = self.space.id(neighbour)
                if name not in found and self.allows(neighbour):
                    found[name] = neighbour
                    frontier.append(neighbour)
        return list(found.values())[:num]

    def check(self, num: int) -> None:
        """Raises InputError if no genome meets limits and targets, or fewer than `num` do."""
        for name, limit in self.limits.items():
            smallest = self._smallest(lambda g, n=name: cost_of(self.space.decode(g), n))
            nearest = cost_of(self.space.decode(smallest), name)
            if nearest > limit:
                raise InputError(
                    f"{flag(f'limits.{name}')} (={limit}) is below the nearest value that "
                    f"space {self.space.name} reaches here, {nearest}: raise it"
                )
        found = self.everything if self._is_small() else self._find(num)
        if not found:
            arch = self.space.decode(self._smallest(self.excess))
            if reasons := self._reasons(arch):
                raise InputError(
                    f"targets ({' '.join(self.targets)}) can do no network of space "
                    f"{self.space.name}: {reasons[0]}; leave out that target, or search another "
                    "space"
                )
            nearest = ", ".join(f"{n} {cost_of(arch, n)}" for n in self.limits)
            wanted = ", ".join(f"{n} {v}" for n, v in self.limits.items())
            raise InputError(
                f"limits ({wanted}) are met by no genome of space {self.space.name} at once; the "
                f"nearest has {nearest}: raise them"
            )
        if self.floor > 1 and self._most <= self.floor:
            raise InputError(
                f"search.floor (={self.floor}) must be below the {self.spread} of the largest "
                f"network that was found in space {self.space.name} within limits and targets, "
                f"{self._most}"
            )
        if len(found) < num:
            raise InputError(
                f"search.population (={num}) is more than the {len(found)} different networks of "
                f"space {self.space.name} within limits and targets: lower it, or raise the limits"
            )

    def _is_small(self) -> bool:
        return self.space.num_genomes <= ENUMERABLE

    @functools.cached_property
    def everything(self) -> list[Genome]:
        """Every different feasible genome of a small space, in the table's order."""
        found: dict[str, Genome] = {}
        for indices in np.ndindex(*self.space.num_choices):
            genome = self.space.repair(np.array(indices, np.int32))
            if self.allows(genome):
                found.setdefault(self.space.id(genome), genome)
        return list(found.values())

    def shrink(
        self, rng: np.random.Generator, genome: Genome, *, largest: float = math.inf
    ) -> Genome | None:
        """Returns a feasible genome near `genome`, or None if random changes found none.

        Changes one gene at a time to a random choice that brings the excess down,
        until limits and targets are met and the `spread` cost is at most `largest`.

        Args:
          rng: for the changes.
          genome: where they begin; it is repaired first.
          largest: of the `spread` cost.
        """

        def excess(g: Genome) -> float:
            arch = self.space.decode(g)
            return max(self._excess(arch), cost_of(arch, self.spread) / largest)

        genome = self.space.repair(genome)
        now = excess(genome)
        for _ in range(TRIES):
            if now <= 1:
                return genome
            changed = genome.copy()
            i = rng.integers(len(changed))
            changed[i] = rng.integers(self.space.num_choices[i])
            changed = self.space.repair(changed)
            if (then := excess(changed)) < now:
                genome, now = changed, then
        return genome if now <= 1 else None

    def _grow(self, rng: np.random.Generator, genome: Genome, *, largest: float) -> Genome:
        """Returns a feasible genome whose `spread` cost is close below `largest`, if one is found.

        `shrink` overshoots: one random change may take off nine tenths of a network.
        """
        size = self._size(genome)
        for _ in range(TRIES):
            if size > CLOSE * largest:
                break
            changed = genome.copy()
            i = rng.integers(len(changed))
            changed[i] = rng.integers(self.space.num_choices[i])
            changed = self.space.repair(changed)
            if size < (then := self._size(changed)) <= largest and self.allows(changed):
                genome, size = changed, then
        return genome

    def _size(self, genome: Genome) -> int:
        return cost_of(self.space.decode(genome), self.spread)

    def sample(
        self,
        rng: np.random.Generator,
        *,
        num: int,
        known: Collection[str] = (),
        chosen: Collection[str] = (),
        draws: Iterator[Genome] | None = None,
    ) -> list[Genome]:
        """Returns up to `num` different feasible genomes whose ids are not in `known`.

        Uniform draws of a dense space are nearly all large networks. So each
        draw is brought to a size drawn log-uniformly between the floor, or the
        smallest network's, and the largest's (without limits, the draw's own), which
        spreads the sample over the axis that fronts are read on. Fewer than `num` come
        back only when the space is used up.

        Args:
          rng: for the sizes, the way to them and, without `draws`, the draws.
          num: how many.
          known: ids that are not wanted; it may be large.
          chosen: more of them.
          draws: endless uniform draws; None for the space's own. A space that is
            small enough to be listed needs none.
        """
        found: list[Genome] = []
        taken = set(chosen)
        if num < 1:
            return found
        if self._is_small():
            every = [(self.space.id(g), g) for g in self.everything]
            left = [g for id, g in every if id not in known and id not in taken]
            return [left[i] for i in rng.permutation(len(left))[:num]]
        low = math.log(max(self.floor, self._least))
        most = self._most if self.limits or self.targets else None
        for _ in range(20 * num):
            if len(found) == num:
                break
            draw = self.space.sample(rng, num=1)[0] if draws is None else next(draws)
            high = math.log(most or self._size(draw))
            largest = math.exp(rng.uniform(low, max(low, high)))
            genome = self.shrink(rng, draw, largest=largest)
            if genome is None:
                continue
            genome = self._grow(rng, genome, largest=largest)
            id = self.space.id(genome)
            if id not in known and id not in taken:
                taken.add(id)
                found.append(genome)
        if len(found) < num:  # hardly anything is left: walk to the rest
            near = [(self.space.id(g), g) for g in self._find(len(known) + len(taken) + num)]
            rest = [g for id, g in near if id not in known and id not in taken]
            found += rest[: num - len(found)]
        return found


def make(
    space: Space,
    limits: LimitConfig,
    *,
    spread: str,
    floor: int = 1,
    targets: Mapping[str, Supports] | None = None,
) -> Feasible:
    """Returns the feasible part of `space`; `spread` names a cost, `floor` is of it."""
    values = {name: getattr(limits, name) for name in COSTS}
    set_ = {n: v for n, v in values.items() if v is not None}
    return Feasible(space, set_, spread, floor, dict(targets or {}))
