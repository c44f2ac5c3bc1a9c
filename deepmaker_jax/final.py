"""After the search: full training of the front, one reading of the test set, export."""

import pathlib
import shutil
import time
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from deepmaker_jax import arch as arch_module
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset
from deepmaker_jax.errors import InputError, StorageError, one_line
from deepmaker_jax.events import Event, Exported, FinalStarted, Measured, Note
from deepmaker_jax.evolve.hypervolume import greedy_subset
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.execute.pool import pooled
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.export.worker import do_export
from deepmaker_jax.files import replacing
from deepmaker_jax.ledger import Record
from deepmaker_jax.objective import scaled
from deepmaker_jax.run_folder import MODELS, check_there
from deepmaker_jax.search import Search, checkpoints, ledger_record
from deepmaker_jax.tally import objective_values

CALIBRATION_STREAM = 3 << 32  # beside the sampler's and the epochs' (1, 2)


def choose_members(s: Search, records: list[Record]) -> list[Record]:
    """Returns at most `final.members` of the front: the most accurate, the rest by hypervolume.

    Args:
      s: the search, whose first objective is the error.
      records: the front by error, then size, then id; what is returned stays so.


    With few members for many sizes, greedy choice alone may pass over the most
    accurate network, which is what a size limit is there for.
    """
    if not records:
        return []
    values = np.array([objective_values(record, s.objectives) for record in records])
    table, num = scaled(values, s.objectives), s.config.final.members
    chosen = greedy_subset(table, num=num, first=[0])
    return [records[i] for i in sorted(chosen)]


def weights_path(out: pathlib.Path, id: str) -> pathlib.Path:
    """Returns where a member's trained weights are: they are the first file of its bundle."""
    return out / MODELS / id / "weights.safetensors"


def has_weights(out: pathlib.Path, id: str) -> bool:
    """Whether a member's weights are there and whole; damaged ones are trained again."""
    try:
        load_weights(weights_path(out, id))
    except InputError:
        return False
    return True


def train_members(
    s: Search, members: list[Record], out: pathlib.Path, num_images: int
) -> Generator[Event, None, dict[str, Record]]:
    """Trains members from scratch on all training images; returns their final records by id.

    A member whose measurement and weights are there is not trained again; one
    that was interrupted goes on from its last epoch.
    """
    num_epochs = s.config.final.epochs
    fidelity = s.fidelity | {"name": "final", "epochs": num_epochs, "images": num_images}
    yield FinalStarted([record["id"] for record in members], num_epochs)
    by_id = {record["id"]: record for record in members}
    waiting: list[Unit] = []
    done: dict[str, Record] = {}
    for id, record in by_id.items():
        known = s.ledger.find(id, fidelity)
        if known and (known["status"] == "diverged" or has_weights(out, id)):
            done[id] = known
            continue
        arch = arch_module.from_json(record["arch"])
        checkpoint = checkpoints(out) / "final" / f"{id}.msgpack"
        weights = weights_path(out, id)
        waiting.append(Unit(id, arch, "final", num_epochs, checkpoint, weights=weights))
    # The longest first, so that no worker is left alone with it at the end.
    for unit in sorted(waiting, key=lambda unit: -cost(unit.arch).macs):
        s.executor.submit(unit)
    for result in s.executor.results():
        if not isinstance(result, Outcome):
            yield result
            continue
        record = by_id[result.id]
        copied = ("generation", "genome", "arch", "parents", "costs")
        sizes = {n: v for n, v in record["objectives"].items() if n in record["costs"]}
        unmeasured = dict.fromkeys(record["objectives"].keys() - sizes.keys())
        final = ledger_record(
            result.id,
            fidelity=fidelity,
            objectives=sizes | unmeasured,
            outcome=result,
            **{name: record[name] for name in copied},
        )
        # Weights that were lost are trained again to the same bits: a good record stands.
        known = s.ledger.find(result.id, fidelity)
        if known is None or known["status"] != "ok":
            known = s.ledger.append(final)
        done[result.id] = known
        (checkpoints(out) / "final" / f"{result.id}.msgpack").unlink(missing_ok=True)
        yield Measured("final", done[result.id], len(done), len(members))
    return {record["id"]: done[record["id"]] for record in members}


