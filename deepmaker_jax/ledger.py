"""The ledger: an append-only record of every measurement that a run paid for."""

import hashlib
import json
import os
import pathlib
from typing import Any

from deepmaker_jax.errors import InputError
from deepmaker_jax.files import dump_json, lock

NAME = "ledger.jsonl"
WAY_OUT = "delete that line, and what it held is measured again"
WORKER_DIED = "its worker died"  # how the reason of a lost candidate begins
KEYS = (
    "id", "generation", "genome", "arch", "parents", "fidelity", "objectives", "seconds",
    "status", "reason",
)  # fmt: skip
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
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON: {WAY_OUT}") from None
    if not isinstance(record, dict) or any(name not in record for name in KEYS):
        raise InputError(f"{where} is not a measurement: {WAY_OUT}")
    if record.get("sum") != checksum(record):
        raise InputError(f"{where} does not match its checksum: {WAY_OUT}")
    return record


def read(path: pathlib.Path) -> list[Record]:
    """Returns every measurement of a ledger file, oldest first; [] if there is none yet.

    A last line without a newline was torn by a crash while it was written: its
    measurement was never reported, so it is left out.

    Raises:
      InputError: any other line is damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
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
          InputError: the file is damaged, or another process has it open.
        """
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
