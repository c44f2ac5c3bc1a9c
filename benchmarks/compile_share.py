"""The share of a run's wall clock that goes into compiling, from an empty cache of programs.

    python -m benchmarks.compile_share --data DIR --out benchmarks/results/compile_share.json

The demo of `experiments.digits` and the preset `smoke` of `experiments.cifar10`, without targets:
the seconds of compiling in the ledger, over the workers that shared them. Three minutes on two
cores.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.record import publish
from deepmaker_jax.machine import num_cores
from deepmaker_jax.report import read_run


def measure(experiment: str, preset: str, *more: str) -> dict[str, Any]:
    """Returns what a run from an empty cache took, and what of it was compiling."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        words = [sys.executable, "-m", f"experiments.{experiment}", preset, "--out", str(out)]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(folder) / "kept")}
        began = time.perf_counter()
        subprocess.run([*words, "--targets", "none", *more], env=environment, check=True)
        seconds = time.perf_counter() - began
        view = read_run(out)
    compiling = sum(
        record["seconds"].get("compile", 0.0) for record in (*view.records, *view.finals)
    )
    program = view.config["program"]
    return {
        "run": f"{experiment} {preset}",
        "programs": f"{program['strategy']}, then {program['final_strategy']}",
        "seconds": round(seconds, 1),
        "seconds_compiling_by_all_workers": round(compiling, 1),
        "workers": num_cores(),
        "share": round(compiling / num_cores() / seconds, 3),
    }


def main() -> None:
    """Runs both and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="of CIFAR-10")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    runs = [measure("digits", "demo"), measure("cifar10", "smoke", "--data", args.data)]
    publish({"runs": runs}, args.out)


if __name__ == "__main__":
    main()
