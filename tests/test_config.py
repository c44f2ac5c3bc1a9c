"""Settings: one clear line for each that is out of range."""

import dataclasses
import math
import pathlib

import pytest

from configs import cifar10, cifar100, digits, images, mnist
from deepmaker_jax.config import (
    Config,
    LimitConfig,
    SearchConfig,
    check,
    check_reference,
    from_json,
    to_json,
)
from deepmaker_jax.errors import InputError

PRESETS = {
    f"{module.__name__.split('.')[-1]}-{name}": make
    for module in (cifar10, cifar100, digits, images, mnist)
    for name, make in module.PRESETS.items()
}


def change(path, value):
    group, _, field = path.rpartition(".")
    config = Config()
    if not group:
        return dataclasses.replace(config, **{field: value})
    part = dataclasses.replace(getattr(config, group), **{field: value})
    return dataclasses.replace(config, **{group: part})


@pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_valid_documented_and_survives_json(make):
    check(make())
    assert len(make.__doc__) > 40
    assert from_json(to_json(make())) == make()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", -1, r"seed \(=-1\) must be a whole number, in 0\.\.2147483647"),
        ("seed", 2**31, r"seed"),
        ("validation_share", 0.0, r"validation-share \(=0\.0\) must be above 0 and below 1"),
        ("validation_share", 1.0, r"validation-share"),
        ("validation_share", math.nan, r"validation-share \(=nan\)"),
        ("workers", -1, r"workers \(=-1\) must be a whole number, at least 0"),
        ("address", "auto", r"address \(=auto\) is a Ray cluster's: add --executor ray"),
        ("address", "ray://head:10001", r"address .* must be auto, or HOST:PORT of a Ray cluster"),
        ("side", 3, r"side \(=3\) must be a whole number, in 4\.\.1024"),
        ("limits.params", 0, r"limits\.params \(=0\) must be a whole number, at least 1"),
        ("search.population", 3, r"search\.population \(=3\) must be a whole number, at least 4"),
        (
            "search.population",
            10**6,
            r"search\.population .* must be a whole number, at most 8192",
        ),
        (
            "search.strategy",
            "luck",
            r"search\.strategy \(=luck\) must be one of nsga2, nsga3, random",
        ),
        ("space.only", "kernel=3", r"space\.only \(=kernel=3\) must be a list of words"),
        ("quiet", 1, r"quiet \(=1\) must be True or False"),
        ("train.flip", "no", r"train\.flip \(=no\) must be True, False or None"),
        ("out", 3, r"out \(=3\) must be text or None"),
        ("search", 3, r"search \(=3\) must be a SearchConfig"),
        ("search.objectives", ["error", 3], r"search\.objectives .* must be a list of words"),
        ("limits.macs", 10**400, r"limits\.macs .* at most 9007199254740992"),
        ("train.clip_norm", 10**400, r"train\.clip-norm"),
        ("search.generations", 0, r"search\.generations \(=0\)"),
        ("search.epochs", -2, r"search\.epochs \(=-2\) must be a whole number, at least 1"),
        ("search.images", 0, r"search\.images \(=0\)"),
        ("search.crossover_rate", 1.5, r"search\.crossover-rate \(=1\.5\)"),
        ("search.mutation_rate", -0.1, r"search\.mutation-rate \(=-0\.1\)"),
        ("search.objectives", ("error",), r"search\.objectives \(=error\) must name error first"),
        ("search.floor", 0, r"search\.floor \(=0\) must be a whole number"),
        ("search.objectives", ("error", "error"), r"at least one different objective"),
        ("search.objectives", ("params", "error"), r"search\.objectives \(=params error\)"),
        ("train.batch_size", 1, r"train\.batch-size \(=1\)"),
        ("train.sgd_learning_rate", 0.0, r"\(=0\.0\) must be a finite number above 0"),
        (
            "train.adam_learning_rate",
            math.inf,
            r"train\.adam-learning-rate \(=inf\) must be a finite number above 0",
        ),
        ("train.momentum", 1.0, r"train\.momentum \(=1\.0\)"),
        ("train.weight_decay", -1e-4, r"\(=-0\.0001\) must be a finite number, at least 0"),
        ("train.clip_norm", math.nan, r"train\.clip-norm \(=nan\)"),
        ("train.crop", -1, r"train\.crop \(=-1\)"),
        ("final.members", 0, r"final\.members \(=0\)"),
        ("final.seeds", 0, r"final\.seeds \(=0\) must be a whole number, at least 1"),
        ("final.seeds", 1001, r"final\.seeds \(=1001\) must be a whole number, at most 1000"),
        ("final.epochs", 0, r"final\.epochs \(=0\)"),
        ("final.calibration_images", 0, r"final\.calibration-images \(=0\)"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_value_and_rule(path, value, message):
    with pytest.raises(InputError, match=message):
        check(change(path, value))


@pytest.mark.parametrize("config", [None, {}, "demo", SearchConfig()])
def test_settings_are_a_config(config):
    with pytest.raises(InputError, match=r"config \(=.*\) must be a Config"):
        check(config)


def test_lists_are_taken_for_tuples_and_paths_for_their_text():
    config = Config(
        out=pathlib.Path("runs") / "mine",
        targets=["mcu"],
        search=SearchConfig(objectives=["error"]),
    )
    assert config == Config(
        out="runs/mine", targets=("mcu",), search=SearchConfig(objectives=("error",))
    )


@pytest.mark.parametrize(
    ("objectives", "limits", "message"),
    [
        (("error", "latency_ms"), {}, r"search.floor \(=999\) is of a cost: name one of params"),
        (("error", "macs"), {"macs": 999}, r"search.floor \(=999\) must be below limits.macs"),
    ],
)
def test_a_floor_needs_a_cost_and_room_below_its_limit(objectives, limits, message):
    search = SearchConfig(objectives=objectives, floor=999)
    with pytest.raises(InputError, match=message):
        check(Config(search=search, limits=LimitConfig(**limits)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.pop("search"),
        lambda v: v.update(colour="red"),
        lambda v: v["train"].update(colour="red"),
        lambda v: v.update(train=3),
        lambda v: v.update(seed="0"),
        lambda v: v["search"].update(population=None),
        lambda v: v["train"].update(momentum="0.9"),
        lambda v: v["train"].update(sgd_learning_rate=None),
        lambda v: v.update(validation_share=True),
    ],
)
def test_damaged_settings_are_refused(spoil):
    value = to_json(Config())
    spoil(value)
    with pytest.raises(InputError):
        from_json(value)


@pytest.mark.parametrize("wanted", [None, "0a1b2c3d4e5f", "ResNet-20"])
def test_a_reference_is_a_member_or_a_published_network(wanted):
    check_reference(Config(reference=wanted), [{"name": "ResNet-20", "accuracy": 0.913}])


@pytest.mark.parametrize("wanted", ["resnet-20", "0a1b2c3d4e5", "0A1B2C3D4E5F", ""])
def test_any_other_reference_is_refused_with_the_list(wanted):
    rule = rf"reference \(={wanted}\) must be a member's id, 12 hex digits, or .*: ResNet-20, mine"
    with pytest.raises(InputError, match=rule):
        check_reference(Config(reference=wanted), [{"name": "ResNet-20"}, {"name": "mine"}])
