"""Command lines: the experiments' own, and `deepmaker COMMAND`."""

import contextlib
import dataclasses
import inspect
import io
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, get_type_hints

import tyro

from deepmaker_jax import config as config_module
from deepmaker_jax import ending, rules
from deepmaker_jax.config import Config
from deepmaker_jax.errors import InputError
from deepmaker_jax.terminal import plain, say

DONE, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
NOTICE_SECONDS = 5.0
AGAIN_SECONDS = 0.1  # until a signal that nobody heard comes again
Presets = Mapping[str, Callable[[], Config]]


class _Terminated(BaseException):
    """SIGTERM, as an exception: everything that Ctrl-C closes is closed."""


def _one_line(error: object) -> str:
    """Returns a message on one line without control characters."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())


@contextlib.contextmanager
def _signals_arrive() -> Iterator[None]:
    """Lets a Ctrl-C or SIGTERM that nobody hears come again.

    Python drops an exception that is raised in a callback of its garbage collection, such as
    JAX has, or in a finalizer, wherever the signal happens to find it.
    """
    numbers = {KeyboardInterrupt: signal.SIGINT, _Terminated: signal.SIGTERM}
    usual = sys.unraisablehook

    def hook(dropped: Any) -> None:
        number = numbers.get(dropped.exc_type)
        if number is None:
            usual(dropped)
            return
        again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual


def guarded(work: Callable[[], None], *, resume: Callable[[], str] = str) -> int:
    """Runs `work` and returns the exit code; errors that people cause are one line on stderr."""

    def terminate(signum: int, frame: Any) -> NoReturn:
        raise _Terminated

    if isinstance(sys.stdout, io.TextIOWrapper):  # a name in a script that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    previous = None
    with contextlib.suppress(ValueError):  # not in the main thread: nobody sends it signals
        previous = signal.signal(signal.SIGTERM, terminate)
    try:
        with _signals_arrive():
            work()
        code = DONE
    except InputError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        code = BAD_INPUT
    except (KeyboardInterrupt, _Terminated) as stop:
        code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
        print(f"stopped; to go on: {resume()}" if resume() else "stopped", file=sys.stderr)
    except BrokenPipeError:  # the reader of what is printed has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except (OSError, RuntimeError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        code = FAILED
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    ending.end_at_once(code)
    return code


def parse(
    args: Sequence[str], *, settings: Any, prog: str, description: str, ending: str = ""
) -> Any:
    """Parses a command line into a dataclass.

    Args:
      args: the words after the program's name.
      settings: a dataclass, or an instance whose values are the defaults.
      prog: the program's name, for the help.
      description: the help's first part.
      ending: its last part.

    Raises:
      InputError: what tyro prints in a box, on one line.
    """
    for word in args:
        try:
            os.fsencode(word)
        except UnicodeEncodeError:
            raise InputError(f"argument {word!r} is no text: write it in UTF-8") from None
        if "\0" in word:
            raise InputError(f"argument {word!r} has a NUL, which no file's name has: leave it out")
    said = io.StringIO()
    kind = settings if isinstance(settings, type) else type(settings)
    default = {} if isinstance(settings, type) else {"default": settings}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(args), prog=prog, description=description, **default)
    except SystemExit as stop:
        if not stop.code:
            print(ending, end="\n" if ending else "")
            raise
        said_why = _said_plainly(said.getvalue(), args, kind, prog)
        raise InputError(f"{said_why}; see {prog} --help") from None


def _said_plainly(text: str, args: Sequence[str], settings: type, prog: str) -> str:
    """Returns what tyro says of a command line, as all messages say it: name, value and rule."""
    words = _unboxed(text)
    if words.startswith("Missing from"):
        # Each stands alone on a line, less indented than its help.
        missing = re.findall(r"^. {5}(\S+) +.$", text, re.MULTILINE)
        return f"{prog} needs {' '.join(missing)}"
    found = re.match(r"(Error parsing|invalid choice|Missing value)[^:]*--([\w.-]*\w)", words)
    if found is None:
        return words
    rule = rules.wanted(_kind_of(found[2], settings))
    if found[1] == "Missing value":
        return f"--{found[2]} needs a value: it must be {rule}"
    return f"{found[2]} (={_value_of(found[2], args)}) must be {rule}"


def _kind_of(name: str, settings: Any) -> Any:
    """Returns the type of the setting that a flag without its dashes names."""
    for part in name.replace("-", "_").split("."):
        settings = get_type_hints(settings)[part]
    return settings


def _value_of(name: str, args: Sequence[str]) -> str:
    """Returns what a command line gives a flag, the last time that it does."""
    flags = [word.partition("=")[0].replace("_", "-") for word in args]
    last = max(i for i, flag in enumerate(flags) if flag == f"--{name}")
    _, equals, value = args[last].partition("=")
    return plain(value if equals else args[last + 1], limit=60)


def _unboxed(text: str) -> str:
    """Returns the first paragraph below the title of tyro's box, drawn in whatever characters."""
    words: list[str] = []
    for line in text.splitlines()[1:]:
        inner = line.strip(" |│╭╮╰╯─-+")
        if inner:
            words.append(inner)
        elif words:
            break
    return " ".join(words)