def calibration_rows(labels: np.ndarray, *, num: int, seed: int) -> np.ndarray:
    """Returns up to `num` rows of the training set, drawn by `seed`, sorted."""
    rng = np.random.Generator(np.random.Philox(key=[seed, CALIBRATION_STREAM]))
    return np.sort(rng.permutation(len(labels))[:num])


def export_members(
    ids: Sequence[str], out: pathlib.Path, data: Dataset, *, config: Config, num_workers: int
) -> Generator[Event, None, dict[str, dict[str, Any]]]:
    """Writes and runs the bundles; reads the test set, once.

    Returns the manifests by id; a member whose export failed as a whole has
    {"files": {}, "reason": ...} instead, and the others' bundles stand.
    """
    if not ids:
        return {}
    rows = calibration_rows(
        data.train_labels, num=config.final.calibration_images, seed=config.seed
    )
    shared = {
        "calibration_images": data.train_images[rows],
        "test_images": data.test_images,
        "test_labels": data.test_labels,
    }
    folder = checkpoints(out) / "export"
    for name, value in shared.items():
        with replacing(folder / f"{name}.npy") as path, open(path, "wb") as file:
            np.save(file, value)
    began = time.perf_counter()
    manifests: dict[str, dict[str, Any]] = {}
    # The accelerator's memory is this process's, and parity is to be the same everywhere.
    jobs = pooled(
        do_export,
        {
            id: (
                str(folder),
                id,
                str(weights_path(out, id).parent),
                config.final.export,
                config.seed,
            )
            for id in ids
        },
        num_workers=num_workers,
        JAX_PLATFORMS="cpu",
    )
    try:
        for id, result in jobs:
            if isinstance(result, StorageError):
                raise result
            check_there(out)
            if isinstance(result, BaseException):
                result = {"files": {}, "reason": f"not exported: {one_line(result)}"}
                manifests[id] = result
                yield Note(f"member {id} was {result['reason']}; run again to retry")
                continue
            manifests[id] = result
            yield Exported(id, len(manifests), len(ids), time.perf_counter() - began)
    finally:
        jobs.close()
        shutil.rmtree(folder, ignore_errors=True)
    for id, manifest in sorted(manifests.items()):
        for name, file in sorted(manifest["files"].items()):
            if file["status"] != "ok":
                yield Note(f"member {id}: {name} is {file['status']}: {file['reason']}")
    return manifests


def front_document(
    s: Search, members: list[Record], finals: dict[str, Record], manifests: dict[str, Any]
) -> dict[str, Any]:
    """Returns front.json's object: nothing in it depends on time or place."""
    return {
        "objectives": [
            {"name": o.name, "unit": o.unit, "scale": o.scale}
            | ({"how": o.how} if o.timed else {})  # what a clock says needs its conditions
            for o in s.objectives
        ],
        "members": [_member(record, finals, manifests) for record in members],
    }


def _member(record: Record, finals: dict[str, Record], manifests: dict[str, Any]) -> dict[str, Any]:
    id = record["id"]
    manifest = manifests.get(id, {"files": {}})
    files = manifest["files"]
    weights, int8 = files.get("weights.safetensors", {}), files.get("model_int8.tflite", {})
    costs = cost(arch_module.from_json(record["arch"]))
    return {
        "id": id,
        "genome": record["genome"],
        "arch": record["arch"],
        "objectives": record["objectives"],
        "params": costs.params,
        "macs": costs.macs,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "arena_bytes": costs.arena_bytes,
        "ethos_u_sram_bytes": costs.ethos_u_sram_bytes,
        "flash_bytes": costs.flash_bytes,
        "val_accuracy": record["measured"]["val_accuracy"],
        "test_accuracy": weights.get("accuracy"),
        "int8_bytes": int8.get("bytes"),
        "int8_accuracy": int8.get("accuracy"),
        "bundle": f"models/{id}" if "reference.npz" in files else None,
        "status": "failed" if "reason" in manifest else finals[id]["status"],
        "reason": manifest.get("reason", finals[id]["reason"]),
    }
