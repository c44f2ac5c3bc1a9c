"""Common boards: what they hold, and which network fits.

The figures are those of the makers' data sheets, of the microcontroller on the
board, without external memories.
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
      flash_bytes: for programs and constants.
      sram_bytes: the largest block at consecutive addresses, which an arena needs.
      source: the data sheet.
    """

    chip: str
    flash_bytes: int
    sram_bytes: int
    source: str


KIB = 1024
BOARDS = {
    "arduino-nano-33-ble": Board(
        "nRF52840, Cortex-M4F", 1024 * KIB, 256 * KIB, "Nordic, nRF52840 product specification"
    ),
    "disco-l475": Board("STM32L475VG, Cortex-M4F", 1024 * KIB, 96 * KIB, "ST, data sheet DS10969"),
    "nucleo-f446": Board("STM32F446RE, Cortex-M4F", 512 * KIB, 112 * KIB, "ST, data sheet DS10693"),
    "nucleo-f746": Board("STM32F746ZG, Cortex-M7", 1024 * KIB, 320 * KIB, "ST, data sheet DS10916"),
    "nucleo-h743": Board("STM32H743ZI, Cortex-M7", 2048 * KIB, 512 * KIB, "ST, data sheet DS12110"),
    "pico": Board(
        "RP2040, 2 Cortex-M0+", 2048 * KIB, 264 * KIB, "Raspberry Pi, Pico and RP2040 data sheets"
    ),
    "pico-2": Board(
        "RP2350, 2 Cortex-M33", 4096 * KIB, 520 * KIB, "Raspberry Pi, Pico 2 and RP2350 data sheets"
    ),
    "esp32-s3": Board(
        "ESP32-S3-WROOM-1-N8, 2 Xtensa LX7", 8192 * KIB, 512 * KIB,
        "Espressif, ESP32-S3-WROOM-1 data sheet",
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
        "peak_activation_bytes": int(found.sram_bytes * share),
    }


def fits(name: str, *, flash_bytes: int, sram_bytes: int) -> bool:
    """Whether a network leaves a board's application its share.

    Args:
      name: of the board.
      flash_bytes: of the model.
      sram_bytes: of the interpreter's arena, or of the activations alone.
    """
    most = limits(name)
    return flash_bytes <= most["flash_bytes"] and sram_bytes <= most["peak_activation_bytes"]
