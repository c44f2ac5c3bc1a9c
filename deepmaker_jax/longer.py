"""Training a member of a finished front longer."""

import pathlib

from deepmaker_jax import data as data_module
from deepmaker_jax.arch import from_json
from deepmaker_jax.errors import InputError
from deepmaker_jax.execute import Inline, Outcome, Unit, runtime
from deepmaker_jax.export import export_bundle
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.files import load_json
from deepmaker_jax.final import calibration_rows
from deepmaker_jax.job import make_task
from deepmaker_jax.run_folder import CONFIG, FRONT, read_config


def train_longer(
    run: pathlib.Path, member: str, *, num_epochs: int, data_path: str | None, out: pathlib.Path
) -> None:
    """Continues a member's training from its weights and writes a bundle to `out`.

    Interrupted, it goes on from the last epoch. Prints a line an epoch and the
    test accuracies at the end.

    Raises:
      InputError: no such member, other data than the run's, or `out` is taken.
    """
    config = read_config(run)
    front = load_json(run / FRONT)
    found = {entry["id"]: entry for entry in front["members"]}
    if member not in found:
        raise InputError(f"member (={member}) must be one of {', '.join(found)}")
    if (out / "manifest.json").exists():
        raise InputError(f"out (={out}) holds a finished bundle: name another with --out")
    document = load_json(run / CONFIG)["data"]
    data = data_module.load(document["name"], path=data_path or config.data, side=config.side)
    if data.fingerprint != document["fingerprint"]:
        raise InputError(
            f"data (={data_path or config.data}) is not what the run was trained on: name that "
            "with --data"
        )
    runtime.one_thread()
    executor = Inline(make_task(config, data))
    weights = out / "weights.safetensors"
    executor.submit(
        Unit(
            id=member,
            arch=from_json(found[member]["arch"]),
            stage="final",
            num_epochs=num_epochs,
            checkpoint=out / "checkpoint.msgpack",
            weights=weights,
            start=run / "models" / member / "weights.safetensors",
        )
    )
    for result in executor.results():
        if not isinstance(result, Outcome):
            print(
                f"epoch {result.num_done}/{result.num_epochs}: loss {result.loss:.4f}", flush=True
            )
        elif result.status != "ok":
            raise InputError(f"training ended as {result.status}: {result.reason}")
    (out / "checkpoint.msgpack").unlink(missing_ok=True)
    rows = calibration_rows(
        data.train_labels, num=config.final.calibration_images, seed=config.seed
    )
    arch, variables = load_weights(weights)
    manifest = export_bundle(
        out,
        id=member,
        arch=arch,
        variables=variables,
        calibration_images=data.train_images[rows],
        test_images=data.test_images,
        test_labels=data.test_labels,
    )
    for name, file in manifest["files"].items():
        if file["accuracy"] is not None:
            print(f"{out / name}: {file['bytes']:,} bytes, test accuracy {file['accuracy']:.4f}")
