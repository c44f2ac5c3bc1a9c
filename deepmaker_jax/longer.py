"""Training a member of a finished front longer."""

import contextlib
import pathlib
import shutil
import time
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
    longer_of,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch, Note
from deepmaker_jax.execute import Inline, Outcome, Unit
from deepmaker_jax.export.manifest import read_entries
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.files import is_inside, sha256, write_document
from deepmaker_jax.final import export_members, has_weights
from deepmaker_jax.job import need_exporters
from deepmaker_jax.ledger import NAME, WEIGHTS, Ledger
from deepmaker_jax.measurement import ledger_record
from deepmaker_jax.report import text
from deepmaker_jax.run_folder import claim, differences, make_folders, read_config, weights_path
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
    quiet: bool = False,
) -> None:
    """Continues a member's training from its weights and writes a bundle into `out`.

    Interrupted, it goes on from the last epoch. Prints a line an epoch and, at the
    end, each file's test accuracy beside that of the run's own file.

    Args:
      run: a finished run folder.
      member: id of a member of its front.
      num_epochs: epochs to add.
      out: folder of the new run-like folder; the bundle is `out/models/MEMBER`.
      data_path: where the data are now; None for where the run found them.
      data: the data themselves, for a data set of one's own.
      quiet: print only the end, and what must not be missed.

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
        "config": {"member": member, "epochs": num_epochs},
        "start": sha256(weights_path(run, member)),
        "data": data.fingerprint,
        "conditions": program.training_conditions(),
    }
    with begin_longer(out, document, needed_bytes=data.train_images.nbytes) as ledger:
        _train(
            run, member, config, data, arch, num_epochs=num_epochs, out=out, ledger=ledger,
            quiet=quiet,
        )  # fmt: skip


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
    quiet: bool,
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
    began, num_trained = time.monotonic(), 0
    try:
        if known is None or not has_weights(weights, arch, known):
            executor.submit(unit)
        for result in executor.results():
            if isinstance(result, Epoch):
                num_trained += 1
                if not quiet:
                    say(_words(result, (time.monotonic() - began) / num_trained))
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
    if not files:
        raise RuntimeError(f"{member} was not exported: run the same command again")
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    accuracies = _accuracies(run, member)
    for name, file in files.items():
        if file["accuracy"] is not None:
            accuracy = f"test accuracy {file['accuracy']:.4f}"
            before = "" if name not in accuracies else f", before {accuracies[name]:.4f}"
            say(f"{weights.parent / name}: {file['bytes']:,} bytes, {accuracy}{before}")


def _words(epoch: Epoch, seconds_each: float) -> str:
    """Returns an epoch as a line, with the time that is left at so many seconds for each."""
    said = f"epoch {epoch.num_done}/{epoch.num_epochs}: loss {epoch.loss:.4f}"
    num_left = epoch.num_epochs - epoch.num_done
    return f"{said}; about {text.duration(num_left * seconds_each)} left" if num_left else said


def _accuracies(run: pathlib.Path, member: str) -> dict[str, float]:
    """Returns the test accuracies of the run's own files, by name; {} if its manifest is lost."""
    files: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        files = read_entries(weights_path(run, member).parent)["files"]
    numbers = {name: text.number(file.get("accuracy")) for name, file in files.items()}
    return {name: value for name, value in numbers.items() if value is not None}


@contextlib.contextmanager
def begin_longer(out: pathlib.Path, document: dict, *, needed_bytes: int) -> Iterator[Ledger]:
    """Claims `out`, or goes on in it if the same training was begun there; holds it in the block.

    Raises:
      InputError: it holds something else, cannot be written, or another process has it.
    """
    claim(out, needed_bytes=needed_bytes)
    with contextlib.closing(Ledger(out / NAME)) as ledger:
        path = out / CONFIG
        if path.exists():
            _compare(out, load_config(out), document)
        write_document(path, document)
        make_folders(out)
        yield ledger


def _compare(out: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises InputError with what differs if a folder holds anything but the same training."""
    if longer_of(old) is None:
        raise InputError(
            f"out (={out}) holds something else than a longer training: name a new one with --out"
        )
    # Older versions told the run's name, which may be another by now.
    settings = {name: value for name, value in old["config"].items() if name != "run"}
    if differ := differences(old | {"config": settings}, new, new):
        raise InputError(
            f"out (={out}) holds another training: {', '.join(differ)}; name a new one with --out"
        )


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
