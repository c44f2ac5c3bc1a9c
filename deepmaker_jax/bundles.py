"""The bundles that a path stands for: a run's, a longer training's, or the one that it is."""

import contextlib
import pathlib

from deepmaker_jax import ledger
from deepmaker_jax.documents import (
    CONFIG,
    FRONT,
    MODELS,
    NOT_ENDED,
    Longer,
    has_ended,
    load_config,
    load_front,
    longer_of,
    train_command,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import (
    MANIFEST,
    check_owner,
    check_sum,
    portable_entries,
    present,
    read_manifest,
)
from deepmaker_jax.files import is_held

STILL_GOES_ON = "it has not ended, another process works in it: wait for it"


def find_bundles(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the bundle that `path` is, or those of the run that it is, in order.

    Raises:
      InputError: no such folder, or neither of the two.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: name a run folder or a bundle in its models/")
    if (path / MANIFEST).exists():
        return [path]
    if not any((path / name).exists() for name in (CONFIG, FRONT)):
        raise InputError(
            f"{path} is neither a run folder (no {CONFIG}) nor a bundle (no {MANIFEST}): name one"
        )
    return sorted(file.parent for file in (path / MODELS).glob(f"*/{MANIFEST}"))


def deployable(path: pathlib.Path, members: int | None) -> list[pathlib.Path]:
    """Returns the bundles to be deployed, whole: a run's in its front's order, by error, then size.

    Of a longer training they are all that it has; a bundle is its own.

    Raises:
      InputError: there are none, or fewer than `members`; a portable file is missing or changed.
    """
    longer = None
    with contextlib.suppress(InputError):  # a front says all that is needed of a run
        longer = longer_of(load_config(path))
    if longer is None and not (path / MANIFEST).exists():
        found = _of_front(path)
        if members is not None and not 1 <= members <= len(found):
            raise InputError(f"members (={members}) must be 1..{len(found)}, the bundles of {path}")
    else:
        found = find_bundles(path.resolve())  # whose names are ids
        if members is not None:
            raise InputError(f"members (={members}) is for a run's front: leave it out for {path}")
        if longer is not None and not found:
            raise InputError(_no_bundle(path, longer))
    for bundle in found[:members]:
        manifest = check_owner(bundle, read_manifest(bundle))
        portable = portable_entries(manifest)  # what lies deeper is made again if it is not whole
        for name, entry in present(manifest | {"files": portable}):
            check_sum(bundle / name, entry)
    return found[:members]


def _of_front(run: pathlib.Path) -> list[pathlib.Path]:
    """Returns the bundles that a front names, at least one.

    Raises:
      InputError: there are none, or no front.
    """
    path = run / FRONT
    if not path.exists():
        if is_held(run / ledger.NAME):
            raise InputError(f"{path} is missing: {STILL_GOES_ON}")
        if any((run / name).exists() for name in (CONFIG, ledger.NAME)):
            raise InputError(f"{path} {NOT_ENDED}")
        raise InputError(
            f"{path} is missing: name a finished run, a folder in its longer/, or a bundle in its "
            "models/"
        )
    bundles = (member.get("bundle") for member in load_front(run)["members"])
    found = [run / bundle for bundle in bundles if bundle is not None]
    if not found:
        raise InputError(f"{path} names no bundle: run the experiment without --final.no-export")
    return found


def _no_bundle(folder: pathlib.Path, longer: Longer) -> str:
    """Returns why a longer training has no bundle, and the way out."""
    if has_ended(folder):
        return f"{folder} has no bundle: its run was begun with --final.no-export"
    if is_held(folder / ledger.NAME):
        return f"{folder} has no bundle: {STILL_GOES_ON}"
    return f"{folder} has not ended: go on with {train_command(folder, longer)}"


def run_of(path: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the run, or of the longer training, that a bundle lies in.

    A run folder is its own, and so is a bundle that lies in none.
    """
    if not (path / MANIFEST).exists():
        return path
    folder = path.resolve().parent
    is_run = any((folder.parent / name).exists() for name in (ledger.NAME, FRONT))
    return folder.parent if folder.name == MODELS and is_run else path