def experiment(
    name: str,
    *,
    presets: Presets,
    default: str,
    load: Callable[[Config], Any] | None = None,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    **extension: Any,
) -> int:
    """The whole of an experiment's command line: `PROG [PRESET] [SETTINGS]`.

    Args:
      name: of the experiment; part of the default run folder.
      presets: functions that return settings; their docstrings are the help.
      default: the preset that no name means.
      load: from the settings to a `data.Dataset`; None loads the data set that
        has the experiment's name.
      argv: the arguments, `sys.argv[1:]` if None.
      prog: what a person types to start this.
      **extension: `space`, `objectives`, `strategy`, `references` for `run`.

    Returns:
      The exit code.
    """
    prog = prog or f"python -m experiments.{name}"
    argv = list(sys.argv[1:] if argv is None else argv)
    again: list[str] = []

    def work() -> None:
        preset, args = default, argv
        if argv and not argv[0].startswith("-"):
            preset, args = argv[0], argv[1:]
        if preset not in presets:
            known = ", ".join(presets) if len(presets) == 1 else f"one of {', '.join(presets)}"
            raise InputError(f"preset (={preset}) must be {known}; see --help")
        try:
            config = parse(
                args,
                settings=dataclasses.replace(presets[preset](), experiment=name, preset=preset),
                prog=f"{prog} {preset}",
                description=_describe(presets, default, preset),
                ending="" if extension.get("space") else _genes(),
            )
        except InputError as error:
            _check_place(error, args, presets, prog)
            raise
        _check_targets(config)
        config_module.check(config)
        config_module.check_reference(config, extension.get("references") or ())
        from deepmaker_jax.execute import runtime  # imports JAX, which `deepmaker check` may lack

        runtime.one_thread()
        words = f"{prog} {preset} {shlex.join(args)}".strip()
        again.append(re.sub(r"^python(?= )", lambda _: shlex.quote(_python()), words))
        _run(config, load=load or _load_by_name, command=again[0], extension=extension)

    return guarded(work, resume=lambda: again[0] if again else "")


def _check_targets(config: Config) -> None:
    """Raises InputError before any work where the end could only fail."""
    from deepmaker_jax import deploy

    named = deploy.named(config.targets)
    if named and not config.final.export:
        raise InputError(
            f"targets (={' '.join(named)}) need the exported files: leave out --final.no-export"
        )


def _deploy(config: Config, out: pathlib.Path) -> str | None:
    """Deploys a finished run to the targets of its settings; returns what failed."""
    from deepmaker_jax import deploy

    targets, left_out = deploy.at_the_end(config.targets)
    for line in () if config.quiet else left_out:
        print(line)
    try:
        if targets:
            deploy.deploy_and_print(out, targets=targets, quiet=config.quiet)
    except RuntimeError as error:
        return str(error)
    return None


def _load_by_name(config: Config) -> Any:
    from deepmaker_jax.data import load

    return load(config.experiment, path=config.data, side=config.side)


def _describe(presets: Presets, default: str, preset: str) -> str:
    """Returns the help's first part: every preset with its documentation's first line."""
    about = inspect.cleandoc(presets[preset].__doc__ or "")
    lines = [f"Preset {preset}. {about}", "", "Presets:"]
    for name, function in presets.items():
        first = (function.__doc__ or "").strip().split("\n")[0]
        lines.append(f"  {name}{' (default)' if name == default else ''}: {first}")
    return "\n".join(lines)


