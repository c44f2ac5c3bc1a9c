"""Boards: at most 8, each fits what its limits allow."""

import pytest

from deepmaker_jax.backends.boards import APPLICATION_SHARE, BOARDS, board, excess, limits
from deepmaker_jax.config import Config, LimitConfig, check, with_board
from deepmaker_jax.errors import InputError
from experiments import digits


def test_there_are_at_most_8_boards_with_a_source_each():
    assert 1 <= len(BOARDS) <= 8
    for name, found in BOARDS.items():
        assert found.source
        assert found.sram_bytes < found.flash_bytes, name


@pytest.mark.parametrize("name", BOARDS)
def test_limits_leave_the_application_its_share(name):
    most, found = limits(name), board(name)
    assert most["flash_bytes"] == found.flash_bytes * (1 - APPLICATION_SHARE)
    assert most["arena_bytes"] == found.sram_bytes * (1 - APPLICATION_SHARE)
    flash, arena = most["flash_bytes"], most["arena_bytes"]
    assert excess(name, flash_bytes=flash, arena_bytes=arena) == []
    assert excess(name, flash_bytes=flash + 1, arena_bytes=arena) == ["flash"]
    assert excess(name, flash_bytes=flash, arena_bytes=arena + 1) == ["SRAM"]


def test_an_unknown_board_is_refused():
    for ask in (board, lambda name: check(Config(board=name))):
        with pytest.raises(InputError, match=r"board \(=z80\) must be one of arduino-nano-33-ble"):
            ask("z80")


def test_a_board_limits_the_search_unless_a_limit_is_stricter():
    config = with_board(Config(board="pico", limits=LimitConfig(flash_bytes=9000, macs=10**6)))
    arena = limits("pico")["arena_bytes"]
    assert config.limits == LimitConfig(flash_bytes=9000, macs=10**6, arena_bytes=arena)
    assert with_board(Config()) == Config()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--board", "z80"], "board (=z80) must be one of "),
        (["--targets", "z80"], "targets (=z80) must be among arm, mcu, cpu, gpu, fpga"),
        (["--targets", "none", "mcu"], "targets (=none mcu) must be none alone"),
        (["--targets", "mcu", "--final.no-export"], "targets (=mcu) need the exported files"),
    ],
)
def test_an_experiment_refuses_what_it_cannot_do_before_any_work(args, words, tmp_path, capsys):
    out = tmp_path / "out"
    assert digits.main(["demo", "--out", str(out), *args]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {words}")
    assert said.err.count("\n") == 1
    assert not out.exists()
