"""After the search: full training of the front, one reading of the test set, export."""

import itertools
import pathlib
import shutil
import time
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from deepmaker_jax import arch as arch_module
from deepmaker_jax import robustness
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset
from deepmaker_jax.documents import ROBUSTNESS
from deepmaker_jax.errors import InputError, StorageError, one_line
from deepmaker_jax.events import Event, Exported, FinalStarted, Measured, Note
from deepmaker_jax.evolve.hypervolume import subset_beside
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.execute.pool import pooled
from deepmaker_jax.execute.unit import longest_first
from deepmaker_jax.export.manifest import portable_entries
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.export.worker import Made, do_export
from deepmaker_jax.files import remove_leftovers, save_arrays, sha256
from deepmaker_jax.ledger import WEIGHTS, Record, unit_name
from deepmaker_jax.measurement import Search, ledger_record
from deepmaker_jax.objective import COST_HOW, ERROR_HOW, scaled
from deepmaker_jax.run_folder import check_there, weights_path
from deepmaker_jax.search import checkpoints
from deepmaker_jax.tally import objective_values

CALIBRATION_STREAM = 3 << 32  # beside the sampler's and the epochs' (1, 2)


def choose_members(s: Search, records: list[Record]) -> list[Record]:
    """Returns at most `final.members` of the front: the most accurate, the rest by hypervolume.

    Args:
      s: the search, whose first objective is the error.
      records: the front by error, then size, then id; what is returned stays so.
    """
    values = np.array([objective_values(record, s.objectives) for record in records])
    table = scaled(values.reshape(-1, len(s.objectives)), s.objectives)
    chosen = subset_beside(table, num=s.config.final.members)
    return [records[i] for i in sorted(chosen)]


def no_longer_members(s: Search, members: list[Record]) -> list[str]:
    """Returns the ids of networks that were trained in full before and are not among `members`."""
    known = {record["id"]: None for record in s.ledger if record["fidelity"]["name"] == "final"}
    return [id for id in known if id not in {record["id"] for record in members}]


def has_weights(path: pathlib.Path, arch: ArchSpec, record: Record) -> bool:
    """Whether a network's trained weights are there and whole; others are trained again.

    Args:
      path: of their file.
      arch: the network's.
      record: of the training that they are of, which names their sum if it ended well.
    """
    try:
        found, _ = load_weights(path)
    except InputError:
        return False
    return found == arch and record.get(WEIGHTS) == sha256(path)


def train_members(
    s: Search, members: list[Record], out: pathlib.Path, num_images: int
) -> Generator[Event, None, dict[str, Record]]:
    """Trains members from scratch on all training images, each with every seed.

    A training whose measurement and weights are there is not done again; one
    that was interrupted goes on from its last epoch.

    Returns:
      The final records by `unit_name`: by id alone those of the run's own seed.
    """
    num_epochs = s.config.final.epochs
    fidelity = s.fidelity | {"name": "final", "epochs": num_epochs, "images": num_images}
    further = robustness.further_seeds(s.config)
    wanted: dict[str, tuple[Record, Record]] = {}  # (search's record, fidelity) by name
    waiting: list[Unit] = []
    done: dict[str, Record] = {}
    for seed, record in itertools.product((None, *further), members):
        id, name = record["id"], unit_name(record["id"], seed)
        wanted[name] = record, fidelity if seed is None else fidelity | {"seed": seed}
        known, weights = s.ledger.find(id, wanted[name][1]), weights_path(out, id, seed)
        arch = arch_module.from_json(record["arch"])
        if known and (known["status"] == "diverged" or has_weights(weights, arch, known)):
            done[name] = known
            continue
        remove_leftovers(weights)
        waiting.append(
            Unit(
                name, arch, "final", num_epochs, _checkpoint(out, name), weights=weights, seed=seed
            )
        )
    ids = [record["id"] for record in members]
    yield FinalStarted(ids, num_epochs, 1 + len(further), num_known=len(done))
    for unit in longest_first(waiting):
        s.executor.submit(unit)
    for result in s.executor.results():
        if not isinstance(result, Outcome):
            yield result
            continue
        record, of = wanted[result.id]
        copied = ("generation", "genome", "arch", "parents", "costs")
        sizes = {n: v for n, v in record["objectives"].items() if n in record["costs"]}
        unmeasured = dict.fromkeys(record["objectives"].keys() - sizes.keys())
        final = ledger_record(
            record["id"],
            fidelity=of,
            objectives=sizes | unmeasured,
            outcome=result,
            **{name: record[name] for name in copied},
        )
        if result.status == "ok":
            seed = of.get("seed")
            final[WEIGHTS] = sha256(weights_path(out, record["id"], seed))
        # Weights that were lost are trained again to the same bits: a good record stands.
        known = s.ledger.find(record["id"], of)
        if known is None or known["status"] != "ok" or known.get(WEIGHTS) != final.get(WEIGHTS):
            known = s.ledger.append(final)
        done[result.id] = known
        _checkpoint(out, result.id).unlink(missing_ok=True)
        yield Measured("final", known, len(done), len(wanted))
    return done


