"""Settings that are no settings: a config.json that is read, or compared when a run is resumed."""

import copy
import json
import shutil

from deepmaker_jax import config as config_module
from deepmaker_jax import run_folder
from deepmaker_jax.config import Config
from tests.fuzz.core import Door, as_text, changed, damaged, generator, listing

GOOD = config_module.to_json(Config())
DOCUMENT = {
    "config": GOOD,
    "data": {"name": "digits", "fingerprint": "f" * 64},
    "space": {"name": "deepmaker", "genes": {"kernel": [3, 5]}, "targets": ["mcu"]},
    "strategy": "NSGA2",
    "objectives": [{"name": "error", "how": ""}, {"name": "params", "how": ""}],
    "program": {"strategy": "plain", "threads": 1},
    "versions": {"jax": "0.10.2"},
    "platform": {"machine": "x86_64"},
    "reproducible": True,
    "reason": None,
    "accepted_platforms": [{"versions": {}, "platform": {}}],
    "program_changes": ["half as many lanes"],
}


def test_settings(capsys):
    """What is taken is the same again after it was written."""
    door = Door("settings", capsys)
    for case in range(700):
        value = changed(generator(door.name, case), GOOD) if case else copy.deepcopy(GOOD)

        def read(value=value):
            config = config_module.from_json(value)
            assert config_module.from_json(config_module.to_json(config)) == config

        door.call(case, repr(value), read)
    door.check(refused=300, accepted=50)


def test_resumed_settings(tmp_path, capsys):
    """A run goes on in its folder, or leaves all there as it was."""
    door = Door("resumed settings", capsys)
    for case in range(500):
        rng = generator(door.name, case)
        out = tmp_path / f"run{case}"
        out.mkdir()
        text = json.dumps(DOCUMENT)
        if case >= 350:
            text = damaged(rng, text.encode()).decode("utf-8", "surrogateescape")
        elif case:
            text = as_text(changed(rng, DOCUMENT))
        (out / run_folder.CONFIG).write_text(text, errors="surrogateescape")
        (out / run_folder.FRONT).write_text('{"members": []}')
        run_folder.make_folders(out)
        before = listing(out)
        config = Config(accept_platform=bool(rng.integers(2)))

        def resume(out=out, config=config):
            run_folder.check(out)
            run_folder.targets(out)
            run_folder.begin(out, copy.deepcopy(DOCUMENT), config)

        code = door.call(case, text.encode("utf-8", "surrogateescape"), resume)
        after = listing(out)
        assert after.keys() == before.keys(), case
        assert code == 0 or after == before, case
        shutil.rmtree(out)
    door.check(refused=200, accepted=30)


def test_a_run_folder_read_for_training(tmp_path, capsys):
    """`deepmaker train` reads settings and data out of config.json before anything else."""
    door = Door("settings of a trained run", capsys)
    for case in range(280):
        rng = generator(door.name, case)
        value = changed(rng, DOCUMENT) if case else DOCUMENT
        (tmp_path / run_folder.CONFIG).write_text(as_text(value))
        door.call(case, repr(value), lambda: run_folder.read_config(tmp_path))
    door.check(refused=40, accepted=40)