def _genes() -> str:
    """Returns the help's last part: what --space.only can name."""
    from deepmaker_jax.spaces import GENES

    lines = ["Genes and their choices, for --space.only:"]
    for space, genes in GENES.items():
        alike: dict[tuple[str, tuple], list[str]] = {}  # layers_1 to layers_4 are one line
        for gene in genes:
            alike.setdefault((gene.name.rstrip("0123456789"), gene.choices), []).append(gene.name)
        lines.append(f"  space {space}")
        for (_, choices), names in alike.items():
            title = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            lines.append(f"    {title}: {', '.join(map(str, choices))}")
    return "\n".join(lines)


def _check_place(error: InputError, args: Sequence[str], presets: Presets, prog: str) -> None:
    """Raises a better InputError where a preset stands behind a setting."""
    unknown = str(error).partition("Unrecognized options:")[2].partition(";")[0].split()
    late = [word for word in args if word in presets and word in unknown]
    if late:
        rest = shlex.join(word for word in args if word not in late)
        raise InputError(f"preset (={late[0]}) must come first: {prog} {late[0]} {rest}")


def _run(
    config: Config, *, load: Callable[[Config], Any], command: str, extension: dict[str, Any]
) -> None:
    # Late, so that --help and a wrong flag answer before JAX is loaded.
    from deepmaker_jax import deploy, report, run_folder
    from deepmaker_jax.data import NAMES
    from deepmaker_jax.job import run

    run_folder.check(pathlib.Path(config.out or run_folder.default_out(config)))
    for line in deploy.not_ready(config.targets):
        say(line)  # before hours of work
    # To stdout: on stderr a refusal must stand alone.
    source = f"reading {config.data}" if config.data else f"loading {config.experiment}"
    notice = threading.Timer(NOTICE_SECONDS, print, [f"still {source}"])
    if not config.quiet:
        notice.start()
    try:
        data = load(config)
    finally:
        notice.cancel()
    with report.Progress(quiet=config.quiet) as progress:
        front = run(config, data=data, command=command, on_event=progress.update, **extension)
        out = progress.out
    run_path = pathlib.Path(out)
    page = report.write_report(run_path)  # now, as a Ctrl-C may end what follows
    trained = [member["id"] for member in front["members"] if member["status"] == "ok"]
    exported = any(member["bundle"] for member in front["members"])
    failure = _deploy(config, run_path) if exported and config.final.export else None
    page = report.write_report(run_path)
    if trained and data.name in NAMES:
        rest = ["train", out, trained[0], "--epochs", str(5 * config.final.epochs)]
    else:
        rest = ["show", out]
    following = shlex.join([*_deepmaker(), *rest])
    report.print_finished(run_path, page=page, following=following)
    if failure is not None:
        raise RuntimeError(failure)


def _python() -> str:
    """Returns what starts this Python: its name where the shell finds it, else its path."""
    if shutil.which("python") == sys.executable:
        return "python"
    return os.path.relpath(sys.executable) if _is_below(sys.executable) else sys.executable


def _is_below(path: str) -> bool:
    return not os.path.relpath(path).startswith("..")


def _deepmaker() -> list[str]:
    """Returns the words that start the `deepmaker` command of this environment."""
    beside = os.path.join(os.path.dirname(sys.executable), "deepmaker")
    if shutil.which("deepmaker") == beside:
        return ["deepmaker"]
    return [_python(), "-m", "deepmaker_jax.cli"]


def main(argv: Sequence[str] | None = None) -> int:
    """The `deepmaker` command."""
    from deepmaker_jax import commands

    argv = list(sys.argv[1:] if argv is None else argv)
    known = commands.COMMANDS
    again: list[str] = []

    def work() -> None:
        if not argv or argv[0] in ("-h", "--help"):
            print("usage: deepmaker COMMAND ...\n")
            for name, (settings, _) in known.items():
                print(f"  {name:8} {(settings.__doc__ or '').strip().splitlines()[0]}")
            print("\ndeepmaker COMMAND --help says more")
            return
        if argv[0] not in known:
            raise InputError(f"command (={argv[0]}) must be one of {', '.join(known)}")
        settings, function = known[argv[0]]
        prog = f"deepmaker {argv[0]}"
        about = inspect.cleandoc(settings.__doc__ or "")
        value = parse(argv[1:], settings=settings, prog=prog, description=about)
        if argv[0] in commands.RESUMABLE:
            again.append(shlex.join([*_deepmaker(), *argv]))
        function(value)

    return guarded(work, resume=lambda: again[0] if again else "")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    raise SystemExit(main())
