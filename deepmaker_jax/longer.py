"""Training a member of a finished front longer."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from deepmaker_jax import data as data_module
from deepmaker_jax import program
from deepmaker_jax.arch import ArchSpec, from_json, to_json
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset
from deepmaker_jax.documents import (
    AGAIN,
    CHECKPOINTS,
    CONFIG,
    FRONT,
    RESTORE,
    load_config,
    load_front,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch, Note
from deepmaker_jax.execute import Inline, Outcome, Unit
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.files import checksum, is_inside, sha256, write_document
from deepmaker_jax.final import export_members, has_weights
from deepmaker_jax.job import need_exporters
from deepmaker_jax.ledger import NAME, WEIGHTS, Ledger
from deepmaker_jax.measurement import ledger_record
from deepmaker_jax.run_folder import claim, make_folders, read_config, weights_path
from deepmaker_jax.task import make_task
from deepmaker_jax.terminal import say


def train_longer(
    run: pathlib.Path,
    member: str,
    *,
    num_epochs: int,
    out: pathlib.Path,
    data_path: str | None = None,
    data: Dataset | None = None,
) -> None:
    """Continues a member's training from its weights and writes a bundle into `out`.

    Interrupted, it goes on from the last epoch. Prints a line an epoch and the
    test accuracies at the end.

    Args:
      run: a finished run folder.
      member: id of a member of its front.
      num_epochs: epochs to add.
      out: folder of the new run-like folder; the bundle is `out/models/MEMBER`.
      data_path: where the data are now; None for where the run found them.
      data: the data themselves, for a data set of one's own.

    Raises:
      InputError: no such member, other data than the run's, or `out` is taken.
      RuntimeError: the training diverged, or the export failed as a whole.
    """
    config, members, document = read_config(run), _members(run), _data_document(run)
    if member not in members:
        raise InputError(f"member (={member}) must be one of {', '.join(members) or 'none'}")
    if not weights_path(run, member).exists():
        raise InputError(f"member (={member}) has no weights in {run}: run the experiment again")
    arch, _ = load_weights(weights_path(run, member))
    try:
        told = from_json(members[member].get("arch"))
    except InputError as error:
        raise InputError(f"{run / FRONT} is damaged ({member}: {error}): {AGAIN}") from None
    if arch != told:
        raise InputError(f"member (={member}) and its weights differ: run the experiment again")
    if data is None:
        data = _find_data(document["name"], data_path or config.data, config.side)
    if data.fingerprint != document["fingerprint"]:
        raise InputError(
            f"data (={data_path or config.data}) is not what the run was trained on: name that "
            "with --data"
        )
    if config.final.export:
        need_exporters()
    document = {
        "config": {"run": run.name, "member": member, "epochs": num_epochs},
        "start": sha256(weights_path(run, member)),
        "data": data.fingerprint,
        "conditions": program.training_conditions(),
    }
    with begin_longer(out, document, needed_bytes=data.train_images.nbytes) as ledger:
        _train(run, member, config, data, arch, num_epochs=num_epochs, out=out, ledger=ledger)


def _train(
    run: pathlib.Path,
    member: str,
    config: Config,
    data: Dataset,
    arch: ArchSpec,
    *,
    num_epochs: int,
    out: pathlib.Path,
    ledger: Ledger,
) -> None:
    """`train_longer`, once all is checked and `out` is this process's."""
    weights = weights_path(out, member)
    executor = Inline(make_task(config, data))
    unit = Unit(
        id=member,
        arch=arch,
        stage="final",
        num_epochs=num_epochs,
        checkpoint=out / CHECKPOINTS / "state.msgpack",
        weights=weights,
        start=weights_path(run, member),
    )
    fidelity = {"name": "final", "epochs": num_epochs}
    known = ledger.find(member, fidelity)
    try:
        if known is None or not has_weights(weights, arch, known):
            executor.submit(unit)
        for result in executor.results():
            if isinstance(result, Epoch):
                epoch = f"epoch {result.num_done}/{result.num_epochs}"
                say(f"{epoch}: loss {result.loss:.4f}")
            elif isinstance(result, Outcome) and result.status != "ok":
                raise RuntimeError(f"training ended as {result.status}: {result.reason}")
            elif isinstance(result, Outcome) and known is None:
                copied = {"generation": 0, "genome": [], "parents": [], "objectives": {}}
                record = ledger_record(
                    member, outcome=result, fidelity=fidelity, arch=to_json(arch),
                    costs=cost(arch)._asdict(), **copied,
                )  # fmt: skip
                ledger.append(record | {WEIGHTS: sha256(weights)})
    finally:
        executor.close()
    exported = export_members({member: {}}, out, data, config=config, num_workers=1)
    while True:
        try:
            event = next(exported)
        except StopIteration as end:
            files = end.value[member].manifest["files"]
            break
        if isinstance(event, Note):
            say(event.text)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    if not files:
        raise RuntimeError(f"{member} was not exported: run the same command again")
    for name, file in files.items():
        if file["accuracy"] is not None:
            accuracy = f"test accuracy {file['accuracy']:.4f}"
            say(f"{weights.parent / name}: {file['bytes']:,} bytes, {accuracy}")


@contextlib.contextmanager
def begin_longer(out: pathlib.Path, document: dict, *, needed_bytes: int) -> Iterator[Ledger]:
    """Claims `out`, or goes on in it if the same training was begun there; holds it in the block.

    Raises:
      InputError: it holds something else, cannot be written, or another process has it.
    """
    claim(out, needed_bytes=needed_bytes)
    with contextlib.closing(Ledger(out / NAME)) as ledger:
        path = out / CONFIG
        if path.exists() and checksum(old := load_config(out)) != checksum(document):
            differ = sorted(n for n in document if old.get(n) != document[n])
            raise InputError(
                f"out (={out}) holds another training ({', '.join(differ) or 'more'} differ): name "
                "a new one with --out"
            )
        write_document(path, document)
        make_folders(out)
        yield ledger


def _members(run: pathlib.Path) -> dict[str, dict]:
    members = {member["id"]: member for member in load_front(run)["members"]}
    if outside := [id for id in members if not is_inside(id) or "/" in id]:
        raise InputError(f"{run / FRONT} names {outside[0]!r}, which is no member's id: {AGAIN}")
    return members


def _data_document(run: pathlib.Path) -> dict[str, Any]:
    data = load_config(run).get("data")
    names = ("name", "fingerprint")
    if not isinstance(data, dict) or not all(isinstance(data.get(n), str) for n in names):
        raise InputError(f"{run / CONFIG} does not say what data it was trained on: {RESTORE}")
    return data


def _find_data(name: str, path: str | None, side: int | None) -> Dataset:
    if name not in data_module.NAMES:
        raise InputError(
            f"data set {name} is not one that can be loaded by name: call "
            "deepmaker_jax.longer.train_longer(..., data=...) from your own script"
        )
    return data_module.load(name, path=path, side=side)
