"""A maker of fake run folders: real architectures, made-up measurements, hostile names."""

import pathlib
from typing import Any

import numpy as np
import pytest

from deepmaker_jax import arch as archs
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve import pareto
from deepmaker_jax.files import write_bytes, write_json
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.spaces import deepmaker

SCRIPT = "<script>alert(1)</script>"
MARKUP = "[red]x[/red]"
ESCAPE = "\x1b]0;pwned\x07\x1b[31mred\u202e\n"
HOSTILE = f"{SCRIPT} {MARKUP} {ESCAPE} $\\frac{{1}}{{ \" onload='x' ]]> &amp;"
SEARCH = {"name": "search", "epochs": 2, "images": 1000, "side": 32}
FINAL = {"name": "final", "epochs": 20, "images": 50000, "side": 32}
ERROR = {"name": "error", "unit": "share", "scale": "linear", "ideal": 0.0, "reference": 0.9}
FLASH = {
    "name": "flash_bytes", "unit": "bytes", "scale": "log2", "ideal": 4096, "reference": 4194304,
}  # fmt: skip
LATENCY = {
    "name": "latency on <my> board", "unit": "ms", "scale": "linear", "ideal": 0.0,
    "reference": 500.0, "how": "by <hand>, with a stopwatch",
}  # fmt: skip
REFERENCES = [
    {"name": "ResNet-8 int8", "params": 78000, "accuracy": 0.8697, "bytes": 98496,
     "source": "MLPerf Tiny"},
    {"name": "ResNet-20", "params": 270000, "accuracy": 0.913, "bytes": None,
     "source": "He et al. 2016"},
]  # fmt: skip


def flash_estimate(costs: dict[str, int]) -> int:
    """Returns a plausible file size: the cost model's own constants are not under test here."""
    return costs["params"] + 12_000


def make_config(objectives: list[dict[str, Any]], generations: int = 5) -> dict[str, Any]:
    """Returns a config.json object."""
    return {
        "experiment": "cifar10",
        "preset": "small",
        "command": "python -m experiments.cifar10 small --seed 0 --data DIR --out RUN",
        "config": {"search": {"generations": generations}},
        "seed": 0,
        "program": {
            "strategy": "plain", "size_class": None, "lanes": 1, "threads": 1, "device": "cpu",
        },
        "space": {"name": "deepmaker", "genes": {}},
        "objectives": objectives,
        "versions": {"jax": "0.10.2", "python": "3.12.1"},
        "platform": {"system": "Linux", "machine": "x86_64"},
        "data": {
            "name": "cifar10", "source": "official files", "fingerprint": "d41d8cd98f00b204",
            "input_shape": [32, 32, 3], "num_classes": 10, "class_names": ["cat", "dog"],
            "num_train": 45000, "num_validation": 5000, "num_test": 10000, "test_split": "test",
        },
        "references": REFERENCES,
        "reference": None,
        "reproducible": True,
        "reason": None,
    }  # fmt: skip


