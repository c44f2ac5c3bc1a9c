"""The run folder: claimed, compared, never overwritten."""

import copy
import dataclasses
import json
import os
import shutil

import pytest

from deepmaker_jax import config as config_module
from deepmaker_jax import run_folder
from deepmaker_jax.config import Config
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import load_json

DOCUMENT = {
    "config": config_module.to_json(Config()),
    "data": {"fingerprint": "f" * 64},
    "space": {"name": "deepmaker", "genes": {"kernel": [3, 5]}},
    "strategy": "NSGA2",
    "objectives": [{"name": "error"}],
    "program": {"strategy": "plain", "threads": 1},
    "versions": {"jax": "0.10.2"},
    "platform": {"machine": "x86_64"},
    "reproducible": True,
    "reason": None,
}


def changed(path, value):
    document = copy.deepcopy(DOCUMENT)
    at = document
    *parents, last = path.split("/")
    for name in parents:
        at = at[name]
    at[last] = value
    return document


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="must be a folder, but it is a file"):
        run_folder.claim(tmp_path / "out", needed_bytes=0)


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds files but no config\.json"):
        run_folder.claim(tmp_path, needed_bytes=0)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_folder_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        run_folder.claim(tmp_path / "file" / "out", needed_bytes=0)


def test_a_full_disk_is_refused_and_leaves_no_folder(tmp_path):
    needed = shutil.disk_usage(tmp_path).free
    with pytest.raises(InputError, match=r"MiB left, a run needs about"):
        run_folder.claim(tmp_path / "out", needed_bytes=needed)
    assert not (tmp_path / "out").exists()


def test_the_same_run_is_accepted_again(tmp_path):
    run_folder.begin(tmp_path, DOCUMENT, Config())
    run_folder.begin(tmp_path, copy.deepcopy(DOCUMENT), Config())
    assert run_folder.holds(tmp_path / "config.json", DOCUMENT)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("config/seed", 1, r"seed \(was 0, now 1\)"),
        ("config/search/population", 8, r"search\.population \(was 16, now 8\)"),
        ("config/search/generations", 3, r"search\.generations \(was 5, now 3\)"),
        ("config/train/batch_size", 64, r"train\.batch_size \(was 128, now 64\)"),
        ("data/fingerprint", "0" * 64, r"data \(was f+, now 0+\)"),
        ("space/name", "mine", r"space \(was deepmaker, now mine\)"),
        ("space/genes", {"kernel": [5, 3]}, r"space\.genes"),
        ("strategy", "RandomSearch", r"strategy \(was NSGA2, now RandomSearch\)"),
        ("program/strategy", "vmap", r"program\.strategy \(was plain, now vmap\)"),
        ("objectives", [{"name": "macs"}], r"objectives"),
        ("versions/jax", "0.11.0", r"versions\.jax \(was 0\.10\.2.*--accept-platform"),
        ("platform/machine", "arm64", r"platform\.machine"),
    ],
)  # fmt: skip
def test_what_changes_results_is_refused_with_the_field(tmp_path, path, value, message):
    run_folder.begin(tmp_path, DOCUMENT, Config())
    with pytest.raises(InputError, match=message):
        run_folder.begin(tmp_path, changed(path, value), Config())
    assert run_folder.holds(tmp_path / "config.json", DOCUMENT)


