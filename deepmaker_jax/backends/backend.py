"""What a backend is, and the entries that it adds to a bundle's manifest."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.errors import MissingToolError, UnsupportedError, one_line
from deepmaker_jax.export.manifest import WEIGHTS, made_entry, missing_entry
from deepmaker_jax.export.parity import QUANTISED, Expected, Rule, compare

Entry = dict[str, Any]


class BackendError(RuntimeError):
    """A backend that ended before it said anything; the message is one line."""


class Tool(NamedTuple):
    """Something that a backend needs.

    Attributes:
      name: as people know it.
      version: what is here; None if it is missing.
      install: the command that brings it.
    """

    name: str
    version: str | None
    install: str


@dataclasses.dataclass(frozen=True)
class Member:
    """A front member as a backend sees it: the portable files and what they give.

    Attributes:
      id: of the candidate.
      bundle: its folder.
      arch: its architecture.
      images: uint8[n, h, w, c], test images of `reference.npz`.
      labels: int[n].
      logits: Float32[n, classes], JAX's.
      portable: what the manifest says of the files beside it, by name.
    """

    id: str
    bundle: pathlib.Path
    arch: ArchSpec
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    portable: dict[str, Entry]

    def file(self, name: str) -> pathlib.Path:
        """Returns where a portable file is.

        Raises:
          UnsupportedError: it was not made, or does not say what JAX says; the
            manifest's own reason.
        """
        found = self.portable.get(name, {"status": "missing", "reason": "it was never exported"})
        if found["status"] != "ok":
            raise UnsupportedError(f"{name} is {found['status']}: {found['reason']}")
        return self.bundle / name

    def weights(self) -> tuple[ArchSpec, dict[str, Any]]:
        """Returns (architecture, variables): the weights' file alone, whatever else is there.

        Raises:
          InputError: it is damaged.
        """
        from deepmaker_jax.export.weights import load_weights  # needs JAX

        return load_weights(self.file(WEIGHTS))


class Artifact(NamedTuple):
    """One file that a backend made, or could not make.

    Attributes:
      path: relative to the bundle.
      tool: its maker and version.
      problem: why it is not there; None if it is.
    """

    path: str
    tool: str
    problem: Exception | None = None


def supports_all(arch: ArchSpec) -> Sequence[str]:
    """The `supports` of a backend that does every network."""
    return ()


class Backend(NamedTuple):
    """Functions that bring a member to one kind of device.

    Attributes:
      name: also the folder in the bundle that is all the backend's own.
      about: what it does, for `deepmaker targets`.
      probe: says which tools are here.
      build: writes files below `bundle / name`; an artifact each, also of those
        that could not be made.
      measure: runs what was built; the manifest's entries by path.
      timed: its measurements are clocks on this machine: nothing runs beside it.
      supports: every reason why it cannot do a network, known before anything is
        built; none if it can. A search for the target repairs genomes by it: the
        fewer reasons, the nearer.
      light: it takes seconds a member: experiments end with it unless they are told otherwise.
      runs: its files that are networks, by path; each function returns the logits,
        Float32[k, classes], of the first k reference images. `deepmaker check` runs
        them again: they need no JAX but where the file itself does.
    """

    name: str
    about: str
    probe: Callable[[], Sequence[Tool]]
    build: Callable[[Member], Sequence[Artifact]]
    measure: Callable[[Member, Sequence[Artifact]], dict[str, Entry]]
    timed: bool = False
    supports: Callable[[ArchSpec], Sequence[str]] = supports_all
    light: bool = False
    runs: Mapping[str, Callable[[Member], np.ndarray]] = {}  # a plain one: members travel


def attempt(bundle: pathlib.Path, path: str, tool: str, make: Callable[[], None]) -> Artifact:
    """Returns the artifact that `make` writes, or its problem: one file's failure is its own."""
    (bundle / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        make()
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is this file's alone
        (bundle / path).unlink(missing_ok=True)
        return Artifact(path, tool, error)
    return Artifact(path, tool)


def failed(path: str, tool: str, problem: BaseException) -> Entry:
    """Returns the entry of a file that was not made or could not be run."""
    expected = isinstance(problem, MissingToolError | UnsupportedError)
    said = expected or isinstance(problem, BackendError)
    reason = str(problem) if said else one_line(problem)
    return missing_entry("unsupported" if expected else "failed", reason) | {"tool": tool}


def unsupported(backend: Backend, reasons: Sequence[str]) -> Entry:
    """Returns the entry of a network that a backend cannot do."""
    return missing_entry("unsupported", "; ".join(reasons)) | {"tool": backend.name}


def entry(
    member: Member,
    artifact: Artifact,
    *,
    logits: np.ndarray | None = None,
    rule: Rule = QUANTISED,
    cost: Entry | None = None,
) -> Entry:
    """Returns the entry of a file that is there, its logits compared with JAX's.

    Args:
      member: whose file it is.
      artifact: the file.
      logits: Float32[k, classes], what it gives for the first k reference images;
        None for a file that is not a network.
      rule: what these must keep to.
      cost: {name: {"value", "unit", "how"}}.
    """
    found: Entry = made_entry(member.bundle / artifact.path, tool=artifact.tool)
    found["cost"] = dict(cost or {}) or None
    if logits is None:
        return found
    part = slice(len(logits))
    expected = Expected(member.images[part], member.labels[part], member.logits[part])
    parity, accuracy, broken = compare(logits, expected, rule)
    # `accuracy` is of the whole test split, which only the bundle's exporter reads.
    right = measured(accuracy, "share", f"top-1, {len(logits)} test images")
    found |= {"parity": parity, "cost": (found["cost"] or {}) | {"reference_accuracy": right}}
    if broken is not None:
        found |= {"status": "failed", "reason": broken}
    return found


def measured(value: float | int, unit: str, how: str) -> Entry:
    """Returns one cost in the manifest's form."""
    return {"value": value, "unit": unit, "how": how}


def measure_each(
    member: Member, artifacts: Sequence[Artifact], run: Callable[[Artifact], Entry]
) -> dict[str, Entry]:
    """Returns an entry for every artifact; what cannot be run says why and stops no other."""
    entries: dict[str, Entry] = {}
    for artifact in artifacts:
        try:
            if artifact.problem:
                raise artifact.problem
            entries[artifact.path] = run(artifact)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is this file's alone
            said = failed(artifact.path, artifact.tool, error)
            if (member.bundle / artifact.path).is_file():  # made, though nothing here runs it
                reason = {name: said[name] for name in ("status", "reason")}
                said = entry(member, artifact) | reason
            entries[artifact.path] = said
    return entries
