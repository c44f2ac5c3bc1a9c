"""A run folder's documents, read back, and what it lacks; needs neither JAX nor the data."""

import contextlib
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from deepmaker_jax import ledger
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import MANIFEST, WEIGHTS
from deepmaker_jax.files import is_inside, load_json

CONFIG, FRONT = "config.json", "front.json"
CHECKPOINTS, MODELS, ROBUSTNESS, LONGER = "checkpoints", "models", "robustness", "longer"
# Nothing makes a config.json again.
RESTORE = "restore it, or name a run folder that an experiment wrote"
AGAIN = "run its experiment again"
NOT_ENDED = f"is missing: the run has not ended, or lost it: {AGAIN}"  # of a front


class Longer(NamedTuple):
    """What a longer training's config.json tells: the member, and how many epochs are added."""

    member: str
    epochs: int


class Gap(NamedTuple):
    """What a run folder should hold and does not.

    Attributes:
      name: of the file that is missing, or lacks something, in the folder.
      text: what is the matter, and the way out.
    """

    name: str
    text: str


def load_config(run: pathlib.Path) -> dict[str, Any]:
    """Returns config.json's object.

    Raises:
      InputError: it is missing, damaged or no object.
    """
    document = load_json(run / CONFIG, remedy=RESTORE)
    if not isinstance(document, dict):
        raise InputError(f"{run / CONFIG} does not hold a JSON object: {RESTORE}")
    return document


def longer_of(config: dict[str, Any]) -> Longer | None:
    """Returns what config.json's object tells of a longer training; None if it is none's."""
    settings = config.get("config")
    told: dict[str, Any] = settings if isinstance(settings, dict) else {}
    member, epochs = told.get("member"), told.get("epochs")
    if not isinstance(member, str) or not isinstance(epochs, int):
        return None
    return Longer(member, epochs) if is_inside(member) and "/" not in member else None


def load_search(run: pathlib.Path) -> dict[str, Any]:
    """Returns config.json's object of a search.

    Raises:
      InputError: as `load_config`, or it is that of a longer training.
    """
    config = load_config(run)
    if (longer := longer_of(config)) is not None:
        origin = _origin(run)
        its_run = "the run that it is of" if origin is None else f"its run, {origin}"
        raise InputError(
            f"{run} is a longer training of member {longer.member}: name {its_run}; deepmaker "
            "check and deepmaker deploy take it as it is"
        )
    return config


def _origin(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the run folder that a longer training lies in; None if it lies elsewhere."""
    place = folder if folder.parent.name == LONGER else folder.resolve()
    return place.parents[1] if place.parent.name == LONGER else None


def longer_path(run: pathlib.Path, longer: Longer) -> pathlib.Path:
    """Returns where a longer training lies unless another place is named."""
    return run / LONGER / f"{longer.member}-{longer.epochs}"


def train_command(folder: pathlib.Path, longer: Longer) -> str:
    """Returns the command with which a longer training goes on where it lies now."""
    run = _origin(folder)
    words = ["deepmaker", "train", str(run or "RUN"), longer.member, "--epochs", str(longer.epochs)]
    if run is None or longer_path(run, longer).resolve() != folder.resolve():
        words += ["--out", str(folder)]
    return shlex.join(words)


def has_ended(folder: pathlib.Path) -> bool:
    """Whether a run or a longer training has written what it ends with; a bundle has."""
    if (folder / MANIFEST).exists():
        return True
    longer = None
    with contextlib.suppress(InputError):
        longer = longer_of(load_config(folder))
    if longer is None:
        return (folder / FRONT).exists()
    files = {path.name for path in (folder / MODELS / longer.member).glob("*")}
    # Without the export there are but the weights.
    return MANIFEST in files or (files == {WEIGHTS} and not (folder / CHECKPOINTS).exists())


def experiment_line(run: pathlib.Path, config: dict[str, Any]) -> str:
    """Returns a line with the command that goes on with a run where it lies now; "" if unknown."""
    command = written_by(config)
    return command and f"its experiment, to be given --out {shlex.quote(str(run))}: {command}"


def written_by(config: dict[str, Any]) -> str:
    """Returns the command that began a run, as its config.json has it; "" if that has none."""
    command = config.get("command")
    return command if isinstance(command, str) else ""


def load_front(run: pathlib.Path) -> dict[str, Any]:
    """Returns front.json's object: its members each have an id of their own.

    Raises:
      InputError: it is missing, damaged or no front, or names a bundle outside of the run.
    """
    path = run / FRONT
    front = load_json(path, remedy=AGAIN)
    if not isinstance(front, dict):
        raise InputError(f"{path} does not hold a JSON object: {AGAIN}")
    members = front.get("members")
    if not isinstance(members, list) or not all(isinstance(m, dict) for m in members):
        raise InputError(f"{path} has no list of members: {AGAIN}")
    ids = [member.get("id") for member in members]
    if not all(isinstance(id, str) for id in ids) or len(set(ids)) < len(ids):
        raise InputError(f"{path} has no list of members, each with its own id: {AGAIN}")
    for id, bundle in ((member["id"], member.get("bundle")) for member in members):
        if bundle is not None and (bundle != f"{MODELS}/{id}" or not is_inside(bundle)):
            raise InputError(f"{path} names {bundle!r}, which is not {id!r}'s bundle: {AGAIN}")
    return front


def find_gaps(
    run: pathlib.Path,
    *,
    front: dict[str, Any] | None,
    records: Sequence[ledger.Record] | None,
) -> list[Gap]:
    """Returns what a search's folder lacks beside what it holds: it has not ended, or lost it.

    Args:
      run: the folder.
      front: front.json's object; None if there is none that can be read.
      records: the ledger's; None if it cannot be read.
    """
    gaps, kinds = [], {"final": set[str](), "search": set[str]()}
    for record in records or ():
        is_final = record["fidelity"].get("name") == "final"
        kinds["final" if is_final else "search"].add(record["id"])
    bundles = {path.parent.name for path in (run / MODELS).glob(f"*/{MANIFEST}")}
    if (bundles or kinds["final"]) and not (run / FRONT).exists():
        gaps.append(Gap(FRONT, NOT_ENDED))
    members = [] if front is None else front["members"]
    trained = {member["id"] for member in members} | bundles
    if records is not None and (lost := trained - (kinds["final"] & kinds["search"])):
        what = f"measurements of {len(lost)} of {len(trained)} members"
        there = "lacks" if (run / ledger.NAME).exists() else "is missing, and with it"
        gaps.append(Gap(ledger.NAME, f"{there} {what}: {AGAIN}"))
    for member in members:
        bundle = member.get("bundle")
        if bundle is not None and not (run / bundle / MANIFEST).is_file():
            gaps.append(Gap(f"{bundle}/{MANIFEST}", f"is missing: {AGAIN}"))
        name = f"{ROBUSTNESS}/{member['id']}.json"
        measured = member.get("robustness") is not None and is_inside(name)
        if measured and not (run / name).is_file():
            gaps.append(Gap(name, f"is missing: {AGAIN}"))
    return gaps