def test_what_follows_from_a_setting_that_differs_is_not_named_beside_it(tmp_path):
    fields = {"name": "macs", "ideal": 4096, "reference": 10_000}
    old = DOCUMENT | {"objectives": [{"name": "error"}, fields]}
    old["program"] |= {"size_class": ["a", "b"]}
    run_folder.begin(tmp_path, old, Config())

    def refusal(new):
        with pytest.raises(InputError) as caught:
            run_folder.begin(tmp_path, new, Config())
        return str(caught.value).removeprefix("out holds another run: ").partition(";")[0]

    new = copy.deepcopy(old)
    new["program"] |= {"strategy": "map", "size_class": ["b"]}
    program = "program.size_class (was a b, now b), program.strategy (was plain, now map)"
    assert refusal(new) == program
    new["objectives"][1]["reference"] = 5_000
    assert refusal(new) == f"objectives.macs.reference (was 10000, now 5000), {program}"
    new["objectives"][1]["name"] = "params"
    assert refusal(new) == "objectives (was error macs, now error params)"
    new["config"]["space"]["only"] = ["kernel=3"]
    new["config"]["limits"]["macs"] = 5_000
    assert refusal(new) == (
        "limits.macs (was None, now 5000), space.only (was nothing, now kernel=3)"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config/workers", 7),
        ("config/executor", "inline"),
        ("config/quiet", True),
        ("config/data", "elsewhere"),
        ("config/search/generations", 9),
        ("config/final/members", 3),
        ("config/final/seeds", 3),
        ("objectives", [{"name": "error", "how": "by hand"}]),
        ("space/targets", ["fpga"]),
    ],
)
def test_what_does_not_change_results_is_free(tmp_path, path, value):
    run_folder.begin(tmp_path, DOCUMENT, Config())
    run_folder.begin(tmp_path, changed(path, value), Config())


def test_the_targets_that_cut_the_space_are_those_of_the_beginning(tmp_path):
    assert run_folder.targets(tmp_path / "new") is None
    run_folder.begin(tmp_path, DOCUMENT, Config())
    assert run_folder.targets(tmp_path) == ()
    run_folder.begin(tmp_path / "cut", changed("space/targets", ["fpga", "mcu"]), Config())
    assert run_folder.targets(tmp_path / "cut") == ("fpga", "mcu")


def test_an_accepted_platform_is_recorded_for_good(tmp_path):
    run_folder.begin(tmp_path, DOCUMENT, Config())
    new, accept = changed("versions/jax", "0.11.0"), Config(accept_platform=True)
    run_folder.begin(tmp_path, new, accept)
    run_folder.begin(tmp_path, new, Config())
    document = load_json(tmp_path / "config.json")
    assert document["reproducible"] is False
    assert document["accepted_platforms"] == [
        {"versions": {"jax": "0.10.2"}, "platform": {"machine": "x86_64"}}
    ]


def test_a_reason_that_holds_no_more_goes(tmp_path):
    run_folder.begin(tmp_path, DOCUMENT, Config())
    new, accept = changed("versions/jax", "0.11.0"), Config(accept_platform=True)
    run_folder.begin(tmp_path, new, accept)
    run_folder.not_reproducible(tmp_path, "2 measurements were lost")
    run_folder.begin(tmp_path, new, Config())
    document = load_json(tmp_path / "config.json")
    assert document["reason"] == "continued on another platform or with other versions"
    run_folder.program_changed(tmp_path, "out of memory")
    run_folder.not_reproducible(tmp_path, "2 measurements were lost")
    run_folder.begin(tmp_path, new, Config())
    document = load_json(tmp_path / "config.json")
    assert document["reason"] == "out of memory"
    assert not document["reproducible"]


def test_a_front_that_changes_is_kept_beside_the_new_one(tmp_path):
    for members in ([1], [1], [2], [3]):
        run_folder.write_front(tmp_path, {"members": members})
    found = {p.name: json.loads(p.read_text())["members"] for p in tmp_path.iterdir()}
    assert found == {"front.json": [3], "front.1.json": [1], "front.2.json": [2]}


def test_the_settings_of_a_run_are_read_back(tmp_path):
    config = dataclasses.replace(Config(), seed=5)
    document = DOCUMENT | {"config": config_module.to_json(config)}
    run_folder.begin(tmp_path, document, config)
    assert run_folder.read_config(tmp_path) == config


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 3}', '{"config": {}}'])
def test_a_damaged_config_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        run_folder.read_config(tmp_path)
    assert "\n" not in str(caught.value)
