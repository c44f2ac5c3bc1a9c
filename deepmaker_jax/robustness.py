"""How much of a front's accuracy lasts: with other seeds, under corruptions, after int8.

Measured on the test images once front and weights are frozen (`export.robustness`); a
folder of the run holds each member's figures, and the weights of further seeds.
"""

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from deepmaker_jax.config import Config
from deepmaker_jax.ledger import Record, unit_name
from deepmaker_jax.rules import LAST_SEED
from deepmaker_jax.run_folder import weights_path


def further_seeds(config: Config) -> list[int]:
    """Returns the seeds that members are trained with beside the run's own."""
    return [(config.seed + i) % (LAST_SEED + 1) for i in range(1, config.final.seeds)]


def networks(
    id: str, out: pathlib.Path, config: Config, finals: Mapping[str, Record]
) -> dict[int, pathlib.Path]:
    """Returns {seed: weights} of a member's trainings that ended well, the run's own first.

    Args:
      id: the member's.
      out: the run folder.
      config: the settings.
      finals: records of the final trainings, by `unit_name`.
    """
    return {
        config.seed if seed is None else seed: weights_path(out, id, seed)
        for seed in (None, *further_seeds(config))
        if finals[unit_name(id, seed)]["status"] == "ok"
    }


def document(
    id: str, config: Config, finals: Mapping[str, Record], figures: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Returns a member's `robustness` in front.json; None if nothing was measured.

    Args:
      id: the member's.
      config: the settings.
      finals: records of the final trainings, by `unit_name`.
      figures: of its networks, see `export.robustness.measure`.
    """
    if figures is None:
        return None
    found, trained = figures["networks"], []
    for seed in (None, *further_seeds(config)):
        number = config.seed if seed is None else seed
        accuracies = found.get(str(number), {})
        trained.append(
            {
                "seed": number,
                "status": finals[unit_name(id, seed)]["status"],
                "test_accuracy": accuracies.get("accuracy"),
                "corrupted_accuracy": accuracies.get("corrupted_accuracy"),
            }
        )
    spreads = {
        name: _spread([each[name] for each in trained])
        for name in ("test_accuracy", "corrupted_accuracy")
    }
    own = found[str(config.seed)]
    return {
        "seeds": {"trained": trained, **spreads},
        "corruptions": {
            "accuracy": own["corrupted_accuracy"],
            "images": figures["images"],
            "kinds": own["kinds"],
        },
        "int8": found.get("int8"),
    }


def _spread(values: list[float | None]) -> dict[str, float | None]:
    """Returns mean and sample deviation; None where a training failed, or one is not enough."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"mean": None, "deviation": None}
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "deviation": deviation}
