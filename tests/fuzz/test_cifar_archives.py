"""CIFAR archives that lie: the tar.gz and the pickles in it.

Nothing is stubbed but the official archive's MD5 sum, which would refuse everything else.
"""

import contextlib
import functools
import gzip
import io
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np

from deepmaker_jax.data import cifar, load, unpickle
from tests.data.conftest import PICKLERS
from tests.fuzz.core import ODD, Attack, Door, damaged, generator, listing, memory

FOLDER = "cifar-10-batches-py"
MOST_BYTES = 48 << 20  # that reading any of these small files may take
NAMES = tuple(cifar.LAYOUTS["cifar10"].files)


@functools.cache
def contents():
    """The dictionaries of a CIFAR of one picture a class and file."""
    rest = {"labels": list(range(10)), "filenames": ["a.png"] * 10}
    batches = (name for name in NAMES if name != "batches.meta")
    return {
        name: rest | {"data": np.full((10, 3072), i, np.uint8)} for i, name in enumerate(batches)
    } | {"batches.meta": {"label_names": [f"kind {i}" for i in range(10)], "num_vis": 3072}}


@functools.cache
def pickles(pickler="python 3, protocol 2"):
    return {name: PICKLERS[pickler](content) for name, content in contents().items()}


def attack(rng, canary):
    """A pickle that would leave a file, or would take all memory or for ever."""
    command = f"touch {canary}".encode()
    name = [b"posix\nsystem", b"os\nsystem", b"subprocess\ngetoutput", b"os\npopen"][
        rng.integers(4)
    ]
    put = b"X" + struct.pack("<I", len(command)) + command
    twice = b"q\x00" + b"h\x00h\x00\x86q\x00" * int(rng.integers(40, 80))
    many = b"X" + struct.pack("<I", 1 << 16) + b"x" * (1 << 16) + b"q\x01"
    encode = b"c_codecs\nencode\nq\x02"
    forms = (
        lambda: b"\x80\x02c" + name + b"\n" + put + b"\x85R.",
        lambda: b"\x80\x02}X\x04\x00\x00\x00datac" + name + b"\n" + put + b"\x85Rs.",
        lambda: b"(i" + name + b"\n.",
        lambda: b"(S'touch " + str(canary).encode() + b"'\ni" + name + b"\n.",
        lambda: b"(c" + name + b"\n" + put + b"o.",
        lambda: b"\x80\x02c" + name + b"\n" + put + b"\x85\x81.",
        lambda: b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + put + b"\x85R.",
        lambda: pickle.dumps(Attack(os.system, command.decode()), int(rng.integers(6))),
        lambda: pickle.dumps(Attack(open, str(canary), "w"), int(rng.integers(6))),
        lambda: pickle.dumps(Attack(exec, f"open({str(canary)!r}, 'w')"), int(rng.integers(6))),
        lambda: pickle.dumps({"data": Attack(eval, "1"), "labels": []}, int(rng.integers(6))),
        lambda: b"\x80\x02P" + command + b"\n.",
        lambda: b"\x80\x02\x82\x01.",
        # One tuple that holds another twice, and so on: hashed, compared or printed for ever.
        lambda: b"\x80\x02}K\x01" + twice + b"K\x01s.",
        lambda: b"\x80\x02}(K\x01" + twice + b"K\x01u.",
        lambda: b"\x80\x04\x8f(K\x01" + twice + b"\x90.",
        lambda: b"\x80\x02}(X\x06\x00\x00\x00labels]K\x01" + twice + b"aX\x04\x00\x00\x00datau.",
        lambda: b"\x80\x02}X\x0b\x00\x00\x00label_names](K\x01" + twice + b"h\x00" * 9 + b"es.",
        # One text made into bytes again and again.
        lambda: (
            b"\x80\x02(" + encode + many + b"0"
            + b"h\x02h\x01X\x06\x00\x00\x00latin1\x86R" * int(rng.integers(70, 999)) + b"l."
        ),
        lambda: b"\x80\x02(" + b"(l" * int(rng.integers(1000, 60_000)) + b".",
        lambda: b"\x80\x04\x95" + struct.pack("<Q", int(rng.integers(1 << 62))) + b"N.",
        lambda: b"\x80\x04\x8e" + struct.pack("<Q", int(rng.integers(1 << 62))) + b"x.",
        lambda: b"\x80\x02\x8b" + struct.pack("<i", int(rng.integers(-(1 << 31), 1 << 31))) + b"x.",
        lambda: b"\x80\x02r" + struct.pack("<I", int(rng.integers(1 << 32))) + b".",
        lambda: b"I" + b"9" * int(rng.integers(1, 9999)) + b"\n.",
    )  # fmt: skip
    return forms[rng.integers(len(forms))]()


