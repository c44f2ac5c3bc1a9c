"""Checking a run folder's own files: sums, and what should be there beside the others."""

import functools
import itertools
import pathlib
from collections.abc import Iterator

from deepmaker_jax import ledger
from deepmaker_jax.bundles import find_bundles
from deepmaker_jax.documents import (
    AGAIN,
    CONFIG,
    FRONT,
    MODELS,
    NOT_ENDED,
    RESTORE,
    ROBUSTNESS,
    Longer,
    find_gaps,
    has_ended,
    load_config,
    load_front,
    longer_of,
    train_command,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.check import BAD, Finding, check_bundle, damaged
from deepmaker_jax.export.manifest import (
    MANIFEST,
    REMAKE,
    WEIGHTS,
    check_owner,
    check_sum,
    read_entries,
)
from deepmaker_jax.files import is_inside, load_json, sha256


def check_run(run: pathlib.Path) -> Iterator[Finding]:
    """Yields what a check finds for a run folder's own files; nothing for a bundle.

    A run that has not ended lacks its front, a longer training its bundle's manifest, which is a
    finding too.
    """
    if (run / MANIFEST).exists():
        return
    # A folder whose config.json is gone is taken for what its other files say.
    is_search, longer, front, records = (run / FRONT).exists(), None, None, None
    try:
        longer = _longer(run)
        is_search = longer is None
        yield Finding(run / CONFIG, "whole")
    except InputError as error:
        yield damaged(run / CONFIG, error)
    if (run / FRONT).exists():
        try:
            front = load_front(run)
            yield Finding(run / FRONT, "whole")
        except InputError as error:
            yield damaged(run / FRONT, error)
    try:
        records = ledger.read(run / ledger.NAME)
    except InputError as error:
        yield damaged(run / ledger.NAME, error)
    gaps = find_gaps(run, front=front, records=records) if is_search else []
    if records is not None and all(gap.name != ledger.NAME for gap in gaps):
        yield Finding(run / ledger.NAME, "whole")
    for gap in gaps:
        yield Finding(run / gap.name, "missing", gap.text)
    if longer is not None and not has_ended(run):
        text = f"is missing: the training has not ended, or lost it: {train_command(run, longer)}"
        yield Finding(run / MODELS / longer.member / MANIFEST, "missing", text)
    if is_search and not has_ended(run) and all(gap.name != FRONT for gap in gaps):
        yield Finding(run / FRONT, "missing", NOT_ENDED)
    yield from _check_weights(run, records or [])
    for figures in sorted((run / ROBUSTNESS).glob("*.json")):
        yield from _check_robustness(figures)


def find_damage(run: pathlib.Path) -> Iterator[str]:
    """Yields what is missing or damaged in a run that is about to go on, a line each.

    By sums alone. That a run has no front yet is nothing.
    """
    bundles = map(functools.partial(check_bundle, sums_only=True), find_bundles(run))
    told = set[pathlib.Path]()
    for path, verdict, text, _ in itertools.chain(check_run(run), *bundles):
        is_bad = verdict == "damaged" or (verdict in BAD and path != run / FRONT)
        if is_bad and path not in told:
            told.add(path)
            for remedy in (AGAIN, REMAKE):
                text = text.removesuffix(remedy)
            yield f"{path} {text.rstrip(': ')}"


def _longer(run: pathlib.Path) -> Longer | None:
    """Returns the longer training that a folder is of; None for a search's.

    Raises:
      InputError: its config.json is missing, damaged, or that of neither.
    """
    document = load_config(run)
    longer, settings = longer_of(document), document.get("config")
    is_search = isinstance(settings, dict) and isinstance(document.get("objectives"), list)
    if longer is None and not is_search:
        raise InputError(f"{run / CONFIG} has no settings, or no objectives: {RESTORE}")
    return longer


def _check_weights(run: pathlib.Path, records: list[ledger.Record]) -> Iterator[Finding]:
    """Yields what is wrong with weights of members: they must be those that were trained."""
    told = {
        record["id"]: record.get(ledger.WEIGHTS)
        for record in records
        if record["fidelity"].get("name") == "final" and "seed" not in record["fidelity"]
    }
    for id, wanted in sorted(told.items()):
        path = run / MODELS / id / WEIGHTS
        if wanted is None or not is_inside(id):
            continue
        if not path.is_file():
            yield Finding(path, "missing", f"is missing: {AGAIN}")
        elif sha256(path) != wanted:
            text = f"is not what its final training in {ledger.NAME} made: {AGAIN}"
            yield Finding(path, "damaged", text)
    for path in sorted((run / MODELS).glob(f"*/{MANIFEST}")):
        try:
            manifest = read_entries(path.parent)
        except InputError:
            continue  # a finding of its bundle
        try:
            check_owner(path.parent, manifest)
        except InputError as error:
            yield damaged(path, error)


def _check_robustness(figures: pathlib.Path) -> Iterator[Finding]:
    """Yields what is found for a member's figures, and for the weights that they are of."""
    try:
        document = load_json(figures, remedy=AGAIN)
        entries = document.get("files") if isinstance(document, dict) else None
        if not isinstance(entries, dict) or not all(
            is_inside(name) and isinstance(entry, dict) for name, entry in entries.items()
        ):
            raise InputError(f"{figures} does not list its weights: {AGAIN}")
    except InputError as error:
        yield damaged(figures, error)
        return
    if document.get("id", figures.stem) != figures.stem:
        yield Finding(figures, "damaged", f"is that of {document['id']!r}: {AGAIN}")
        return
    yield Finding(figures, "whole")
    for name, entry in sorted(entries.items()):
        weights = figures.parent / name
        try:
            check_sum(weights, entry, remedy=AGAIN, listed_in=figures.name)
            yield Finding(weights, "whole")
        except InputError as error:
            yield damaged(weights, error)
