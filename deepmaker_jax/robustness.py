"""How much of a front's accuracy lasts: with other seeds, under corruptions, after int8.

Measured on the test images once front and weights are frozen, beside the bundles: a
folder of the run holds the weights of further seeds, and each member's figures.
"""

import pathlib
import shutil
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from deepmaker_jax.config import Config
from deepmaker_jax.data import Dataset
from deepmaker_jax.errors import StorageError, one_line
from deepmaker_jax.events import Event, Note, Tested
from deepmaker_jax.execute.pool import pooled
from deepmaker_jax.export.worker import do_measure
from deepmaker_jax.files import save_arrays
from deepmaker_jax.ledger import Record, unit_name
from deepmaker_jax.run_folder import CHECKPOINTS, ROBUSTNESS, check_there, weights_path

LAST_SEED = 2**31 - 1


def further_seeds(config: Config) -> list[int]:
    """Returns the seeds that members are trained with beside the run's own."""
    return [(config.seed + i) % (LAST_SEED + 1) for i in range(1, config.final.seeds)]


def measure_members(
    ids: Sequence[str],
    out: pathlib.Path,
    data: Dataset,
    *,
    config: Config,
    finals: Mapping[str, Record],
    manifests: Mapping[str, dict[str, Any]],
    num_workers: int,
) -> Generator[Event, None, dict[str, dict[str, Any] | None]]:
    """Measures members on test images, clean and corrupted; returns their robustness by id.

    Args:
      ids: members whose weights of the run's own seed are there.
      out: the run folder.
      data: its test images are read, and nothing else.
      config: the settings.
      finals: records of the final trainings, by `unit_name`.
      manifests: of the bundles, by id.
      num_workers: members at once.

    Returns:
      Each member's object in front.json; None where measuring failed, which a note tells.
    """
    if not ids:
        return {}
    folder = out / CHECKPOINTS / ROBUSTNESS
    for left in (out / ROBUSTNESS).glob(".*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    save_arrays(folder, test_images=data.test_images, test_labels=data.test_labels)
    jobs = {}
    for id in ids:
        weights = {str(config.seed): str(weights_path(out, id))}
        for seed in further_seeds(config):
            if finals[unit_name(id, seed)]["status"] == "ok":
                weights[str(seed)] = str(weights_path(out, id, seed))
        int8 = manifests[id]["files"].get("model_int8.tflite", {"status": None})
        file = str(out / "models" / id / "model_int8.tflite") if int8["status"] == "ok" else None
        jobs[id] = (str(folder), weights, file, str(out / ROBUSTNESS / f"{id}.json"))
    began, found = time.perf_counter(), dict[str, dict[str, Any] | None]()
    results = pooled(do_measure, jobs, num_workers=num_workers, JAX_PLATFORMS="cpu")
    try:
        for id, result in results:
            if isinstance(result, StorageError):
                raise result
            check_there(out)
            if isinstance(result, BaseException):
                found[id] = None
                reason = one_line(result)
                yield Note(f"member {id}: no robustness ({reason}); run again to retry")
                continue
            found[id] = _document(id, config, finals, result)
            yield Tested(id, len(found), len(ids), time.perf_counter() - began)
    finally:
        results.close()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _document(
    id: str, config: Config, finals: Mapping[str, Record], measured: dict[str, Any]
) -> dict[str, Any]:
    """Returns a member's `robustness` in front.json."""
    networks, trained = measured["networks"], []
    for seed in (config.seed, *further_seeds(config)):
        name = id if seed == config.seed else unit_name(id, seed)
        figures = networks.get(str(seed), {})
        trained.append(
            {
                "seed": seed,
                "status": finals[name]["status"],
                "test_accuracy": figures.get("accuracy"),
                "corrupted_accuracy": figures.get("corrupted_accuracy"),
            }
        )
    spreads = {
        name: _spread([each[name] for each in trained])
        for name in ("test_accuracy", "corrupted_accuracy")
    }
    own, int8 = networks[str(config.seed)], networks.get("int8")
    return {
        "seeds": {"trained": trained, **spreads},
        "corruptions": {
            "accuracy": own["corrupted_accuracy"],
            "images": measured["images"],
            "kinds": own["kinds"],
        },
        "int8": int8,
    }


def _spread(values: list[float | None]) -> dict[str, float | None]:
    """Returns mean and sample deviation; None where a training failed, or one is not enough."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"mean": None, "deviation": None}
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "deviation": deviation}
