"""What stands with every figure: when, where, with what and how it was measured."""

import ast
import contextlib
import datetime
import hashlib
import inspect
import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import deepmaker_jax
from deepmaker_jax import program
from deepmaker_jax.execute import runtime
from deepmaker_jax.execute.pool import pooled
from deepmaker_jax.files import dump_json, lock, write_json
from deepmaker_jax.machine import version_of

PATIENCE_SECONDS = 4 * 3600.0  # for one training beside whatever else runs
READERS = {"backends", "export", "report"}  # of finished runs: no measurement comes from these
PEERS = ("optuna", "pymoo")


def conditions() -> dict[str, Any]:
    """Returns date, machine, versions, commit and command of this process."""
    name = pathlib.Path(sys.argv[0]).stem
    machine = program.describe_platform()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{program.num_cores()} cores, {machine['processor']}, {machine['machine']}",
        "versions": program.versions(),
        "commit": commit(),
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *map(portable, sys.argv[1:])]),
    }


def commit() -> str | None:
    """Returns the commit of this tree, with a + if its files were changed; None without git."""
    root = pathlib.Path(__file__).parent.parent
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    told = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def in_workers_environment() -> None:
    """Runs this program again with the environment that a worker has, unless it has it.

    The C library reads it once, when a process begins.
    """
    if os.environ.get(runtime.TUNABLES) is None:
        name = f"benchmarks.{pathlib.Path(sys.argv[0]).stem}"
        environment = os.environ | runtime.worker_environment()
        words = [sys.executable, "-m", name, *sys.argv[1:]]
        raise SystemExit(subprocess.run(words, env=environment, check=False).returncode)


def portable(word: str) -> str:
    """Returns an argument as it may be published: a path elsewhere as its last name."""
    if not os.path.isabs(word) and not word.startswith(".."):
        return word
    below = os.path.relpath(word)
    return os.path.basename(below) if below.startswith("..") else below


def made_of(function: Callable[..., Any], *more: pathlib.Path, apart: Collection[str] = ()) -> str:
    """Returns what rows that a function makes are made of, eight hex digits.

    Of the package's source, but for what reads finished runs; of what the function reaches by name
    in benchmarks and presets; of packages and some files. Comments and docstrings are none of it.

    Args:
      function: of a benchmark.
      *more: files.
      apart: names that it reaches and that change no row.
    """
    package = pathlib.Path(deepmaker_jax.__file__).parent
    sources = [
        path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in READERS
    ]
    texts = [_without_words(ast.parse(path.read_text())) for path in sorted(sources)]
    own = pathlib.Path(inspect.getfile(function)).resolve()
    texts += _reached(own, function.__name__, set(apart))
    texts.append(dump_json(program.versions() | {name: version_of(name) for name in PEERS}))
    parts = [*(text.encode() for text in texts), *(path.read_bytes() for path in more)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def _reached(module: pathlib.Path, name: str, apart: set[str]) -> list[str]:
    """Returns the source of a name and of all that this needs of benchmarks and presets."""
    here = pathlib.Path(__file__).resolve().parent
    trees: dict[pathlib.Path, ast.Module] = {}
    found: dict[tuple[pathlib.Path, str], str] = {}
    left = [(module, name)]
    while left:
        path, name = left.pop()
        if (path, name) in found or name in apart:
            continue
        tree = trees.setdefault(path, ast.parse(path.read_text()))
        found[path, name] = ""
        for node in tree.body:
            if name in _defined(node) or (name == "*" and not isinstance(node, ast.Expr)):
                found[path, name] += _without_words(node)
                left += [(path, n.id) for n in ast.walk(node) if isinstance(n, ast.Name)]
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for each in node.names:
                if name not in (each.asname or each.name, "*"):
                    continue
                if node.module in ("benchmarks", "configs"):  # a module: all of it
                    left.append((here.parent / node.module / f"{each.name}.py", "*"))
                elif node.module.startswith(("benchmarks.", "configs.")):
                    of = here.parent.joinpath(*node.module.split(".")).with_suffix(".py")
                    left.append((of, each.name))
    return [found[key] for key in sorted(found)]


def _defined(node: ast.stmt) -> set[str]:
    """Returns the names that a statement of a module defines, imports apart."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    each = (n for target in targets if target is not None for n in ast.walk(target))
    return {n.id for n in each if isinstance(n, ast.Name)}


def _without_words(tree: ast.AST) -> str:
    """Returns source without comments and docstrings."""
    for node in ast.walk(tree):
        has_docstring = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if has_docstring and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def whole_lines(path: pathlib.Path) -> list[Any]:
    """Returns the lines of a file of JSON lines, which may not be there.

    One that was cut off in writing is no line, and is cut off the file.
    """
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return [json.loads(line) for line in data[:end].splitlines()]


def known(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each job that `train_missing` has done, by its name in the file."""
    return {line["job"]: line["rows"] for line in whole_lines(path)}


def train_missing(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    path: pathlib.Path,
    *,
    num_workers: int,
    made_of: str = "",
) -> list[dict[str, Any]]:
    """Returns what is known of these jobs, one row each or several; does those that are not.

    Args:
      function: of a module; called in processes, returns a row or a list of rows.
      jobs: {name: its arguments}.
      path: JSON lines, one for each job that was done here, of these or of others.
      num_workers: jobs at once.
      made_of: what the rows are made of; those that were made of anything else are done anew.

    Raises:
      InputError: another process adds to the file.
      RuntimeError: a job failed; all others were done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: f"{name}, of {made_of}" if made_of else name for name in jobs}
    with open(path, "a") as file:
        lock(file, path)
        done = known(path)
        left = {name: arguments for name, arguments in jobs.items() if kept[name] not in done}
        made = pooled(function, left, num_workers=num_workers, patience_seconds=PATIENCE_SECONDS)
        failed: dict[str, BaseException] = {}
        with contextlib.closing(made):
            for name, found in made:
                if isinstance(found, BaseException):
                    failed[name] = found
                    print(f"{name} failed: {found}", flush=True)
                    continue
                rows = done[kept[name]] = found if isinstance(found, list) else [found]
                line = dump_json({"job": kept[name], "rows": rows})
                file.write(line + "\n")
                file.flush()
                print(line, flush=True)
    for name, error in failed.items():
        raise RuntimeError(f"{name} failed") from error
    return [{"job": name} | row for name in jobs for row in done[kept[name]]]


def publish(figures: dict[str, Any], out: pathlib.Path | None) -> None:
    """Prints the figures as JSON and writes them with their conditions to `out`, if named."""
    print(dump_json(figures, indent=1))
    if out is not None:
        write_json(out, conditions() | figures)
