"""Pictures that users bring: one folder per class, PNG or JPEG, any sizes and modes."""

import pathlib
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from deepmaker_jax.data.dataset import SMALLEST_SIDE, Dataset, make_dataset
from deepmaker_jax.errors import InputError

_ENDINGS = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
_LARGEST_SIDE = 1024
_MOST_BYTES = 16 << 30

T = TypeVar("T")


class _Folder(NamedTuple):
    """The pictures of one split."""

    classes: tuple[str, ...]  # sorted
    files: tuple[pathlib.Path, ...]
    labels: np.ndarray  # Int32[files]
    ignored: int  # files of other kinds, and folders inside class folders


def read(path: pathlib.Path, *, side: int | None) -> Dataset:
    """Reads `train/CLASS/*` with `test/CLASS/*` if there, or plain `CLASS/*`.

    Classes are sorted by name; hidden files are passed over, files of other kinds
    and folders too, but counted in `source`. If every picture is grey the images have one
    channel, else three (RGB). Alpha is laid over white; 16-bit grey is scaled by
    255/65535; EXIF orientation is applied. With `side` the largest centred
    square is resized to side x side (bicubic with antialiasing).

    Args:
      path: the folder.
      side: pixels; None: as they are, if all have one size.

    Raises:
      InputError: no class folder; an empty one; a picture that can't be read or is
        too big; train and test classes that differ; sizes that differ without `side`.
    """
    if side is not None and (
        isinstance(side, bool)
        or not isinstance(side, int)
        or not SMALLEST_SIDE <= side <= _LARGEST_SIDE
    ):
        raise InputError(f"side={side!r} must be a whole number {SMALLEST_SIDE}..{_LARGEST_SIDE}")
    split = any((path / name).is_dir() for name in ("train", "test"))
    if split and not (path / "train").is_dir():
        raise InputError(f"{path} has a folder test but no train: add train/CLASS/*.png")
    train = _folder(path / "train" if split else path)
    test = _folder(path / "test") if (path / "test").is_dir() else None
    if test is not None and test.classes != train.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        where, other = ("train", "test") if odd in train.classes else ("test", "train")
        raise InputError(
            f"{path}: class {odd!r} is in {where} but not in {other}: "
            "train and test must have the same classes"
        )
    files = train.files + (test.files if test else ())
    modes = {_work_on(file, _mode) for file in files}
    grey = modes <= set(_GREY)
    mode = "L" if grey else "RGB"
    ignored = train.ignored + (test.ignored if test else 0)
    if split:
        ignored += sum(entry.name not in ("train", "test") for entry in _visible(path))
    counts = f"{len(train.files)} train" + (f" and {len(test.files)} test" if test else "")
    return make_dataset(
        "images",
        train_images=_decode(train.files, side=side, mode=mode, first=files[0]),
        train_labels=train.labels,
        test_images=(_decode(test.files, side=side, mode=mode, first=files[0]) if test else None),
        test_labels=test.labels if test else None,
        class_names=train.classes,
        source=f"pictures by class: {counts}, {ignored} other entries ignored, "
        + ("sizes kept" if side is None else f"centre square resized to {side}"),
    )


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((x for x in folder.iterdir() if not x.name.startswith(".")), key=lambda x: x.name)


def _folder(folder: pathlib.Path) -> _Folder:
    """Lists the pictures below a folder of class folders."""
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise InputError(
            f"{folder} has no class folders: looked for train/CLASS/*.png, CLASS/*.png "
            f"({', '.join(_ENDINGS)}); or name an .npz file with x_train and y_train"
        )
    ignored = len(entries) - len(classes)
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        inside = _visible(entry)
        pictures = [x for x in inside if x.is_file() and x.suffix.lower() in _ENDINGS]
        if not pictures:
            raise InputError(
                f"class folder {entry} holds no picture ({', '.join(_ENDINGS)}): "
                "add some or remove the folder"
            )
        ignored += len(inside) - len(pictures)
        files += pictures
        labels += [label] * len(pictures)
    names = tuple(entry.name for entry in classes)
    return _Folder(names, tuple(files), np.array(labels, np.int32), ignored)


def _mode(image: Image.Image) -> str:
    """Returns the picture's mode after reading the file whole, which checks PNG's sums."""
    mode = image.mode
    image.verify()
    return mode


def _decode(
    files: tuple[pathlib.Path, ...],
    *,
    side: int | None,
    mode: str,
    first: pathlib.Path,
) -> np.ndarray:
    """Returns UInt8[files, height, width, channels].

    Args:
      files: at least one.
      side: pixels of the square to bring all to; None: keep sizes.
      mode: "L" or "RGB".
      first: the first picture of all, whose size the others must have without `side`.
    """

    def pixels(image: Image.Image) -> np.ndarray:
        image = _flat(ImageOps.exif_transpose(image), mode)
        if side is not None and image.size != (side, side):
            # Not ImageOps.fit: its filter reaches for pixels outside the square.
            edge = min(image.size)
            left, top = (image.width - edge) // 2, (image.height - edge) // 2
            image = image.crop((left, top, left + edge, top + edge))
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(image.height, image.width, -1)

    one = _work_on(first, pixels)
    if len(files) * one.nbytes > _MOST_BYTES:
        raise InputError(
            f"{len(files)} pictures of {one.shape[0]}x{one.shape[1]} are more than "
            f"{_MOST_BYTES >> 30} GiB: give --side to make them smaller"
        )
    images = np.empty((len(files), *one.shape), np.uint8)
    for row, file in enumerate(files):
        picture = _work_on(file, pixels)
        if picture.shape != one.shape:
            raise InputError(
                f"picture {file} is {picture.shape[0]}x{picture.shape[1]} but {first} "
                f"{one.shape[0]}x{one.shape[1]}: give --side to resize them all"
            )
        images[row] = picture
    return images


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Returns the picture in mode "L" or "RGB": 8 bits, alpha laid over white."""
    if image.mode.startswith("I"):  # 16-bit grey
        deep = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.rint(np.clip(deep, 0, 65535) * (255 / 65535)).astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return image.convert(mode)


def _work_on(file: pathlib.Path, work: Callable[[Image.Image], T]) -> T:
    """Opens a picture and works on it; whatever fails becomes an `InputError` that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is odd or damaged
            # More than Image.MAX_IMAGE_PIXELS is a warning in Pillow, an error here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                return work(image)
    except Exception as error:  # noqa: BLE001 - decoders raise all kinds
        reason = " ".join(str(error).split())
        too_large = (Image.DecompressionBombWarning, Image.DecompressionBombError)
        way_out = "make it smaller" if isinstance(error, too_large) else "repair it"
        raise InputError(
            f"picture {file} cannot be read ({reason}): {way_out} or remove it"
        ) from None
