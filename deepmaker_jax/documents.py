"""A run folder's documents, read back, and what it lacks; needs neither JAX nor the data."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from deepmaker_jax import ledger
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import MANIFEST
from deepmaker_jax.files import is_inside, load_json

CONFIG, FRONT = "config.json", "front.json"
CHECKPOINTS, MODELS, ROBUSTNESS = "checkpoints", "models", "robustness"
# Nothing makes a config.json again.
RESTORE = "restore it, or name a run folder that an experiment wrote"
AGAIN = "run its experiment again"


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
        gaps.append(Gap(FRONT, f"is missing: the run has not ended, or lost it: {AGAIN}"))
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
