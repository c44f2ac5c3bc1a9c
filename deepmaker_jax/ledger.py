"""The ledger: an append-only record of every measurement that a run paid for."""

import hashlib
import json
import os
import pathlib
from typing import Any

from deepmaker_jax.errors import InputError
from deepmaker_jax.files import dump_json, lock, parse_json

NAME = "ledger.jsonl"
WAY_OUT = "delete that line, and what it held is measured again"
WORKER_DIED = "its worker died"  # how the reason of a lost candidate begins
KINDS = {
    "id": str, "generation": int, "genome": list, "arch": dict, "parents": list, "fidelity": dict,
    "objectives": dict, "seconds": dict, "status": str, "reason": str | None,
}  # fmt: skip
LAST_GENERATION = 2**31 - 1
Record = dict[str, Any]


def checksum(record: Record) -> str:
    """Returns 16 hex digits of SHA-256 over the record without its `sum`."""
    rest = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(dump_json(rest).encode()).hexdigest()[:16]


def key(record: Record) -> tuple[str, str]:
    """Returns what a measurement is filed under: (id, fidelity as JSON)."""
    return record["id"], dump_json(record["fidelity"])


def _parse(line: str, where: str) -> Record:
    try:
        record = parse_json(line)
    except ValueError:
        raise InputError(f"{where} is not JSON: {WAY_OUT}") from None
    if not _is_measurement(record):
        raise InputError(f"{where} is not a measurement: {WAY_OUT}")
    if record.get("sum") != checksum(record):
        raise InputError(f"{where} does not match its checksum: {WAY_OUT}")
    return record


def _is_measurement(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and all(name in record and isinstance(record[name], KINDS[name]) for name in KINDS)
        and all(isinstance(record.get(name, {}), dict) for name in ("costs", "measured"))
        and 0 <= record["generation"] <= LAST_GENERATION
    )


def read(path: pathlib.Path) -> list[Record]:
    """Returns every measurement of a ledger file, oldest first; [] if there is none yet.

    A last line without a newline was torn by a crash while it was written: its
    measurement was never reported, so it is left out.

    Raises:
      InputError: any other line is damaged, or the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("it is no plain file")
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): restore or remove it") from None
    lines = text.split("\n")[:-1]
    return [_parse(line, f"{path} line {i}") for i, line in enumerate(lines, 1)]


def lost(record: Record) -> bool:
    """Whether a measurement says more about the machine than about the candidate.

    A worker is killed for want of memory, for example: the next may well live.
    """
    return record["status"] == "failed" and str(record["reason"]).startswith(WORKER_DIED)


class Ledger:
    """The open ledger of a run: a cache of measurements that writes every new one through.

    A candidate that was lost may be measured again: the last record counts.

    Attributes:
      records: every measurement, oldest first.
    """

    def __init__(self, path: pathlib.Path):
        """Opens `path` and cuts off a torn last line.

        Raises:
          InputError: the file is damaged or a link, or another process has it open.
        """
        if path.is_symlink() or (path.exists() and not path.is_file()):
            # What it leads to would be written, and its end cut.
            raise InputError(f"{path} must be a plain file: put the run's own ledger there")
        self._file = open(path, "ab")  # noqa: SIM115 - it stays open
        try:
            lock(self._file, path.parent)
            self.records = read(path)
        except InputError:
            self._file.close()
            raise
        self._by_key = {key(record): record for record in self.records}
        self._asked: set[tuple[str, str]] = set()
        whole = path.read_bytes().rfind(b"\n") + 1
        if self._file.tell() > whole:
            self._file.truncate(whole)

    def find(self, id: str, fidelity: Record) -> Record | None:
        """Returns the measurement of (id, fidelity), or None."""
        self._asked.add((id, dump_json(fidelity)))
        return self._by_key.get((id, dump_json(fidelity)))

    def lost(self) -> list[Record]:
        """Returns the measurements that were lost, of those that `find` was asked for.

        Others are of no consequence: a run that resumes with a lost candidate
        measured may leave its former children behind.
        """
        found = (self._by_key.get(key) for key in sorted(self._asked))
        return [record for record in found if record is not None and lost(record)]

    def append(self, record: Record) -> Record:
        """Writes one measurement to disk and returns it as it will be read back."""
        record = json.loads(dump_json(record))
        record["sum"] = checksum(record)
        self._file.write((dump_json(record) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)
        self._by_key[key(record)] = record
        return record

    def close(self) -> None:
        """Closes the file; the records stay readable."""
        self._file.close()
