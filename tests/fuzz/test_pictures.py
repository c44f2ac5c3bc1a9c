"""Folders of pictures: damaged ones, bombs, formats that are not admitted, names and links."""

import contextlib
import functools
import io
import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from deepmaker_jax.data import load
from tests.fuzz.core import Door, damaged, generator, listing, memory

MOST_BYTES = 64 << 20
FILES = tuple(f"{split}/{name}" for split in ("train", "test") for name in ("cat", "dog"))
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA", "PDF", "EPS")
MODES = {  # by format; for the others, grey
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "LA", "RGB", "CMYK", "F", "I;16"),
}  # fmt: skip
NAMES = (
    b"\xff\xfe", b"a\nb", b"\x1b[31mred", b"<script>alert(1)<", b"$\\frac{", b"'\"", b" ", b"-rf",
    b"%s%n", b"x" * 200, "\u202etac".encode(), "é漢字".encode(), b"..cat", b"~", b"\\..\\..",
)  # fmt: skip


@functools.cache
def picture(form="PNG", mode="L", side=8, **more):
    out = io.BytesIO()
    pixels = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    Image.fromarray(pixels).convert(mode).save(out, form, **more)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def odd_png(rng):
    """A PNG whose sums are right and whose chunks lie."""
    sides = (0, 1, 3, 8, 9, 4096, 30_000, 2**16, 2**31 - 1)
    width, height = (int(sides[i]) for i in rng.integers(len(sides), size=2))
    if rng.integers(2):
        width = height = 8
    depth, colour, interlace = int(rng.choice([0, 1, 4, 8, 16, 99])), int(rng.integers(8)), 0
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    bomb = zlib.compress(bytes(1 << 20))
    more = (
        b"", chunk(b"zTXt", b"Comment\0\0" + bomb), chunk(b"iCCP", b"x\0\0" + bomb),
        chunk(b"iTXt", b"x\0\1\0\0\0" + bomb), chunk(b"PLTE", b"\0" * 7), chunk(b"tRNS", b""),
        chunk(b"acTL", struct.pack(">II", 2**31, 0)), chunk(b"eXIf", b"MM\0*" + b"\xff" * 40),
        chunk(b"IHDR", head), chunk(b"XXXX", b"x" * 99), chunk(b"gAMA", b""), b"\0" * 99,
    )  # fmt: skip
    extra = more[rng.integers(len(more))]
    pixels = chunk(b"IDAT", zlib.compress(bytes(int(rng.choice([0, 8, 72, 200, 1 << 20])))))
    end = chunk(b"IEND", b"") if rng.integers(4) else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + end


def odd_jpeg(rng):
    """A JPEG whose size, tables or metadata lie."""
    data = bytearray(picture("JPEG"))
    at = data.find(b"\xff\xc0")
    kind = rng.integers(3)
    if kind == 0:
        data[at + 5 : at + 9] = struct.pack(">HH", *(int(n) for n in rng.integers(0, 1 << 16, 2)))
    elif kind == 1:
        data[at + 9] = int(rng.integers(256))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1" + rng.bytes(4) + b"\xff" * 8
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return bytes(data[:2]) + segment + bytes(data[2:])


def odd_entry(rng, folder, outside):
    """Puts a link, a pipe, or a file or folder of an odd name beside the pictures."""
    place = os.path.join(os.fsencode(folder), FILES[rng.integers(4)].encode())
    name = NAMES[rng.integers(len(NAMES))]
    targets = (
        str(outside / "a.png"), str(outside), "/dev/zero", "/etc/passwd", ".", "..", "missing",
        "loop.png",
    )  # fmt: skip
    kind = rng.integers(4)
    if kind == 0:
        os.symlink(targets[rng.integers(len(targets))], os.path.join(place, b"loop.png"))
    elif kind == 1:
        os.mkfifo(os.path.join(place, b"pipe.png"))
    elif kind == 2:
        pathlib.Path(os.fsdecode(os.path.join(place, name + b".png"))).write_bytes(picture())
    else:
        for split in (b"train", b"test"):
            made = os.path.join(os.fsencode(folder), split, name)
            os.makedirs(made)
            pathlib.Path(os.fsdecode(os.path.join(made, b"0.png"))).write_bytes(picture())


def test_pictures(tmp_path, capsys):
    door = Door("pictures", capsys)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(picture())
    for case in range(260):
        rng = generator(door.name, case)
        folder = tmp_path / f"pictures{case}"
        for name in FILES:
            (folder / name).mkdir(parents=True)
            (folder / name / "0.png").write_bytes(picture())
        path = folder / FILES[rng.integers(4)] / "0.png"
        if case == 0:
            pass
        elif case < 60:
            odd_entry(rng, folder, outside)
        elif case < 130:
            path.write_bytes(odd_png(rng))
        elif case < 170:
            path.write_bytes(odd_jpeg(rng))
        elif case < 200:
            form = FORMATS[rng.integers(len(FORMATS))]
            modes = MODES.get(form, ("L",))
            mode = modes[rng.integers(len(modes))]
            path.write_bytes(picture(form, mode, side=int(rng.integers(1, 12))))
        else:
            form = ("PNG", "JPEG")[rng.integers(2)]
            path.write_bytes(damaged(rng, picture(form), other=picture("JPEG", "RGB")))
        side = (None, 8, 4)[rng.integers(3)]
        content = {n: _content(folder / n) for n in listing(folder)}
        before = listing(tmp_path)
        read = functools.partial(load, "images", path=folder, side=side)
        # Of what Python asks for: Pillow is held to a number of pixels before it asks for any.
        with memory(MOST_BYTES) if 60 <= case < 130 else contextlib.nullcontext():
            door.call(case, (side, content), read)
        assert listing(tmp_path) == before, case
        shutil.rmtree(folder)
    door.check(refused=100, accepted=40)


def _content(path):
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else "no file"