def _checkpoint(out: pathlib.Path, name: str) -> pathlib.Path:
    return checkpoints(out) / "final" / f"{name}.msgpack"


def calibration_rows(labels: np.ndarray, *, num: int, seed: int) -> np.ndarray:
    """Returns up to `num` rows of the training set, drawn by `seed`, sorted."""
    rng = np.random.Generator(np.random.Philox(key=[seed, CALIBRATION_STREAM]))
    return np.sort(rng.permutation(len(labels))[:num])


def export_members(
    networks: Mapping[str, Mapping[int, pathlib.Path]],
    out: pathlib.Path,
    data: Dataset,
    *,
    config: Config,
    num_workers: int,
) -> Generator[Event, None, dict[str, Made]]:
    """Writes and runs the bundles, measures robustness; reads the test set, once.

    Args:
      networks: by member's id, {seed: weights} of what is measured on corrupted images.
      out: the run folder, where the members' weights are.
      data: calibration and test images.
      config: the settings.
      num_workers: members at once.

    Returns:
      What was made, by id; a member whose export failed as a whole has the manifest
      {"files": {}, "reason": ...}, and the others' bundles stand.
    """
    if not networks:
        return {}
    rows = calibration_rows(
        data.train_labels, num=config.final.calibration_images, seed=config.seed
    )
    folder = checkpoints(out) / "export"
    save_arrays(
        folder,
        calibration_images=data.train_images[rows],
        test_images=data.test_images,
        test_labels=data.test_labels,
    )
    began = time.perf_counter()
    found: dict[str, Made] = {}
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
                {str(seed): str(path) for seed, path in weights.items()},
                str(out / ROBUSTNESS / f"{id}.json"),
            )
            for id, weights in networks.items()
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
                reason = f"not exported: {one_line(result)}"
                found[id] = Made({"files": {}, "reason": reason})
                yield Note(f"member {id} was {reason}; run again to retry")
                continue
            found[id] = result
            if result.problem is not None:
                yield Note(f"member {id}: no robustness ({result.problem}); run again to retry")
            yield Exported(id, len(found), len(networks), time.perf_counter() - began)
    finally:
        jobs.close()
        shutil.rmtree(folder, ignore_errors=True)
    for id, made in sorted(found.items()):
        for name, file in sorted(portable_entries(made.manifest).items()):
            if file["status"] != "ok":
                yield Note(f"member {id}: {name} is {file['status']}: {file['reason']}")
    return found


def front_document(
    s: Search,
    members: list[Record],
    finals: dict[str, Record],
    made: dict[str, Made],
) -> dict[str, Any]:
    """Returns front.json's object: nothing in it depends on time or place.

    Args:
      s: the search.
      members: the search's records of the networks that were chosen.
      finals: records of the final trainings, by `unit_name`.
      made: by id, what was exported.
    """
    return {
        "objectives": [
            {"name": o.name, "unit": o.unit, "scale": o.scale}
            | ({"how": o.how} if o.how not in (COST_HOW, ERROR_HOW) else {})
            for o in s.objectives
        ],
        "members": [
            _member(s.config, record, finals, made.get(record["id"], Made({"files": {}})))
            for record in members
        ],
    }


def _member(
    config: Config, record: Record, finals: dict[str, Record], made: Made
) -> dict[str, Any]:
    id, manifest = record["id"], made.manifest
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
        "robustness": robustness.document(id, config, finals, made.figures),
        "bundle": f"models/{id}" if "reference.npz" in files else None,
        "status": "failed" if "reason" in manifest else finals[id]["status"],
        "reason": manifest.get("reason", finals[id]["reason"]),
    }
