"""Parity: whether a file says what JAX says. NumPy alone, so that it is known anywhere."""

from typing import Any, NamedTuple

import numpy as np

# Of the range of JAX's logits: two best logits nearer than this may change places.
CLOSE = 1e-4


class Expected(NamedTuple):
    """What each file is run on, and what JAX says.

    Attributes:
      images: uint8[n, h, w, c].
      labels: int[n].
      logits: Float32[n, classes], of the plain unfolded network.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


class Rule(NamedTuple):
    """What a file must keep to; None for what it need not.

    Attributes:
      max_error: largest difference of a logit, as a part of the range of JAX's
        logits; then every image whose two best logits are not `CLOSE` must have
        JAX's class too.
      min_agreement: smallest share of images with JAX's class.
    """

    max_error: float | None = None
    min_agreement: float | None = None


EXACT = Rule(max_error=0.0)
FLOAT32 = Rule(max_error=1e-4)  # what is measured is about 1e-6
FLOAT16 = Rule(min_agreement=0.995)
# A bound for files that are broken, not for rounding: the worst int8 file of a CIFAR-10 front has
# JAX's class for 94.5 % of the images (benchmarks/results/quantization.json), a hundred classes or
# a network that hardly trained leave less, and devices are compared on 100 images or fewer.
QUANTISED = Rule(min_agreement=0.5)
# What each file of a bundle must keep to.
RULES = {
    "weights.safetensors": EXACT,
    "model_f32.tflite": FLOAT32,
    "model_f16.tflite": FLOAT16,
    "model_dynamic.tflite": QUANTISED,
    "model_int8.tflite": QUANTISED,
    "model.stablehlo.mlirbc": FLOAT32,
    "model.jax_export": FLOAT32,
    "model.onnx": FLOAT32,
}


def compare(
    logits: np.ndarray, expected: Expected, rule: Rule, *, logit_range: float | None = None
) -> tuple[dict[str, Any], float, str | None]:
    """Compares a file's logits with JAX's.

    Args:
      logits: Float32[n, classes], what the file gives for `expected.images`.
      expected: the images and what JAX says.
      rule: what the file must keep to.
      logit_range: the range of JAX's logits, where it is known from more images
        than these.

    Returns:
      (the manifest's parity, top-1 accuracy, what breaks the rule or None).
    """
    scale = float(np.ptp(expected.logits)) if logit_range is None else logit_range
    error = float(np.max(np.abs(logits - expected.logits)))
    chosen = logits.argmax(1)
    same = chosen == expected.logits.argmax(1)
    best = np.sort(expected.logits, axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > CLOSE * scale
    parity = {
        "max_abs_error": error,
        "top1_agreement": float(np.mean(same)),
        "images": len(logits),
        "close_images": int(np.sum(~clear)),
        "logit_range": scale,
        "rule": rule._asdict(),
    }
    accuracy = float(np.mean(chosen == expected.labels))
    return parity, accuracy, _broken(parity, rule, num_changed=int(np.sum(clear & ~same)))


def _broken(parity: dict[str, Any], rule: Rule, *, num_changed: int) -> str | None:
    error, scale, agreement = (
        parity[name] for name in ("max_abs_error", "logit_range", "top1_agreement")
    )
    if not np.isfinite(error):
        return "logits are not finite"
    if rule.max_error is not None and error > rule.max_error * scale:
        return (
            f"logits differ from JAX's by {error:.3g}: more than {rule.max_error} of their "
            f"range, {scale:.3g}"
        )
    if rule.max_error is not None and num_changed:
        return f"{num_changed} images have another class than in JAX, by more than rounding"
    if rule.min_agreement is not None and agreement < rule.min_agreement:
        return (
            f"{agreement:.2%} of the images have the class that JAX gives them: fewer than "
            f"{rule.min_agreement:.2%}"
        )
    return None
