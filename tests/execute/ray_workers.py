"""Finds processes: those in which this process's Ray nodes do units, and what a process began."""

import os
import pathlib


def busy_ray_workers() -> list[int]:
    """Returns those of nodes that this process started, on this machine."""
    return [
        pid
        for pid, title in _titles()
        if title.startswith("ray::deepmaker") and _parent(_parent(pid)) == os.getpid()
    ]


def num_ray_processes() -> int:
    """Returns how many processes this process's nodes consist of: raylets and what they started."""
    return sum(
        os.getpid() in (_parent(pid), _parent(_parent(pid)))
        for pid, title in _titles()
        if "/ray/" in title or title.startswith("ray::")
    )


def node_of(pid: int) -> int:
    """Returns the raylet that started a worker: what stands for its node."""
    return _parent(pid)


def _titles() -> list[tuple[int, str]]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((int(path.parent.name), path.read_bytes().decode(errors="replace")))
        except OSError:
            continue  # it is gone
    return found


def _parent(pid: int) -> int:
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def descendants(pid: int) -> list[str]:
    """Returns the processes that a process has begun, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        children.setdefault(_parent(int(path.name)), []).append(int(path.name))
    found, waiting = [], [pid]
    while waiting:
        of = children.get(waiting.pop(), [])
        found += of
        waiting += of
    return [name for child in found if (name := _name(child))]


def alive(names: list[str]) -> list[str]:
    """Returns those of `descendants` that have not ended."""
    return [name for name in names if name == _name(int(name.partition(" ")[0]))]


def _name(pid: int) -> str:
    """Returns a process's number and when it began; nothing if it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid} {fields[19]}"
