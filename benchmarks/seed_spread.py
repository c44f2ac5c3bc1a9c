"""How far apart searches with other seeds end, and that the same seed ends with the same bytes.

    python -m benchmarks.seed_spread --work WORK --out benchmarks/results/seed_spread.json

The preset `demo` of `experiments.digits` with seeds 0 to 4, each into a folder of WORK, and seed 0
once more into another: front.json, weights and exported files of the two are compared byte for
byte. Ten minutes on two cores; goes on where it was.
"""

import argparse
import pathlib
import statistics
from typing import Any

from benchmarks import kill
from benchmarks.record import publish
from configs.digits import demo
from deepmaker_jax.config import to_json
from deepmaker_jax.report import read_run
from deepmaker_jax.report.view import front_records, hypervolume_trace
from experiments import digits

SEEDS = (0, 1, 2, 3, 4)


def preset() -> dict[str, Any]:
    """Returns the settings that the figures are of."""
    return to_json(demo())


def run(out: pathlib.Path, seed: int) -> dict[str, Any]:
    """Runs or resumes the demo; returns what its search and its front came to."""
    code = digits.main(["demo", "--seed", str(seed), "--out", str(out), "--targets", "none"])
    if code:
        raise SystemExit(code)
    view = read_run(out)
    members = (view.front or {})["members"]
    return {
        "seed": seed,
        "candidates": len(view.records),
        "hypervolume": round(float(hypervolume_trace(view).hypervolume[-1]), 4),
        "front": len(front_records(view)),
        "best_test_accuracy": max(member["test_accuracy"] for member in members),
        "smallest_params": min(member["params"] for member in members),
    }


def main() -> None:
    """Runs and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = [run(args.work / f"seed{seed}", seed) for seed in SEEDS]
    run(args.work / "again", SEEDS[0])
    first, again = (kill.files(args.work / name) for name in ("seed0", "again"))
    if differ := sorted(n for n in first.keys() | again.keys() if first.get(n) != again.get(n)):
        raise RuntimeError(f"the same seed ended with other files: {', '.join(differ)}")
    volumes = [row["hypervolume"] for row in rows]
    spread = {
        "mean": round(statistics.fmean(volumes), 4),
        "deviation": round(statistics.stdev(volumes), 4),
        "lowest": min(volumes),
        "highest": max(volumes),
    }
    publish(
        {
            "preset": preset(),
            "runs": rows,
            "hypervolume": spread,
            "files_equal_with_one_seed": len(first),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
