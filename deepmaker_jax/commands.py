"""What `deepmaker COMMAND` does: settings and a function for each."""

import collections
import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from deepmaker_jax.errors import InputError
from deepmaker_jax.terminal import say

Run = Annotated[str, tyro.conf.arg(metavar="RUN")]
Bundles = Annotated[str, tyro.conf.arg(metavar="RUN|BUNDLE")]


@dataclasses.dataclass(frozen=True)
class Show:
    """Prints the front as a table; while the run goes on, from its ledger."""

    run: tyro.conf.Positional[Run]
    """Run folder."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes report.html and its plots again from the run folder alone."""

    run: tyro.conf.Positional[Run]
    """Run folder."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Trains one member of a front longer, from its weights, and exports it into RUN/longer.

    The learning rate starts over, so the result is as good as a longer training
    only if the added one is a good part of it. The run's own files are not touched.
    """

    run: tyro.conf.Positional[Run]
    """Run folder."""

    member: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ID")]]
    """Id of the member, as `deepmaker show` prints it."""

    epochs: int = 50
    """Epochs to add; at least 1."""

    data: str | None = None
    """Folder or archive of the data; None for where the run found it."""

    out: str | None = None
    """Folder for it, the bundle in its models/MEMBER; None for RUN/longer/MEMBER-EPOCHS."""

    quiet: bool = False
    """Print only the accuracies at the end, and what must not be missed."""


@dataclasses.dataclass(frozen=True)
class Deploy:
    """Builds, runs and measures networks for devices; only what is missing or stale."""

    path: tyro.conf.Positional[Bundles]
    """Run folder, a folder in its longer/, or a bundle in its models/."""

    members: int | None = None
    """How many members of a run, the most accurate first; at least 1. None for all."""

    targets: tuple[str, ...] = ()
    """Names from `deepmaker targets`, or light as for an experiment; leave it out for all."""

    workers: int = 0
    """Processes at once; 0 for one per core. Latency is measured by one alone."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """Says which targets work here, and what to install for the rest."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Checks the files of a run or a bundle, anywhere: sums, and what can be run again.

    Needs neither JAX nor the data. TFLite and ONNX files, and what `deepmaker deploy`
    made and ran, are run where that can be done; of other files the sums alone are checked.
    """

    path: tyro.conf.Positional[Bundles]
    """Run folder, a folder in its longer/, or a bundle in its models/."""

    sums_only: bool = False
    """Run nothing: a bundle's files for devices are programs, which whoever made them wrote."""


def show(settings: Show) -> None:
    """`deepmaker show RUN`."""
    from deepmaker_jax import report

    report.show(pathlib.Path(settings.run))


def write_report(settings: Report) -> None:
    """`deepmaker report RUN`."""
    from deepmaker_jax import report

    run = pathlib.Path(settings.run)
    report.check_page(run)
    say(str(report.write_report(run)))


def train(settings: Train) -> None:
    """`deepmaker train RUN MEMBER`."""
    from deepmaker_jax.execute import runtime

    runtime.one_thread()  # before JAX starts, which the next import does
    from deepmaker_jax import rules
    from deepmaker_jax.documents import Longer, longer_path
    from deepmaker_jax.longer import train_longer

    rules.whole("epochs", settings.epochs, 1, most=rules.MOST_EPOCHS)
    run = pathlib.Path(settings.run)
    usual = longer_path(run, Longer(settings.member, settings.epochs))
    train_longer(
        run,
        settings.member,
        num_epochs=settings.epochs,
        data_path=settings.data,
        out=pathlib.Path(settings.out) if settings.out else usual,
        quiet=settings.quiet,
    )