def make_records(
    num: int, objectives: list[dict[str, Any]], *, population: int = 12, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns `num` search measurements; from 8 on, every eighth one went wrong."""
    space, rng = deepmaker((32, 32, 3), 10), np.random.default_rng(seed)
    records = []
    for i, genome in enumerate(space.sample(rng, num=num) if num else []):
        arch, generation = space.decode(genome), i // population
        costs = cost(arch)._asdict()
        costs["flash_bytes"] = flash_estimate(costs)
        noise = float(rng.random())
        error = 0.16 + 0.55 * (3000 / costs["params"]) ** 0.25 * 0.97**generation + 0.3 * noise**2
        values = {
            "error": round(float(error), 4),
            "flash_bytes": costs["flash_bytes"],
            "latency on <my> board": round(costs["macs"] / 1e6 + 40 * noise, 3),
        }
        status, reason = "ok", None
        if i % 8 == 7:
            status, reason = (
                ("diverged", "loss is NaN in epoch 2"),
                ("failed", f"ValueError: {HOSTILE}"),
                ("infeasible", "flash_bytes (=5000000) is over the limit"),
            )[i // 8 % 3]
        ok = status == "ok"
        records.append(
            {
                "id": space.id(genome),
                "generation": generation,
                "genome": [int(g) for g in genome],
                "arch": archs.to_json(arch),
                "parents": [],
                "fidelity": SEARCH,
                "objectives": {
                    o["name"]: values.get(o["name"], values["error"]) if ok else None
                    for o in objectives
                },
                "seconds": {"compile": 10.0, "train": 90.0, "eval": 2.0},
                "status": status,
                "reason": reason,
                "costs": costs,
                "measured": {"val_accuracy": round(1 - values["error"], 4) if ok else None},
            }
        )
    return records


def make_robustness(test: float, *, num_seeds: int) -> dict[str, Any]:
    """Returns a member's robustness: the more accurate a network, the more it loses."""
    kinds = {"gaussian_noise": 0.5, "contrast": 0.2, "jpeg_compression": 0.1, HOSTILE: 0.3}
    shares = {kind: {str(s): test - s * test * lost / 5 for s in (1, 3, 5)}
              for kind, lost in kinds.items()}  # fmt: skip
    corrupted = test - 0.6 * test**2
    trained = [
        {"seed": i, "status": "ok", "test_accuracy": test, "corrupted_accuracy": corrupted}
        for i in range(num_seeds)
    ]
    seeds = {
        name: {"mean": value, "deviation": 0.0123 if num_seeds > 1 else None}
        for name, value in (("test_accuracy", test), ("corrupted_accuracy", corrupted))
    }
    return {
        "seeds": {"trained": trained, **seeds},
        "corruptions": {"accuracy": corrupted, "images": 30_000, "kinds": shares},
        "int8": {"accuracy": test - 0.004, "corrupted_accuracy": corrupted - 0.01, "kinds": {}},
    }


def make_front(
    records: list[dict[str, Any]], objectives: list[dict[str, Any]], *, num_seeds: int = 1
) -> dict[str, Any]:
    """Returns a front.json object of every non-dominated record."""
    names = [o["name"] for o in objectives]
    good = [r for r in records if r["status"] == "ok"]
    table = np.array([[r["objectives"][n] for n in names] for r in good]).reshape(-1, len(names))
    kept = [good[i] for i in pareto.front(table)]
    kept.sort(key=lambda r: (*(r["objectives"][n] for n in names), r["id"]))
    members = []
    for i, r in enumerate(kept):
        test = round(min(0.95, r["measured"]["val_accuracy"] + 0.15 + 0.004 * (i % 3)), 4)
        members.append(
            {
                "id": r["id"], "genome": r["genome"], "arch": r["arch"],
                "objectives": r["objectives"], "params": r["costs"]["params"],
                "macs": r["costs"]["macs"],
                "peak_activation_bytes": r["costs"]["peak_activation_bytes"],
                "arena_bytes": r["costs"]["arena_bytes"],
                "val_accuracy": r["measured"]["val_accuracy"], "test_accuracy": test,
                "int8_bytes": r["costs"]["flash_bytes"] + 321, "int8_accuracy": test - 0.004,
                "bundle": None if i else f"models/{r['id']}",
                "robustness": make_robustness(test, num_seeds=num_seeds),
            }
        )  # fmt: skip
    shown = [{n: o[n] for n in ("name", "unit", "scale")} for o in objectives]
    return {"objectives": shown, "members": members}


def write_run(
    folder: pathlib.Path,
    *,
    config: dict[str, Any],
    records: list[dict[str, Any]],
    front: dict[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a run folder; with `front`, finals and one bundle's manifest as well."""
    (folder / "models").mkdir(parents=True)
    write_json(folder / "config.json", config)
    ledger = Ledger(folder / "ledger.jsonl")
    for record in records:
        ledger.append(record)
    by_id = {r["id"]: r for r in records}
    for member in (front or {}).get("members", []):
        record = by_id[member["id"]]
        values = record["objectives"] | {"error": None}
        rest = {"fidelity": FINAL, "objectives": values, "measured": {"train_loss": 0.4}}
        ledger.append(record | rest | {"seconds": {"compile": 10, "train": 4000, "eval": 0}})
    ledger.close()
    if front is not None:
        write_json(folder / "front.json", front)
        for member in front["members"]:
            write_json(folder / "robustness" / f"{member['id']}.json", {"files": {}})
        for member in front["members"][:1]:
            write_bundle(folder / "models" / member["id"], make_manifest(member))
    write_bytes(folder / "unrelated.txt", b"not ours")
    return folder


def write_bundle(bundle: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Writes a manifest, and zeros for the files that it has the sums of."""
    write_json(bundle / "manifest.json", manifest)
    for name, entry in manifest["files"].items():
        if entry["sha256"] is not None:
            (bundle / name).parent.mkdir(exist_ok=True)
            (bundle / name).write_bytes(bytes(entry["bytes"]))


def write_longer(
    run: pathlib.Path, member: dict[str, Any], *, epochs: int, ended: bool = True
) -> pathlib.Path:
    """Writes a longer training of a run's member, as `deepmaker train` does; returns its folder."""
    folder = run / "longer" / f"{member['id']}-{epochs}"
    (folder / "models" / member["id"]).mkdir(parents=True)
    write_json(folder / "config.json", {"config": {"member": member["id"], "epochs": epochs}})
    if ended:
        manifest = make_manifest(member)
        weights = manifest["files"]["model_int8.tflite"] | {"accuracy": 0.8765}
        manifest["files"]["weights.safetensors"] = weights
        write_bundle(folder / "models" / member["id"], manifest)
    return folder


def make_manifest(member: dict[str, Any]) -> dict[str, Any]:
    """Returns a manifest.json object: a good file, what targets made of it, a hostile failure."""
    good = {
        "status": "ok", "reason": None, "bytes": 53208, "sha256": "0" * 64, "tool": "tflite",
        "parity": {"max_abs_error": 0.25, "top1_agreement": 0.99, "images": 100},
        "accuracy": 0.8512, "cost": {},
    }  # fmt: skip
    source = good | {"parity": None, "accuracy": None, "cost": None, "bytes": 1024}
    bad = dict.fromkeys(good) | {"status": "failed", "reason": f"vela: {HOSTILE}"}
    built = source | {"status": "unsupported", "reason": "built; running it needs a 32-bit Arm"}
    missing = dict.fromkeys(good) | {"status": "unsupported", "reason": "pip install hls4ml"}
    micro = {"arena_bytes": {"value": 104_432, "unit": "bytes", "how": HOSTILE}}
    times = {
        f"{name}_latency_1_thread": {"value": ms, "unit": "ms", "how": f"{name}, batch 1"}
        for name, ms in (("fastest", 0.2), ("tflite_int8", 0.2), ("openvino", 1.5))
    }
    files = {
        "model_int8.tflite": good,
        f"mcu/{SCRIPT}.tflite": bad,
        "mcu/model.cc": good | {"cost": micro},
        "mcu/main.cc": source,
        "mcu/model.h": source,
        "arm/model_aarch64.vmfb": good,
        "arm/model_armv7a.vmfb": built,
        "cpu/openvino.xml": good,
        "cpu/engines.json": source | {"cost": times},
        "fpga": missing,
    }
    targets = {name: {"made_from": "0", "tools": {}} for name in ("arm", "cpu", "fpga", "mcu")}
    return {
        "id": member["id"], "arch": member["arch"], "input": {}, "files": files, "targets": targets,
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run folder of `num` measurements and returns its path."""

    def make(
        num: int = 60,
        *,
        finished: bool = True,
        objectives: list[dict[str, Any]] | None = None,
        hostile: bool = False,
        name: str = "run",
        num_seeds: int = 1,
        **changes: Any,
    ) -> pathlib.Path:
        objectives = objectives or [ERROR, FLASH]
        config = make_config(objectives) | changes
        if hostile:
            config |= {"experiment": HOSTILE, "preset": MARKUP, "command": HOSTILE}
            config |= {"reproducible": False, "reason": HOSTILE, "reference": HOSTILE}
            config["data"] |= {"class_names": [HOSTILE, "dog"], "name": HOSTILE}
            config["versions"] |= {HOSTILE: HOSTILE}
            config["references"] = [
                {
                    "name": HOSTILE,
                    "params": 1000,
                    "accuracy": 0.9,
                    "bytes": 50000,
                    "source": HOSTILE,
                }
            ]
        records = make_records(num, objectives)
        front = make_front(records, objectives, num_seeds=num_seeds) if finished else None
        return write_run(tmp_path / name, config=config, records=records, front=front)

    return make
