"""A bundle's manifest: what stands in it, and whether the files are those it lists."""

import errno
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from deepmaker_jax import arch as architecture
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import SUM, checksum, is_inside, load_json, sha256, write_document

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
REFERENCE = "reference.npz"
STATUSES = ("ok", "unsupported", "failed")  # the worst last
REMAKE = "run the command that made it again"
ENTRY_KEYS = (
    "status", "reason", "bytes", "sha256", "tool", "parity", "accuracy", "cost",
)  # fmt: skip
Manifest = dict[str, Any]


def made_entry(path: pathlib.Path, *, tool: str) -> Manifest:
    """Returns the entry of a file that exists, as far as the file alone says it."""
    entry: Manifest = dict.fromkeys(ENTRY_KEYS)
    size, digest = path.stat().st_size, sha256(path)
    return entry | {"status": "ok", "bytes": size, "sha256": digest, "tool": tool}


def missing_entry(status: str, reason: str) -> Manifest:
    """Returns the entry of a file that could not be made."""
    return dict.fromkeys(ENTRY_KEYS) | {"status": status, "reason": reason}


def write_manifest(bundle: pathlib.Path, manifest: Manifest) -> Manifest:
    """Writes a bundle's manifest and returns it as it will be read.

    Its sum leaves the costs' values out, as measured ones differ where all else is the same;
    each cost has a sum of its own.
    """
    files = {
        name: entry | {"cost": _with_sums(entry.get("cost"))}
        for name, entry in manifest["files"].items()
    }
    return write_document(bundle / MANIFEST, manifest | {"files": files}, sum_of=_sum)


def _with_sums(costs: Any) -> Any:
    if not isinstance(costs, dict):  # None, or what somebody else wrote there
        return costs
    return {
        name: cost | {SUM: checksum(cost)} if isinstance(cost, dict) else cost
        for name, cost in costs.items()
    }


def _sum(manifest: Manifest) -> str:
    files = manifest.get("files")
    if not isinstance(files, dict):
        return checksum(manifest)
    bare = {
        name: entry | {"cost": sorted(entry["cost"])}
        if isinstance(entry, dict) and isinstance(entry.get("cost"), dict)
        else entry
        for name, entry in files.items()
    }
    return checksum(manifest | {"files": bare})


def load_manifest(bundle: pathlib.Path) -> Any:
    """Returns what a bundle's manifest holds, whatever that is.

    Raises:
      InputError: it is missing, not JSON, or does not match its sums.
    """
    manifest = load_json(bundle / MANIFEST, remedy=REMAKE, sum_of=_sum)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    for name, entry in files.items() if isinstance(files, dict) else ():
        costs = entry.get("cost") if isinstance(entry, dict) else None
        for cost in costs.values() if isinstance(costs, dict) else ():
            if isinstance(cost, dict) and SUM in cost and cost[SUM] != checksum(cost):
                raise InputError(
                    f"{bundle / MANIFEST}: a cost of {name} does not match its sum: {REMAKE}"
                )
    return manifest


def read_manifest(bundle: pathlib.Path) -> Manifest:
    """Returns a bundle's manifest; its files are not looked at.

    Raises:
      InputError: it is missing, damaged or not a manifest.
    """
    manifest = read_entries(bundle)
    try:
        architecture.from_json(manifest.get("arch"))
    except InputError as error:
        raise InputError(f"{bundle / MANIFEST} is damaged ({error}): {REMAKE}") from None
    return manifest


def read_entries(bundle: pathlib.Path) -> Manifest:
    """Returns a bundle's manifest, as `read_manifest`, whatever its architecture is."""
    source = bundle / MANIFEST
    manifest = load_manifest(bundle)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("id"), str):
        raise InputError(f"{source} is not a bundle's manifest: {REMAKE}")
    for name, entry in files.items():
        if not is_inside(name):
            raise InputError(f"{source} names {name!r}, which is outside of the bundle")
        if not isinstance(entry, dict) or entry.get("status") not in STATUSES:
            raise InputError(f"{source}: {name} has no status: {REMAKE}")
    targets = manifest.get("targets", {})
    if not isinstance(targets, dict) or not all(map(_is_target, targets.values())):
        raise InputError(f"{source} says nothing clear of its targets: {REMAKE}")
    return manifest


def check_owner(bundle: pathlib.Path, manifest: Manifest) -> Manifest:
    """Returns the manifest of a run's member, whose folder has its id.

    Raises:
      InputError: it is another network's.
    """
    if manifest["id"] != bundle.name:
        raise InputError(f"{bundle / MANIFEST} is that of {manifest['id']!r}: {REMAKE}")
    return manifest


def _is_target(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("tools", {}), dict)


def present(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yields (path, entry) of the files that must be there, in the order of their paths."""
    for name, entry in sorted(manifest["files"].items()):
        if entry["status"] == "ok" or entry.get("sha256") is not None:
            yield name, entry


def own_entries(manifest: Manifest, target: str) -> dict[str, Manifest]:
    """Returns {path: entry} of a target: its folder's files, or the folder if it failed whole."""
    files = manifest["files"].items()
    return {name: entry for name, entry in files if name.split("/")[0] == target}


def portable_entries(manifest: Manifest) -> dict[str, Manifest]:
    """Returns {path: entry} of the files beside the manifest, which every target is made from."""
    return {name: entry for name, entry in manifest["files"].items() if "/" not in name}


class Standing(NamedTuple):
    """Where a bundle stands with one target.

    Attributes:
      status: failed if any of its files is, else ok if a network that agrees ran, else unsupported.
      reason: of the first file that is worst off; None if all are ok.
      num_ok, num_files: its entries.
      entries: {path: entry} of the target, the manifest's own.
    """

    status: str
    reason: str | None
    num_ok: int
    num_files: int
    entries: dict[str, Manifest]


def standing(manifest: Manifest, target: str) -> Standing:
    """Returns what a manifest says of a target: of the files in its folder."""
    entries = dict(sorted(own_entries(manifest, target).items()))
    statuses = [entry["status"] for entry in entries.values()]
    worst = max(statuses, key=STATUSES.index, default="unsupported")
    reasons = [
        f"{name}: {entry.get('reason')}"
        for name, entry in entries.items()
        if entry["status"] == worst != "ok"
    ]
    ran = any(entry["status"] == "ok" and entry.get("parity") for entry in entries.values())
    status = "failed" if worst == "failed" else "ok" if ran else "unsupported"
    num_ok = statuses.count("ok")
    return Standing(status, reasons[0] if reasons else None, num_ok, len(entries), entries)


def check_sum(
    path: pathlib.Path,
    entry: Manifest,
    *,
    remedy: str = REMAKE,
    listed_in: str = MANIFEST,
) -> None:
    """Raises InputError, with the remedy, unless the file is the one that its entry is about."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "it is no plain file")
        same = path.stat().st_size == entry.get("bytes") and sha256(path) == entry.get("sha256")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    if not same:
        raise InputError(f"{path} does not match its sum in {listed_in}: {remedy}")


def read_bundle(path: pathlib.Path) -> Manifest:
    """Returns a bundle's manifest after comparing every file with it.

    Raises:
      InputError: the manifest is missing, damaged or not a manifest, or a file
        is missing or does not match its sum.
    """
    manifest = read_manifest(path)
    for name, entry in present(manifest):
        check_sum(path / name, entry)
    return manifest
