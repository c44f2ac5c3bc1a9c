"""Lists what every target made of every member of a deployed front.

    python -m benchmarks.front_on_targets RUN [--out FILE.json]

RUN is a run that `deepmaker deploy` is done with; nothing is run here, the manifests say it all.
"""

import argparse
import pathlib
from typing import Any

from benchmarks.record import publish
from deepmaker_jax.backends import BACKENDS
from deepmaker_jax.export.manifest import Standing, read_bundle, standing
from deepmaker_jax.files import load_json
from deepmaker_jax.run_folder import FRONT

MEMBER = ("id", "params", "macs", "int8_bytes", "test_accuracy", "int8_accuracy")


def summary(found: Standing) -> dict[str, Any]:
    """Returns a target's status, and of each file that was compared with JAX the outcome."""
    compared = {
        path: {
            "images": entry["parity"]["images"],
            "top1_agreement": entry["parity"]["top1_agreement"],
            "costs": {n: [c["value"], c["unit"]] for n, c in (entry["cost"] or {}).items()},
        }
        for path, entry in found.entries.items()
        if entry["parity"]
    }
    return {"status": found.status, "reason": found.reason, "compared": compared}


def main() -> None:
    """Reads and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for member in load_json(args.run / FRONT)["members"]:
        manifest = read_bundle(args.run / member["bundle"])
        targets = {name: summary(standing(manifest, name)) for name in BACKENDS}
        rows.append({name: member[name] for name in MEMBER} | {"targets": targets})
        print(member["id"], *(f"{name} {t['status']}" for name, t in targets.items()))
    everywhere = sum(all(t["status"] == "ok" for t in r["targets"].values()) for r in rows)
    publish({"members": len(rows), "ok_on_every_target": everywhere, "networks": rows}, args.out)


if __name__ == "__main__":
    main()
