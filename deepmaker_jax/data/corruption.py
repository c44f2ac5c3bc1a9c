"""Common corruptions of pictures, at five severities each, as CIFAR-10-C has them.

Kinds, formulas and strengths are those of Hendrycks and Dietterich 2019, "Benchmarking
neural network robustness to common corruptions and perturbations", in the code that
CIFAR-10-C was made by (`make_cifar_c.py` of github.com/hendrycks/robustness). Where we
differ: five of its nineteen kinds; severities 1, 3 and 5 of the five; pixels are
rounded to the nearest value instead of down; the blur of pictures larger than 32 pixels
grows with their shorter side (of smaller ones it does not shrink: under half a pixel it
would do nothing); grey pictures are brightened by addition, which is what the value of
HSV comes to, and compressed as grey JPEG; other numbers of channels channel by channel.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

STREAM = 4 << 32  # of Philox: apart from the sampler's, the epochs' and the calibration's
BLUR_SIDE = 32  # that the blur's strengths are meant for
CHUNK_PIXELS = 1 << 22  # that are floats at once
Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


class Kind(NamedTuple):
    """One kind of corruption.

    Attributes:
      strengths: by severity, 1 to 5.
      change: from Float32[n, h, w, c], 0..255, a strength and a source of noise to
        pixels that are not clipped yet.
    """

    strengths: tuple[float, float, float, float, float]
    change: Change


class Cell(NamedTuple):
    """The pictures that one corruption is dealt: `rows` is Int64[k], ascending."""

    kind: str
    severity: int
    rows: np.ndarray


def _noise(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Adds normal noise; `strength` is its deviation as a share of the range."""
    return x + np.float32(255 * strength) * rng.standard_normal(x.shape, np.float32)


def _blur(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blurs by a Gaussian of deviation `strength`, in pixels of a picture of 32."""
    sigma = strength * max(1.0, min(x.shape[1:3]) / BLUR_SIDE)
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def _brighten(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Adds a share of the range to HSV's value: hue and saturation stay as they are."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + np.float32(255 * strength), 255)
    black = value == 0  # becomes grey
    return np.where(black, brighter, x * (brighter / np.where(black, 1, value)))


def _flatten(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Leaves a share of each channel's distance from its mean over the picture."""
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * np.float32(strength) + mean


def _compress(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Stores pictures as JPEG of a quality and reads them back."""
    pixels, channels = x.astype(np.uint8), x.shape[-1]
    if channels == 3:
        return np.stack([_through_jpeg(picture, strength) for picture in pixels])
    grey = np.moveaxis(pixels, -1, 1).reshape(-1, *x.shape[1:3])
    grey = np.stack([_through_jpeg(picture, strength) for picture in grey])
    return np.moveaxis(grey.reshape(-1, channels, *x.shape[1:3]), 1, -1)


def _through_jpeg(picture: np.ndarray, quality: float) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer))


KINDS = {
    "gaussian_noise": Kind((0.04, 0.06, 0.08, 0.09, 0.10), _noise),
    "gaussian_blur": Kind((0.4, 0.6, 0.7, 0.8, 1.0), _blur),
    "brightness": Kind((0.05, 0.1, 0.15, 0.2, 0.3), _brighten),
    "contrast": Kind((0.75, 0.5, 0.4, 0.3, 0.15), _flatten),
    "jpeg_compression": Kind((80, 65, 58, 50, 40), _compress),
}
SEVERITIES = (1, 3, 5)


def corrupt(images: np.ndarray, kind: str, *, severity: int, seed: int) -> np.ndarray:
    """Returns pictures under one corruption, the same for the same arguments.

    Args:
      images: UInt8[n, h, w, c].
      kind: a name of `KINDS`.
      severity: 1 to 5.
      seed: of the noise, which depends on a picture's place among the others.

    Returns:
      UInt8[n, h, w, c].

    Raises:
      ValueError: no such kind or severity.
    """
    if kind not in KINDS or severity not in range(1, 6):
        raise ValueError(f"{kind} at {severity} must be one of {', '.join(KINDS)} at 1 to 5")
    strength, change = KINDS[kind].strengths[severity - 1], KINDS[kind].change
    rng = np.random.Generator(np.random.Philox(key=[seed, STREAM + severity]))
    result = np.empty_like(images)
    step = max(1, CHUNK_PIXELS // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        changed = change(images[part].astype(np.float32), strength, rng)
        result[part] = np.rint(np.clip(changed, 0, 255))
    return result


def deal(num_images: int, *, at_least: int) -> list[Cell]:
    """Deals pictures out to all kinds at `SEVERITIES`, each in turn, as evenly as it goes.

    Every picture meets as many different corruptions as it takes for `at_least`
    corrupted pictures, or all of them. Over many pictures the mean over what was dealt
    is that over all corruptions of all pictures, for a part of the work.

    Args:
      num_images: pictures, at least 1.
      at_least: corrupted pictures wanted.
    """
    pairs = [(kind, severity) for severity in SEVERITIES for kind in KINDS]
    times = min(-(-at_least // num_images), len(pairs))
    turns = np.arange(num_images)
    return [
        Cell(kind, severity, np.flatnonzero((i - turns) % len(pairs) < times))
        for i, (kind, severity) in enumerate(pairs)
    ]


def dealt(images: np.ndarray, *, at_least: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the corrupted pictures of all cells of `deal`, and the row that each is made of.

    Args:
      images: UInt8[n, h, w, c].
      at_least: see `deal`.
      seed: see `corrupt`.

    Returns:
      (UInt8[k, h, w, c], Int64[k]).
    """
    cells = deal(len(images), at_least=at_least)
    parts = [
        corrupt(images[cell.rows], cell.kind, severity=cell.severity, seed=seed) for cell in cells
    ]
    return np.concatenate(parts), np.concatenate([cell.rows for cell in cells])
