"""Common boards: what they hold, and which network fits.

The figures are of the microcontroller on the board, without external RAM, from
the makers' documents and checked against the memory maps of Zephyr's device
trees and ST's linker scripts.
"""

from typing import NamedTuple

from deepmaker_jax.errors import InputError

# Left to the application and the runtime: TFLM's code alone takes 50 to 100 KB of flash, and a
# camera's frame, stacks and drivers share the SRAM.
APPLICATION_SHARE = 0.5


class Board(NamedTuple):
    """A board.

    Attributes:
      chip: its microcontroller.
      core: its processor.
      clock_mhz: at most.
      flash_bytes: for programs and constants.
      sram_bytes: the largest block at consecutive addresses, which an arena needs.
      source: documents that say so.
    """

    chip: str
    core: str
    clock_mhz: int
    flash_bytes: int
    sram_bytes: int
    source: str


KIB = 1024
BOARDS = {
    "arduino-nano-33-ble": Board(
        "nRF52840", "Cortex-M4F", 64, 1024 * KIB, 256 * KIB,
        "Nordic, nRF52840 Product Specification",
    ),
    # 32 KB more lie elsewhere, at 0x10000000.
    "disco-l475": Board(
        "STM32L475VG", "Cortex-M4F", 80, 1024 * KIB, 96 * KIB,
        "ST, data sheet DS10969 (STM32L475xx)",
    ),
    "nucleo-f446": Board(
        "STM32F446RE", "Cortex-M4F", 180, 512 * KIB, 128 * KIB,
        "ST, data sheet DS10693 (STM32F446xC/E)",
    ),
    # 64 KB of them are data TCM, at the addresses before SRAM1 and SRAM2.
    "nucleo-f746": Board(
        "STM32F746ZG", "Cortex-M7", 216, 1024 * KIB, 320 * KIB,
        "ST, data sheet DS10916 (STM32F745xx, STM32F746xx)",
    ),
    # The AXI SRAM; other domains hold 352 KB more, TCM 192 KB.
    "nucleo-h743": Board(
        "STM32H743ZI", "Cortex-M7", 480, 2048 * KIB, 512 * KIB,
        "ST, data sheet DS12110 (STM32H742xI/G, STM32H743xI/G)",
    ),
    "nucleo-l4r5": Board(  # the reference board of MLPerf Tiny
        "STM32L4R5ZI", "Cortex-M4F", 120, 2048 * KIB, 640 * KIB,
        "ST, data sheet DS12023 (STM32L4R5xx, STM32L4R7xx, STM32L4R9xx)",
    ),
    "pico": Board(
        "RP2040", "2 Cortex-M0+", 133, 2048 * KIB, 264 * KIB,
        "Raspberry Pi, Pico Datasheet and RP2040 Datasheet",
    ),
    "pico-2": Board(
        "RP2350", "2 Cortex-M33", 150, 4096 * KIB, 520 * KIB,
        "Raspberry Pi, Pico 2 Datasheet and RP2350 Datasheet",
    ),
}  # fmt: skip


def board(name: str) -> Board:
    """Returns a board by its name.

    Raises:
      InputError: there is none of that name.
    """
    if name not in BOARDS:
        raise InputError(f"board (={name}) must be one of {', '.join(BOARDS)}")
    return BOARDS[name]


def limits(name: str) -> dict[str, int]:
    """Returns the costs that a network on a board may have: half of it is the application's.

    Raises:
      InputError: there is no such board.
    """
    found, share = board(name), 1 - APPLICATION_SHARE
    return {
        "flash_bytes": int(found.flash_bytes * share),
        "arena_bytes": int(found.sram_bytes * share),
    }


def excess(name: str, *, flash_bytes: float, arena_bytes: float) -> list[str]:
    """Returns what of a board a network takes from the application, "flash" or "SRAM" or both.

    Args:
      name: of the board.
      flash_bytes: of the model.
      arena_bytes: of the interpreter.
    """
    most = limits(name)
    taken = (("flash", flash_bytes, "flash_bytes"), ("SRAM", arena_bytes, "arena_bytes"))
    return [kind for kind, value, limit in taken if value > most[limit]]
