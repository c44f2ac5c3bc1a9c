"""Training a member longer: the folder belongs to one process, and says what it is."""

import pytest

from deepmaker_jax.cli import main
from deepmaker_jax.documents import Longer, longer_path, train_command
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch
from deepmaker_jax.files import write_document
from deepmaker_jax.longer import _words, begin_longer

ID = "0123456789ab"


def begin(out, epochs=2, start="a"):
    document = {"config": {"member": ID, "epochs": epochs}, "start": start, "data": "d"}
    return begin_longer(out, document, needed_bytes=0)


def test_two_processes_in_one_folder_are_refused(tmp_path):
    out = tmp_path / "longer"
    with begin(out), pytest.raises(InputError, match="is in use by another process"), begin(out):
        pass
    with begin(out):  # the first has ended: the training goes on
        pass


def test_another_training_in_the_folder_is_refused_with_what_differs(tmp_path):
    with begin(tmp_path):
        pass
    wanted = r"holds another training: config\.epochs \(was 2, now 3\); name a new one with --out"
    with pytest.raises(InputError, match=wanted), begin(tmp_path, epochs=3):
        pass
    with pytest.raises(InputError, match=r"start \(was a, now b\)"), begin(tmp_path, start="b"):
        pass


def test_a_folder_of_an_older_version_that_names_its_run_goes_on(tmp_path):
    with begin(tmp_path):
        pass
    settings = {"run": "another by now", "member": ID, "epochs": 2}
    write_document(tmp_path / "config.json", {"config": settings, "start": "a", "data": "d"})
    with begin(tmp_path):
        pass


def test_a_searchs_folder_is_refused(tmp_path):
    write_document(tmp_path / "config.json", {"config": {"seed": 0}, "objectives": []})
    wanted = "holds something else than a longer training: name a new one"
    with pytest.raises(InputError, match=wanted), begin(tmp_path):
        pass


@pytest.mark.parametrize("command", ["show", "report", "train"])
def test_what_takes_a_run_says_that_a_longer_training_is_none(
    command, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "run" / "longer" / "x"
    folder.parent.mkdir(parents=True)
    with begin(folder):
        pass
    words = [ID] if command == "train" else []
    monkeypatch.chdir(folder)
    for place in (str(folder), "."):
        assert main([command, place, *words]) == 2
        assert capsys.readouterr().err == (
            f"error: {place} is a longer training of member {ID}: name its run, "
            f"{tmp_path / 'run'}; deepmaker check and deepmaker deploy take it as it is\n"
        )


def test_the_command_that_goes_on_is_that_of_where_it_lies(tmp_path):
    longer, run = Longer(ID, 9), tmp_path / "a run"
    said = f"deepmaker train '{run}' {ID} --epochs 9"
    assert train_command(longer_path(run, longer), longer) == said
    assert train_command(run / "longer" / "x", longer) == f"{said} --out '{run}/longer/x'"
    elsewhere = tmp_path / "x"
    assert (
        train_command(elsewhere, longer) == f"deepmaker train RUN {ID} --epochs 9 --out {elsewhere}"
    )


def test_an_epoch_says_what_is_left_but_the_last():
    assert _words(Epoch(ID, "final", 2, 8, 0.5), 30.0) == "epoch 2/8: loss 0.5000; about 3 min left"
    assert _words(Epoch(ID, "final", 8, 8, 0.5), 30.0) == "epoch 8/8: loss 0.5000"
