"""A bundle's manifest: what stands in it, and whether the files are those it lists."""

import pathlib
from collections.abc import Iterator
from typing import Any

from deepmaker_jax import arch as architecture
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import load_json, sha256

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
REFERENCE = "reference.npz"
STATUSES = ("ok", "unsupported", "failed")
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


def read_manifest(bundle: pathlib.Path) -> Manifest:
    """Returns a bundle's manifest; its files are not looked at.

    Raises:
      InputError: it is missing, damaged or not a manifest.
    """
    source = bundle / MANIFEST
    manifest = load_json(source)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("id"), str):
        raise InputError(f"{source} is not a bundle's manifest: export it again")
    architecture.from_json(manifest.get("arch"))
    for name, entry in files.items():
        inside = pathlib.PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise InputError(f"{source} names {name!r}, which is outside of the bundle")
        if not isinstance(entry, dict) or entry.get("status") not in STATUSES:
            raise InputError(f"{source}: {name} has no status: export it again")
    return manifest


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


def check_sum(path: pathlib.Path, entry: Manifest) -> None:
    """Raises InputError unless the file is the one that its entry was written for."""
    try:
        same = sha256(path) == entry.get("sha256") and path.stat().st_size == entry.get("bytes")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): export it again") from None
    if not same:
        raise InputError(f"{path} does not match its sum in {MANIFEST}: export it again")


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