def wrong_batch(rng):
    """A batch with a value that its files never have."""
    value = dict(contents()["data_batch_1"])
    shapes = ((10, 3071), (9, 3072), (30720,), (0, 3072), (1, 10, 3072), (20, 3072))
    kinds = (np.int8, np.uint16, np.float32, np.bool_, np.uint8)
    change = rng.integers(5)
    if change == 0:
        value["labels"] = [int(x) for x in rng.integers(-300, 300, 10)]
    elif change == 1:
        value["labels"] = [0] * 9 + [ODD[rng.integers(len(ODD))]]
    elif change == 2:
        value["data"] = np.zeros(shapes[rng.integers(6)], kinds[rng.integers(5)])
    elif change == 3:
        value[("data", "labels")[rng.integers(2)]] = ODD[rng.integers(len(ODD))]
    else:
        value.pop(("data", "labels", "filenames")[rng.integers(3)])
    return pickle.dumps(value, 2)


def test_cifar_batches(tmp_path, capsys, monkeypatch):
    """Each case replaces one of the seven files of a folder."""
    door = Door("CIFAR batches", capsys)
    monkeypatch.setattr(unpickle, "MOST_BYTES", 4 << 20)  # so that a bomb is made in no time
    folder, canary = tmp_path / FOLDER, tmp_path / "canary"
    folder.mkdir()
    for name, data in pickles().items():
        (folder / name).write_bytes(data)
    before = listing(tmp_path).keys()
    for case in range(320):
        rng = generator(door.name, case)
        name = NAMES[rng.integers(len(NAMES))]
        good = pickles(list(PICKLERS)[rng.integers(3)])
        if case < 100:
            bad = attack(rng, canary)
        elif case < 160:
            bad = wrong_batch(rng)
        elif case < 200:  # the words of the pickle, not its pixels
            at = len(good[name]) if name == "batches.meta" else 150
            bad = damaged(rng, good[name][:at]) + good[name][at:]
        else:
            bad = damaged(rng, good[name], other=good[NAMES[rng.integers(len(NAMES))]])
        (folder / name).write_bytes(bad)
        with memory(MOST_BYTES) if case < 200 else contextlib.nullcontext():
            code = door.call(case, bad, lambda: load("cifar10", path=tmp_path))
        assert code == 2 or case >= 100, case
        assert listing(tmp_path).keys() == before, case
        (folder / name).write_bytes(pickles()[name])
    door.check(refused=200, accepted=10)


