"""The run folder: opened, compared with what is asked for, never overwritten."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from deepmaker_jax import config as config_module
from deepmaker_jax.config import FREE_FIELDS, Config
from deepmaker_jax.documents import (
    CHECKPOINTS,
    CONFIG,
    FRONT,
    MODELS,
    RESTORE,
    ROBUSTNESS,
    load_config,
    load_search,
)  # fmt: skip
from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.files import checksum, load_json, remove_leftovers, storing, write_document
from deepmaker_jax.ledger import unit_name

SPARE_BYTES = 64 << 20  # weights, bundles and the report of a small run


def default_out(config: Config) -> str:
    """Returns the run folder's default name."""
    return f"runs/{config.experiment}-{config.preset}-seed{config.seed}"


def weights_path(out: pathlib.Path, id: str, seed: int | None = None) -> pathlib.Path:
    """Returns where a member's trained weights are: they are the first file of its bundle.

    Those of a further seed are beside the figures of the member's robustness.
    """
    if seed is None:
        return out / MODELS / id / "weights.safetensors"
    return out / ROBUSTNESS / f"{unit_name(id, seed)}.safetensors"


def check(out: pathlib.Path) -> None:
    """Raises InputError if the folder cannot be a run's; makes and writes nothing."""
    with _refusing(out):
        if out.exists() and not out.is_dir():
            raise InputError(f"out (={out}) must be a folder, but it is a file: name another")
        if out.exists() and not (out / CONFIG).exists() and any(map(_is_foreign, out.iterdir())):
            raise InputError(
                f"out (={out}) holds files but no {CONFIG}: name a new folder, or a run to resume"
            )
        nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        if not os.access(nearest, os.W_OK):
            raise PermissionError(errno.EACCES, "")


def claim(out: pathlib.Path, *, needed_bytes: int) -> None:
    """Makes the folder, or raises InputError if it cannot hold a run."""
    check(out)
    made = [path for path in (out, *out.absolute().parents) if not path.exists()]
    try:
        with _refusing(out):
            out.mkdir(parents=True, exist_ok=True)
            probe = out / ".writable"
            try:
                probe.write_bytes(b"")
            finally:
                probe.unlink(missing_ok=True)
            free = shutil.disk_usage(out).free
        if free < needed_bytes + SPARE_BYTES:
            raise InputError(
                f"out (={out}) is on a disk with {free >> 20} MiB left, a run needs about "
                f"{(needed_bytes + SPARE_BYTES) >> 20} MiB: free some, or name another disk"
            )
    except InputError:
        for path in made:  # the innermost first
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _refusing(out: pathlib.Path) -> Iterator[None]:
    """Turns what the file system refuses into one clear line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"out (={out}) cannot be written ({_why(error)}): name another") from None


def _is_foreign(path: pathlib.Path) -> bool:
    """Whether a file is not what a run that was killed at its very start leaves behind."""
    hidden = path.name.startswith(".")
    return not (hidden or (path.name == "ledger.jsonl" and path.stat().st_size == 0))


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def begin(out: pathlib.Path, document: dict[str, Any], config: Config) -> dict[str, Any]:
    """Writes config.json, or compares with the one that is there and returns the new one.

    Raises:
      InputError: the folder's run differs in something that changes results.
    """
    path = out / CONFIG
    for name in (CONFIG, FRONT):
        remove_leftovers(out / name)
    if path.exists():
        old = load_search(out)
        if not _is_whole(old):
            raise InputError(f"{path} is damaged: {RESTORE}")
        _compare(old, document, config)
        if config.accept_platform and differences(old, document, ("versions", "platform")):
            old |= {"accepted_platforms": [*old.get("accepted_platforms", []), _platform(old)]}
        document = document | _what_stays(old)
        before = old["config"]["search"]["generations"]
        if config.search.generations > before and (out / FRONT).exists():
            _set_aside(out / FRONT)  # the front of the shorter search
    write_document(path, document)
    make_folders(out)
    return document


def _what_stays(old: dict[str, Any]) -> dict[str, Any]:
    """Returns what of an older config.json holds for as long as the run's ledger does."""
    kept = {}
    if accepted := old.get("accepted_platforms"):
        reason = "continued on another platform or with other versions"
        kept |= {"accepted_platforms": accepted, "reproducible": False, "reason": reason}
    if changes := old.get("program_changes"):  # some of its candidates are another program's
        kept |= {"program_changes": changes, "reproducible": False, "reason": changes[-1]}
    return kept


def make_folders(out: pathlib.Path) -> None:
    """Makes the folders that a run writes into; nothing else makes them, see `files.replacing`."""
    for name in (CHECKPOINTS, MODELS):
        with storing(out / name):
            (out / name).mkdir(exist_ok=True)


def _is_whole(old: dict[str, Any]) -> bool:
    """Whether what is kept of an older config.json is of the kinds that are written there."""
    lists = (old.get(name, []) for name in ("accepted_platforms", "program_changes"))
    return (
        all(isinstance(kept, list) for kept in lists)
        and all(isinstance(old.get(name), dict) for name in ("versions", "platform"))
        and {"reproducible", "reason"} <= old.keys()
    )


