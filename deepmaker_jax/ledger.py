"""The ledger: an append-only record of every measurement that a run paid for."""

import errno
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.files import SUM, checksum, dump_json, lock, parse_json, storing, sync_folder

NAME = "ledger.jsonl"
WAY_OUT = (
    "delete that line, in an asynchronous search also all that follow it, and what they held is "
    "measured again"
)
WEIGHTS = "weights"  # of a final training's record: the SHA-256 of its weights' file
# How the reason of a lost candidate begins.
WORKER_DIED, OUT_OF_MEMORY = "its worker died", "out of memory"
KINDS = {
    "id": str, "generation": int, "genome": list, "arch": dict, "parents": list, "fidelity": dict,
    "objectives": dict, "seconds": dict, "status": str, "reason": str | None,
}  # fmt: skip
LAST_GENERATION = 2**31 - 1
Record = dict[str, Any]


def key(record: Record) -> tuple[str, str]:
    """Returns what a measurement is filed under: (id, fidelity as JSON)."""
    return record["id"], dump_json(record["fidelity"])


def unit_name(id: str, seed: int | None) -> str:
    """Returns what a training is called: as its candidate, but for a seed that is not the run's."""
    return id if seed is None else f"{id}-seed{seed}"


def _parse(line: bytes, where: str) -> Record:
    try:
        record = parse_json(line.decode("utf-8", errors="replace"))
    except ValueError:
        raise InputError(f"{where} is not JSON: {WAY_OUT}") from None
    if not _is_measurement(record):
        raise InputError(f"{where} is not a measurement: {WAY_OUT}")
    if record.get(SUM) != checksum(record):
        raise InputError(f"{where} does not match its checksum: {WAY_OUT}")
    return record


def _is_measurement(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and all(name in record and isinstance(record[name], KINDS[name]) for name in KINDS)
        and all(isinstance(record.get(name, {}), dict) for name in ("costs", "measured"))
        and 0 <= record["generation"] <= LAST_GENERATION
    )


def _scan(path: pathlib.Path) -> Iterator[tuple[int, Record]]:
    """Yields (bytes, measurement) of every whole line, as `read`."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no plain file: restore or remove it")
    with open(path, "rb") as file:
        for i, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield len(line), _parse(line[:-1], f"{path} line {i}")


def read(path: pathlib.Path) -> list[Record]:
    """Returns every measurement of a ledger file, oldest first; [] if there is none yet.

    A last line without a newline was torn by a crash while it was written: its
    measurement was never reported, so it is left out.

    Raises:
      InputError: any other line is damaged, or the file cannot be read.
    """
    try:
        return [record for _, record in _scan(path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): restore or remove it") from None


def lost(record: Record) -> bool:
    """Whether a measurement says more about the machine than about the candidate.

    A worker is killed for want of memory, for example: the next may well live.
    """
    if record["status"] != "failed":
        return False
    return str(record["reason"]).startswith((WORKER_DIED, OUT_OF_MEMORY))


class Ledger:
    """The open ledger of a run: a cache of measurements that writes every new one through.

    A candidate that was lost may be measured again: the last record counts. In memory
    is where each measurement stands, not what it says: a run may be long.

    Attributes:
      path: of the file.
      is_locked: no other process can open it too; on some file systems nothing prevents that.
    """

    def __init__(self, path: pathlib.Path):
        """Opens `path` and cuts off a torn last line.

        Raises:
          InputError: the file is damaged or a link, or another process has it open.
        """
        if path.is_symlink() or (path.exists() and not path.is_file()):
            # What it leads to would be written, and its end cut.
            raise InputError(f"{path} must be a plain file: put the run's own ledger there")
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - it stays open
        sync_folder(path.parent)
        self._places: dict[tuple[str, str], tuple[int, int]] = {}  # (offset, bytes) by key
        self._lost: set[tuple[str, str]] = set()
        self._asked: set[tuple[str, str]] = set()
        self._end = self._num_records = 0
        try:
            self.is_locked = lock(self._file, path.parent)
            for length, record in _scan(path):
                self._note(record, length)
        except InputError:
            self._file.close()
            raise
        if self._file.tell() > self._end:
            self._file.truncate(self._end)

    def __iter__(self) -> Iterator[Record]:
        """Yields every measurement, oldest first."""
        return (record for _, record in _scan(self.path))

    def __len__(self) -> int:
        """Returns how many measurements it holds."""
        return self._num_records

    def _note(self, record: Record, length: int) -> None:
        """Takes note of a line at the end."""
        name = key(record)
        self._places[name] = self._end, length
        (self._lost.add if lost(record) else self._lost.discard)(name)
        self._end += length
        self._num_records += 1

    def find(self, id: str, fidelity: Record) -> Record | None:
        """Returns the measurement of (id, fidelity), or None."""
        name = id, dump_json(fidelity)
        self._asked.add(name)
        if name not in self._places:
            return None
        offset, length = self._places[name]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return _parse(file.read(length), f"{self.path} at byte {offset}")

    def expect(self, measurements: Iterable[tuple[str, Record]]) -> None:
        """Takes note of (id, fidelity) that a run needs: `num_lost` counts them, found or not."""
        self._asked.update((id, dump_json(fidelity)) for id, fidelity in measurements)

    def num_lost(self) -> int:
        """Returns how many measurements were lost, of those that a run needs.

        It needs what `find` was asked for, and what it told `expect`. Others are of no
        consequence: a run that resumes with a lost candidate measured may leave its former
        children behind.
        """
        return len(self._lost & self._asked)

    def append(self, record: Record) -> Record:
        """Writes one measurement to disk and returns it as it will be read back.

        Raises:
          StorageError: the disk takes no more, or the file is gone; no part of the line stays.
        """
        record = json.loads(dump_json(record))
        record[SUM] = checksum(record)
        line = (dump_json(record) + "\n").encode()
        with storing(self.path):
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise StorageError(f"{self.path} was removed while the run went on")
            try:
                if self._file.write(line) < len(line):  # a disk that fills up takes a part
                    raise OSError(errno.ENOSPC, "")
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(self._end)
                raise
        self._note(record, len(line))
        return record

    def close(self) -> None:
        """Closes the file; what it holds can still be found."""
        self._file.close()
