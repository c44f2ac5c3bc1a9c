"""A search space: an ordered table of genes and what a row of it means."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from deepmaker_jax.arch import ArchSpec, check
from deepmaker_jax.description import describe
from deepmaker_jax.errors import InputError, called
from deepmaker_jax.terminal import plain
from deepmaker_jax.types import Genome

Choice = int | str
Row = dict[str, Choice]


@functools.lru_cache(maxsize=8192)
def _checked(arch: ArchSpec) -> ArchSpec:
    check(arch)
    return arch


def _either(choices: Iterable[Choice]) -> str:
    return "|".join(map(str, choices))


@dataclasses.dataclass(frozen=True)
class Gene:
    """One decision: its name and the choices that an index points into."""

    name: str
    choices: tuple[Choice, ...]

    @property
    def ordered(self) -> bool:
        """Whether the choices are numbers, each above the one before it."""
        numbers = [choice for choice in self.choices if isinstance(choice, int)]
        return len(numbers) == len(self.choices) and numbers == sorted(set(numbers))


@dataclasses.dataclass(frozen=True)
class Space:
    """An ordered table of genes for one task (image shape and classes).

    A space of one's own needs `name`, `genes` and `to_arch`; a function
    `(input_shape, num_classes) -> Space` is what `run(space=...)` takes.

    Attributes:
      name: part of every candidate's id.
      genes: the table; a genome has one index per gene.
      to_arch: from {gene name: choice} to the architecture.
      from_arch: its inverse, for `encode`.
      canonical: from any row to the one that stands for all rows of the same
        network, as far as genes with an effect go.
      unused: names of the genes that have no effect in a row: `repair` gives
        them their first choice.
      check_narrowed: raises InputError if {gene name: choices} leaves some gene
        a choice that no network has.
    """

    name: str
    genes: tuple[Gene, ...]
    to_arch: Callable[[Row], ArchSpec]
    from_arch: Callable[[ArchSpec], Row] | None = None
    canonical: Callable[[Row], Row] = dict
    unused: Callable[[Row], Collection[str]] = lambda row: ()
    check_narrowed: Callable[[Mapping[str, tuple[Choice, ...]]], None] = lambda choices: None

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Choices of each gene, in order."""
        return tuple(len(gene.choices) for gene in self.genes)

    @property
    def num_genomes(self) -> int:
        """Rows of the whole table, before repair makes equal networks equal."""
        return math.prod(self.num_choices)

    def check(self, genome: Sequence[int] | np.ndarray) -> Genome:
        """Returns `genome` as int32[g].

        Raises:
          InputError: wrong length, not whole numbers, or an index out of range.
        """
        try:
            values = np.asarray(genome)
        except (ValueError, OverflowError):  # lists of unequal lengths
            values = np.zeros(0)
        if values.shape != (len(self.genes),) or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"genome (={genome!r}) must be {len(self.genes)} whole numbers, one per gene of "
                f"space {self.name}"
            )
        for gene, index in zip(self.genes, values, strict=True):
            if not 0 <= index < len(gene.choices):
                raise InputError(
                    f"gene {gene.name} (={index}) must be in 0..{len(gene.choices) - 1}, an index "
                    f"into {gene.choices} of space {self.name}"
                )
        return values.astype(np.int32)

    def row(self, genome: Sequence[int] | np.ndarray) -> Row:
        """Returns {gene name: choice}."""
        indices = self.check(genome)
        return {g.name: g.choices[i] for g, i in zip(self.genes, indices, strict=True)}

    def genome(self, row: Mapping[str, Choice]) -> Genome:
        """Returns the genome of a row; a gene that is not in it takes its first choice.

        Raises:
          InputError: a gene has no such choice.
        """
        indices = []
        for gene in self.genes:
            choice = row.get(gene.name, gene.choices[0])
            if choice not in gene.choices:
                raise InputError(
                    f"gene {gene.name} (={choice!r}) must be one of {gene.choices} in space "
                    f"{self.name}"
                )
            indices.append(gene.choices.index(choice))
        return np.array(indices, np.int32)

    def repair(self, genome: Sequence[int] | np.ndarray) -> Genome:
        """Returns the one genome that stands for this network; idempotent."""
        row = self._own("canonical", self.row(genome))
        unused = self._own("unused", row)
        return self.genome({name: row[name] for name in row if name not in unused})

    def decode(self, genome: Sequence[int] | np.ndarray) -> ArchSpec:
        """Returns the architecture; equal for a genome and its repaired form.

        Raises:
          InputError: a bad genome, or `to_arch` gives no valid architecture.
        """
        arch = self._own("to_arch", self.row(self.repair(genome)))
        if not isinstance(arch, ArchSpec):
            found = plain(arch, limit=60)
            raise InputError(
                f"space {self.name}: to_arch returns {found}: it must return an ArchSpec"
            )
        return _checked(arch)

    def _own(self, name: str, row: Row) -> Any:
        """Returns what one of the functions that make up the space says of a row."""
        return called(f"space {self.name}: {name}", getattr(self, name), row)

    def encode(self, arch: ArchSpec) -> Genome:
        """Returns the repaired genome of an architecture of this space.

        Raises:
          InputError: it is of another space.
        """
        if self.from_arch is None:
            raise InputError(f"space {self.name} has no from_arch: it cannot encode")
        first = {gene.name: gene.choices[0] for gene in self.genes}
        genome = self.repair(self.genome(self.canonical(first | self.from_arch(arch))))
        if self.decode(genome) != arch:
            raise InputError(
                f"an architecture must be of space {self.name}, but no genome makes it"
            )
        return genome

    def id(self, genome: Sequence[int] | np.ndarray) -> str:
        """Returns the candidate's id: 12 hex digits, equal for equal networks."""
        data = self.name.encode() + self.repair(genome).astype("<i4").tobytes()
        return hashlib.sha256(data).hexdigest()[:12]

    def describe(self, genome: Sequence[int] | np.ndarray) -> str:
        """Returns the genome's network in words."""
        return describe(self.decode(genome))

    def sample(self, rng: np.random.Generator, *, num: int) -> np.ndarray:
        """Returns `num` genomes, int32[num, g]: every choice equally likely, then repaired."""
        raw = rng.integers(0, self.num_choices, size=(num, len(self.genes)))
        return np.stack([self.repair(genome) for genome in raw])

    def narrow(self, allowed: Mapping[str, Sequence[Choice]]) -> "Space":
        """Returns the space with fewer choices for the named genes.

        The choices stand in the new space's name, because ids depend on it.

        Raises:
          InputError: an unknown gene, no choice, or a choice that the gene lacks
            or that no network has.
        """
        genes = {gene.name: gene for gene in self.genes}
        for name, choices in allowed.items():
            if name not in genes:
                raise InputError(
                    f"space {self.name} has no gene {name!r}: it has {', '.join(genes)}"
                )
            missing = [c for c in choices if c not in genes[name].choices]
            if missing or not choices:
                raise InputError(
                    f"gene {name} (={_either(choices)}) must take some of "
                    f"{', '.join(map(str, genes[name].choices))}"
                )
            genes[name] = Gene(name, tuple(c for c in genes[name].choices if c in choices))
        if not allowed:
            return self
        self.check_narrowed({name: gene.choices for name, gene in genes.items()})

        def canonical(row: Row) -> Row:
            """The old rule; for what is not offered any more, the first choice that means it."""
            wanted = self.canonical(row)
            result = dict(wanted)
            for name, choice in wanted.items():
                if choice not in genes[name].choices:
                    result[name] = next(
                        offered
                        for offered in (*genes[name].choices, row[name])
                        if self.canonical(row | {name: offered}) == wanted
                    )
            return result

        words = ";".join(f"{n}={_either(genes[n].choices)}" for n in sorted(allowed))
        return dataclasses.replace(
            self,
            name=f"{self.name}[{words}]",
            genes=tuple(genes.values()),
            canonical=canonical,
        )