def check_there(out: pathlib.Path) -> None:
    """Raises StorageError if somebody has removed a run's folder, which must not come back."""
    if not out.is_dir():
        raise StorageError(f"{out} was removed while the run went on")


def program_changed(out: pathlib.Path, reason: str) -> None:
    """Writes into config.json that candidates train in another program from here on, and why."""
    changes = [*load_config(out).get("program_changes", []), reason]
    write_document(out / CONFIG, load_config(out) | {"program_changes": changes})
    not_reproducible(out, reason)


def not_reproducible(out: pathlib.Path, reason: str) -> None:
    """Writes into config.json that a run again may end otherwise, and why."""
    document = load_config(out) | {"reproducible": False, "reason": reason}
    write_document(out / CONFIG, document)


def _platform(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("versions", "platform")}


def _compare(old: dict[str, Any], new: dict[str, Any], config: Config) -> None:
    """Raises InputError with the fields that differ and change results.

    What follows from others that differ is not named beside them.
    """
    for was, now in zip(_settings(old), _settings(new), strict=True):
        # How many members there are, and what is made of them: no training that was done changes.
        free = {"final.export", "final.seeds", "final.members"}
        names = sorted((was.keys() | now.keys()) - free)
        differ = [name for name in names if was.get(name) != now.get(name)]
        before, after = was.get("search.generations"), now.get("search.generations")
        if "search.generations" in differ and isinstance(before, int) and after and after > before:
            differ.remove("search.generations")  # more generations go on from where it stood
        if differ:
            words = ", ".join(
                f"{n} (was {_words(was.get(n))}, now {_words(now.get(n))})" for n in differ
            )
            raise InputError(
                f"out holds another run: {words}; name a new --out, or ask for the same"
            )
    changed = differences(old, new, ("versions", "platform"))
    if changed and not config.accept_platform:
        raise InputError(
            f"out was begun elsewhere: {', '.join(changed)}; results would not be the same bits: "
            "name a new --out, or add --accept-platform"
        )


def _words(value: Any) -> str:
    """Returns a setting's value as a command line has it."""
    return " ".join(map(str, value)) or "nothing" if isinstance(value, list) else str(value)


def _settings(document: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Returns everything that changes results, flat, each part followed by what it may change."""
    try:
        settings = {n: v for n, v in document["config"].items() if n not in FREE_FIELDS}
        space, objectives = document["space"], document["objectives"]
        fields = {str(o["name"]): {n: v for n, v in o.items() if n != "how"} for o in objectives}
        return (
            _flatten(settings) | {"data": document["data"]["fingerprint"]},
            {"strategy": document["strategy"], "space": space["name"], "objectives": [*fields]}
            | _flatten({"space.genes": space["genes"]}),
            _flatten({"objectives": fields, "program": document["program"]}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{CONFIG} is damaged (no {error}): {RESTORE}") from None


def differences(old: dict[str, Any], new: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Returns what differs in the parts of these names of two documents, each field in words."""
    was, now = (_flatten({name: d.get(name) or {} for name in names}) for d in (old, new))
    keys = sorted(was.keys() | now.keys())
    return [f"{k} (was {was.get(k)}, now {now.get(k)})" for k in keys if was.get(k) != now.get(k)]


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def write_front(out: pathlib.Path, front: dict[str, Any]) -> dict[str, Any]:
    """Writes and returns front.json's object, with its sum.

    A file that differs, or is damaged, is kept beside it under a number.
    """
    check_there(out)
    path = out / FRONT
    if path.exists() and not holds(path, front):
        _set_aside(path)
    return write_document(path, front)


def holds(path: pathlib.Path, document: dict[str, Any]) -> bool:
    """Whether a file is whole and holds this document; its sum is its own."""
    try:
        found = load_json(path)
    except InputError:
        return False
    return isinstance(found, dict) and checksum(found) == checksum(document)


def _set_aside(path: pathlib.Path) -> None:
    """Renames `NAME.json` to the first free `NAME.NUMBER.json`."""
    number = 1
    while (kept := path.with_suffix(f".{number}.json")).exists():
        number += 1
    os.replace(path, kept)


def targets(out: pathlib.Path) -> tuple[str, ...] | None:
    """Returns the targets that cut a run's space when it began; None if there is no run yet.

    They stay, whatever targets a resumed run is given: those are for its finished front.
    """
    if not (out / CONFIG).exists():
        return None
    space = load_config(out).get("space")
    kept = space.get("targets", []) if isinstance(space, dict) else []
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise InputError(f"{out / CONFIG} is damaged (targets): {RESTORE}")
    return tuple(kept)


def read_config(out: pathlib.Path) -> Config:
    """Returns the settings of a run folder.

    Raises:
      InputError: `out` is no run folder, its config.json is damaged, or a longer training's.
    """
    document = load_search(out)
    if "config" not in document:
        raise InputError(f"{out / CONFIG} has no settings: {RESTORE}")
    return config_module.from_json(document["config"])