def entry(name, data=b"", kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for field, value in more.items():
        setattr(info, field, value)
    return info, data


def official():
    start = [entry(FOLDER, kind=tarfile.DIRTYPE), entry(f"{FOLDER}/readme.html", b"read me")]
    return start + [entry(f"{FOLDER}/{name}", data) for name, data in pickles().items()]


def tar_bytes(entries, kind=tarfile.GNU_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


OUTSIDE = (
    f"{FOLDER}/../../canary", "/tmp/canary", "../canary", "canary", f"{FOLDER}/x/../../../canary",
    f"./{FOLDER}/canary", f"{FOLDER}\\..\\canary", f"{FOLDER}/" + "x" * 300, "é", "\x1b[31m", "\n",
)  # fmt: skip
KINDS = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
    tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z",
)  # fmt: skip


def odd_entry(rng):
    """An entry that points outside, is a link or a device, or goes by an official name."""
    name = (*OUTSIDE, *(f"{FOLDER}/{n}" for n in NAMES))[rng.integers(len(OUTSIDE) + len(NAMES))]
    kind = (tarfile.REGTYPE, *KINDS)[rng.integers(len(KINDS) + 1)]
    target = ("/etc/passwd", "../../canary", name, "")[rng.integers(4)]
    headers = {("size", "path", "linkpath", "GNU.sparse.map", "mtime")[rng.integers(5)]: "-1"}
    return entry(
        name, b"x" * int(rng.integers(3)), kind, linkname=target,
        pax_headers=headers if rng.integers(2) else {}, mode=0o4777,
    )  # fmt: skip


def odd_header(rng, data):
    """A tar whose headers have another field each, their sums made right again."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        at = 512 * int(rng.integers(len(data) // 512))
        low, high = ((0, 100), (100, 108), (124, 136), (156, 157), (157, 257), (257, 265))[
            rng.integers(6)
        ]
        fills = (b"\x80", b"\xff", b"7", b"-", b" ", b"\0", b"L", b"x", b"S", b"K", b"g", b"9")
        fill = fills[rng.integers(len(fills))]
        changed[at + low : at + high] = fill * (high - low)
        header = bytes(changed[at : at + 512])
        total = sum(header[:148]) + 8 * 32 + sum(header[156:])
        changed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(changed)


def test_cifar_archives(tmp_path, capsys, monkeypatch):
    door = Door("CIFAR archives", capsys)
    layout = cifar.LAYOUTS["cifar10"]
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", layout._replace(md5=None))
    path, canary = tmp_path / layout.archive, tmp_path / "canary"
    good = tar_bytes(official())
    packed = gzip.compress(good, 1)
    for case in range(320):
        rng = generator(door.name, case)
        entries = official()
        if case == 0:
            bad = packed
        elif case < 90:
            where = int(rng.integers(len(entries) + 1))
            kind = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[rng.integers(2)]
            bad = gzip.compress(
                tar_bytes([*entries[:where], odd_entry(rng), *entries[where:]], kind), 1
            )
        elif case < 120:
            info, _ = entries[3]
            evil = attack(rng, canary)
            entries[3] = entry(info.name, evil)
            bad = gzip.compress(tar_bytes(entries), 1)
        elif case < 200:
            bad = gzip.compress(odd_header(rng, good), 1)
        elif case < 260:
            bad = gzip.compress(damaged(rng, good), 1)
        else:
            bad = damaged(rng, packed)
        path.write_bytes(bad)
        door.call(case, bad, lambda: load("cifar10", path=tmp_path))
        assert os.listdir(tmp_path) == [layout.archive], case
    door.check(refused=200)


def test_an_archive_is_refused_before_it_fills_the_memory(tmp_path, capsys, monkeypatch):
    """A bomb in the readme, in a long name, and in a pax header; of 4 GiB each."""
    door = Door("tar bombs", capsys)
    monkeypatch.setattr(cifar, "_MOST_BYTES", 8 << 20)
    block = bytes(1 << 20)
    for kind, name in ((tarfile.REGTYPE, f"{FOLDER}/readme.html"), (b"L", "x"), (b"x", "x")):
        info = tarfile.TarInfo(name)
        info.size, info.type = 4 << 30, kind
        squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
        pieces = [squeeze.compress(info.tobuf(tarfile.GNU_FORMAT))]
        pieces += [squeeze.compress(block) for _ in range(16)]
        (tmp_path / "a").write_bytes(b"".join([*pieces, squeeze.flush()]))
        with memory(32 << 20):
            code = door.call(
                name, kind, lambda: cifar.read_archive("cifar10", tmp_path / "a", md5=None)
            )
        assert code == 2
