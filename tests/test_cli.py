"""The command lines, in process: help, and flags that say no; see also test_bad_input."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from deepmaker_jax.cli import main
from deepmaker_jax.config import Config
from deepmaker_jax.spaces import GENES
from experiments import cifar10, cifar100, digits, fashion_mnist, images, mnist

EXPERIMENTS = {
    "cifar10": cifar10, "cifar100": cifar100, "digits": digits, "fashion_mnist": fashion_mnist,
    "images": images, "mnist": mnist,
}  # fmt: skip


def refused(capsys, code, *words):
    """The exit code is 2 and stderr is one line that has every word."""
    assert code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("error: ")
    for word in words:
        assert word in said.err
    assert said.out == ""


def _flags(settings, prefix="--"):
    """Every flag that the settings' fields make, the experiment's and preset's own names aside."""
    flags = []
    for field in dataclasses.fields(settings):
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(field.default):
            flags += _flags(type(field.default), f"{name}.")
        elif field.name not in ("experiment", "preset"):
            flags.append(name)
    return flags


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_names_every_setting_with_its_default(name, capsys):
    with pytest.raises(SystemExit) as stop:
        EXPERIMENTS[name].main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in _flags(Config):
        assert re.search(rf"{flag}(?![\w.-])", text), flag
    assert "(default: 16)" in text or "(default: 8)" in text or "(default: 12)" in text
    assert "Presets:" in text
    assert "--experiment" not in text
    for space, genes in GENES.items():
        listed = text.partition(f"  space {space}\n")[2]
        for gene in genes:
            assert re.search(rf"^    .*{gene.name[:-2]}.*: {_choices(gene)}$", listed, re.M), gene


def _choices(gene):
    return re.escape(", ".join(map(str, gene.choices)))


def test_help_has_no_line_breaks_of_the_source(capsys):
    with pytest.raises(SystemExit):
        cifar10.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.strip("│").rstrip() if line.startswith("│       ") else "" for line in lines]
    room = max(map(len, told))
    for line, following in itertools.pairwise(told):
        word = (following.split() or [""])[0]
        assert not word or not line or len(f"{line} {word}") > room, (line, following)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["tiny"], ["preset (=tiny) must be one of smoke, small, night, neuropower, full"]),
        (["smoke", "--sed", "3"], ["Unrecognized options: --sed", "--help"]),
        (["smoke", "--seed", "x"], ["error: seed (=x) must be a whole number; see"]),
        (["smoke", "--seed"], ["--seed needs a value: it must be a whole number"]),
        (
            ["smoke", "--search.strategy", "luck"],
            ["search.strategy (=luck) must be one of nsga2, nsga3, random; see"],
        ),
        (
            ["smoke", "--limits.flash-bytes", "64KB"],
            ["limits.flash-bytes (=64KB) must be a whole number or None; see"],
        ),
        (["--limits.flash_bytes=64KB"], ["limits.flash-bytes (=64KB) must be a whole number"]),
        (["--seed", "1", "--seed", "2.5"], ["seed (=2.5) must be a whole number"]),
        (["--search.mutation-rate", "x"], ["mutation-rate (=x) must be a number or None; see"]),
        (["--train.flip", "maybe"], ["train.flip (=maybe) must be True, False or None; see"]),
        (["--targets", "none", "mcu"], ["targets (=none mcu)", "leave none out"]),
        (["smoke", "extra"], ["extra"]),
        (
            ["--search.population", "8", "smoke"],
            ["preset (=smoke) must come first: python -m experiments.cifar10 smoke --search"],
        ),
        (["smoke", "small"], ["preset (=small) must come first"]),
        (["--reference", "resnet20"], ["reference (=resnet20)", "12 hex digits", "ResNet-20"]),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_2(args, words, capsys):
    refused(capsys, cifar10.main(args), *words)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """120 pictures of 12x12 in 3 classes, as an .npz."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pictures = (rng.integers(0, 60, (120, 12, 12, 1)) + 60 * labels[:, None, None, None]).astype(
        np.uint8
    )
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    np.savez(path, x_train=pictures, y_train=labels)
    return str(path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--space.name", "resnet"], ["space.name (=resnet)", "deepmaker, neuropower"]),
        (["--space.only", "kernel"], ["space.only (=kernel) must look like GENE=CHOICE"]),
        (["--space.only", "learning_rate_log2=--1"], ["gene learning_rate_log2 (=--1)"]),
        (["--space.only", "stages=4"], ["gene stages (=4)", "at most 3", "12x12"]),
        (["--search.objectives", "error", "speed"], ["search.objectives (=speed)", "flash_bytes"]),
        (["--search.images", "90"], ["search.images (=90)", "at most"]),
        (
            ["--search.images", "1"],
            ["search.images (=1) leaves some of the 3 classes without", "must be 17 to 78 here"],
        ),
        (["--train.batch-size", "100"], ["train.batch-size (=100)", "lower it"]),
        (["--train.crop", "12"], ["train.crop (=12)", "12 pixels"]),
        (["--train.crop", "40"], ["train.crop (=40)"]),
        (["--side", "16"], ["side"]),
        (
            ["--final.calibration-images", "501"],
            ["final.calibration-images (=501) must be at most the 96 training images: lower it"],
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_data_are_refused_before_training(
    args, words, npz, tmp_path, capsys
):
    out = tmp_path / "out"
    refused(capsys, images.main(["smoke", "--data", npz, "--out", str(out), *args]), *words)
    assert not out.exists()


def test_out_that_cannot_be_a_run_is_refused_before_any_data_is_read(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    code = cifar10.main(["smoke", "--data", "/no/such/folder", "--out", str(tmp_path)])
    refused(capsys, code, "holds files but no config.json")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["shoe"], ["command (=shoe) must be one of show, report, train, deploy, targets"]),
        (["show"], ["error: deepmaker show needs RUN; see deepmaker show --help"]),
        (["train"], ["error: deepmaker train needs RUN ID; see"]),
        (["train", "run", "abc", "--epochs", "x"], ["epochs (=x) must be a whole number; see"]),
        (["show", "/no/such/run"], ["/no/such/run"]),
        (["report", "/no/such/run"], ["/no/such/run"]),
        (["train", "/no/such/run", "abc"], ["/no/such/run"]),
        (["train", "/no/such/run", "abc", "--epochs", "0"], ["epochs (=0)", "at least 1"]),
        (["train", "/no/such/run", "abc", "--epochs", "100001"], ["at most 100000"]),
    ],
)
def test_deepmaker_commands_refuse_bad_input(argv, words, capsys):
    refused(capsys, main(argv), *words)


def test_deepmaker_help_lists_its_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("show", "report", "train"))


@pytest.mark.parametrize(("flag", "value"), [("--data", "/tmp"), ("--side", "16")])
def test_a_flag_that_the_digits_cannot_use_is_refused(flag, value, capsys):
    refused(capsys, digits.main([flag, value]), value, "leave")