def deploy(settings: Deploy) -> None:
    """`deepmaker deploy RUN|BUNDLE`."""
    from deepmaker_jax import bundles, report
    from deepmaker_jax import deploy as deploying
    from deepmaker_jax.backends import BACKENDS

    if settings.workers < 0:
        raise InputError(f"workers (={settings.workers}) must be a whole number, at least 0")
    known = (*BACKENDS, deploying.LIGHT)
    for name in settings.targets:
        if name not in known:
            raise InputError(
                f"targets (={name}) must be among {', '.join(known)}: leave --targets out for all"
            )
    targets, left_out = deploying.at_the_end(settings.targets)
    for line in left_out:
        print(line)
    path = pathlib.Path(settings.path)
    if settings.targets and not targets:
        bundles.deployable(path, settings.members)  # bad input is said all the same
        return
    run = bundles.run_of(path)
    has_page = (run / report.NAME).exists()
    if has_page:
        report.check_page(run)  # what cannot be drawn again is said before the work
    try:
        deploying.deploy_and_print(
            path,
            members=settings.members,
            targets=targets,
            num_workers=settings.workers or None,
        )
    finally:
        if has_page:  # a page that is there shows what is there
            report.write_report(run)


def targets(settings: Targets) -> None:
    """`deepmaker targets`."""
    from deepmaker_jax.backends import BACKENDS

    for backend in BACKENDS.values():
        tools = backend.probe()
        num_missing = sum(tool.version is None for tool in tools)
        state = f"{num_missing} of {len(tools)} tools missing" if num_missing else "ready"
        print(f"{backend.name}: {state}; {backend.about}")
        for tool in tools:
            found = tool.version or f"missing: {tool.install}"
            print(f"  {tool.name}: {found}")


def check(settings: Check) -> None:
    """`deepmaker check RUN|BUNDLE`."""
    from deepmaker_jax import ledger
    from deepmaker_jax.bundles import find_bundles
    from deepmaker_jax.documents import CONFIG, LONGER, experiment_line, has_ended, load_config
    from deepmaker_jax.export import check as checking
    from deepmaker_jax.export.check_run import check_run
    from deepmaker_jax.files import is_held

    path = pathlib.Path(settings.path)
    bundles = find_bundles(path)
    runs = [path, *sorted(found.parent for found in path.glob(f"{LONGER}/*/{CONFIG}"))]
    for run in runs[1:]:
        bundles += find_bundles(run)
    is_damaged = False  # the run itself, not what lies in its longer/
    counts = dict.fromkeys(("agrees", "whole", *checking.BAD), 0)
    not_run: collections.Counter[str] = collections.Counter()
    found = (checking.check_bundle(b, sums_only=settings.sums_only) for b in bundles)
    for finding in itertools.chain(*map(check_run, runs), *found):
        counts[finding.verdict] += 1
        is_own = not finding.path.is_relative_to(path / LONGER)
        is_damaged |= is_own and finding.verdict in checking.BAD
        not_run.update(filter(None, [finding.not_run]))
        say(f"{finding.verdict:9} {finding.path} {finding.text}".rstrip())
    for reason, number in not_run.items():
        print(f"{number} files were not run again; {reason}")
    bad = sum(counts[verdict] for verdict in checking.BAD)
    for run in itertools.filterfalse(has_ended, runs):
        is_going = is_held(run / ledger.NAME)
        say(f"{run} has not ended{': it still goes on' if is_going else ', or lost its end'}")
    if bad:
        print(
            f"{counts['agrees'] + counts['whole']} files are whole; {counts['agrees']} were run "
            "and agree"
        )
        with contextlib.suppress(InputError):  # a finding above
            if is_damaged and (command := experiment_line(path, load_config(path))):
                say(command)
        raise RuntimeError(
            f"{bad} of {sum(counts.values())} files are missing, damaged or disagree"
        )
    if not bundles:
        say(f"{path} has no bundles: its experiment makes them, unless with --final.no-export")
    print(f"all {sum(counts.values())} files are whole; {counts['agrees']} were run and agree")


# name -> (settings, function)
COMMANDS: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "show": (Show, show),
    "report": (Report, write_report),
    "train": (Train, train),
    "deploy": (Deploy, deploy),
    "targets": (Targets, targets),
    "check": (Check, check),
}
RESUMABLE = ("train", "deploy")
