"""Measures what each target takes for one member: seconds of the clock and of the processor.

    python -m benchmarks.target_seconds RUN [--members 1] [--out FILE.json]

The most accurate members of RUN are deployed in a copy, one target after another, one
process at once. Processor time is that of the backend's process and of all that it starts; beside
other work on the machine it says more than the clock.
"""

import argparse
import pathlib
import resource
import shutil
import tempfile

from benchmarks.record import publish
from deepmaker_jax.backends import BACKENDS
from deepmaker_jax.deploy import deploy
from deepmaker_jax.files import load_json
from deepmaker_jax.run_folder import FRONT


def processor_seconds() -> float:
    """Returns the processor time of this process's children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def without_targets(run: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies a run's front and bundles, without what was made for targets."""
    shutil.copy(run / FRONT, copy / FRONT)
    shutil.copytree(run / "models", copy / "models", ignore=shutil.ignore_patterns(*BACKENDS))


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        without_targets(args.run, copy)
        for name, backend in BACKENDS.items():
            before = processor_seconds()
            events = list(deploy(copy, members=args.members, targets=[name], num_workers=1))
            spent = processor_seconds() - before
            rows.append(
                {
                    "target": name,
                    "light": backend.light,
                    "status": sorted({event.status for event in events}),
                    "clock_seconds": round(sum(e.seconds for e in events) / len(events), 1),
                    "processor_seconds": round(spent / len(events), 1),
                }
            )
            print(rows[-1], flush=True)
    front = load_json(args.run / FRONT)["members"][: args.members]
    networks = [{name: member[name] for name in ("id", "params", "macs")} for member in front]
    publish({"networks": networks, "seconds_per_member": rows}, args.out)


if __name__ == "__main__":
    main()
