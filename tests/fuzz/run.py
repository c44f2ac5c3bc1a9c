"""A small finished run whose files have their sums, for the doors that read run folders."""

import io
import json
import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.export.check import RUNTIMES, Runtime
from deepmaker_jax.export.manifest import MANIFEST, REFERENCE, made_entry
from tests.report.conftest import (
    ERROR,
    FLASH,
    make_config,
    make_front,
    make_manifest,
    make_records,
    write_run,
)

NUM_IMAGES = 5
MODEL = "model_int8.tflite"
OBJECTIVES = [ERROR, FLASH]


def reference() -> dict[str, np.ndarray]:
    """The arrays of reference.npz."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3)).astype(np.uint8)
    logits = rng.normal(size=(NUM_IMAGES, 10)).astype(np.float32)
    return {"images": images, "labels": np.arange(NUM_IMAGES), "logits": logits}


def packed(arrays: dict[str, Any]) -> bytes:
    """The bytes of an .npz."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def make(folder: pathlib.Path) -> pathlib.Path:
    """Writes the run and returns its folder."""
    records = make_records(12, OBJECTIVES)
    front = make_front(records, OBJECTIVES)
    first = front["members"][0]
    run = write_run(folder / "run", config=make_config(OBJECTIVES), records=records, front=front)
    bundle = run / first["bundle"]
    files = {REFERENCE: packed(reference()), MODEL: b"a model", "mcu/model.cc": b"int x;"}
    manifest = make_manifest(first)
    manifest["targets"] = {name: manifest["targets"][name] for name in ("mcu", "fpga")}
    manifest["files"] = {
        "fpga": manifest["files"]["fpga"],
        "mcu/x.cc": manifest["files"]["mcu/main.cc"],
    }
    for name, data in files.items():
        path = bundle / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        manifest["files"][name] = made_entry(path, tool="tests")
    parity = {"max_abs_error": 0.25, "top1_agreement": 1.0, "images": NUM_IMAGES}
    rule = {"max_error": None, "min_agreement": 0.5}
    manifest["files"][MODEL]["parity"] = parity | {"logit_range": 4.0, "rule": rule}
    (bundle / "mcu/x.cc").write_bytes(b"")
    manifest["files"]["mcu/x.cc"] = made_entry(bundle / "mcu/x.cc", tool="tests")
    put(bundle / MANIFEST, json.dumps(manifest))
    return run


def put(path: pathlib.Path, text: str | bytes) -> None:
    """Writes a file as anybody might."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))


def standing_in(monkeypatch: Any) -> None:
    """Lets whatever stands in a TFLite file give JAX's logits: what runs it is not at this door."""
    runtime = Runtime("in LiteRT", lambda path, images: reference()["logits"])
    monkeypatch.setitem(RUNTIMES, ".tflite", runtime)
