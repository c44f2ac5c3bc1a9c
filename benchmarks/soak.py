"""A long run with a stand-in trainer: memory, time a generation, the ledger, and the way back.

    python -m benchmarks.soak [--evaluations 20000] --out benchmarks/results/soak.json

A population of 50 evolves for as many generations as the evaluations need, then the search is
opened again on its whole ledger, which nothing is paid for. Printed for tenths of the run:
resident memory, seconds a generation, bytes of the ledger a measurement.
"""

import argparse
import pathlib
import resource
import tempfile
import time
from typing import Any

from benchmarks.cluster import Cluster
from benchmarks.many_workers import MODES, prepare
from benchmarks.record import publish
from deepmaker_jax.events import GenerationDone

POPULATION = 50
PARTS = 10


def resident_bytes() -> int:
    """Returns what this process holds in memory now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def soak(path: pathlib.Path, mode: str, generations: int) -> list[dict[str, Any]]:
    """Runs a search and returns what it needed in each tenth of its generations."""
    cluster = Cluster(10, lambda _: 1.0)
    s = prepare(cluster, path, population=POPULATION, generations=generations)
    rows, began, last = [], time.perf_counter(), 0
    for event in MODES[mode](s):
        done = isinstance(event, GenerationDone) and event.generation + 1
        if done and done * PARTS // generations > last * PARTS // generations:
            now = time.perf_counter()
            row = {
                "generations": done,
                "resident_mib": round(resident_bytes() / 2**20, 1),
                "seconds_per_generation": round((now - began) / (done - last), 4),
                "ledger_bytes_per_measurement": round(path.stat().st_size / len(s.ledger), 1),
                "measurements": len(s.ledger),
            }
            rows.append(row)
            began, last = now, done
    s.ledger.close()
    return rows


def main() -> None:
    """Soaks and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    generations, found = args.evaluations // POPULATION, {}
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "ledger.jsonl"
            rows = soak(path, mode, generations)
            size, began = path.stat().st_size, time.perf_counter()
            soak(path, mode, generations)
            again = time.perf_counter() - began
            if path.stat().st_size != size:
                raise RuntimeError(f"{mode}: what the ledger held was paid again")
        found[mode] = {"parts": rows, "seconds_to_resume": round(again, 2)}
        for row in rows:
            print(mode, row, flush=True)
    publish(found, args.out)


if __name__ == "__main__":
    main()
