"""Bias correction: logits are JAX's on average, also of images that it has not seen."""

import functools

import numpy as np
import pytest

from deepmaker_jax.export import run_tflite, to_tflite, to_tflite_int8
from deepmaker_jax.export.bias import correct_bias
from tests.export.networks import CASES, random_images

NAME = "relu6, window, bottleneck, 5x5"
ARCH = CASES[NAME]
SEEN, UNSEEN = (random_images(ARCH, num=32, seed=seed) for seed in (5, 6))
MAKE = {
    "float16": functools.partial(to_tflite, ARCH, form="float16"),
    "int8": functools.partial(to_tflite_int8, ARCH, calibration=SEEN),
}


@pytest.mark.parametrize("form", MAKE)
def test_the_mean_of_the_logits_is_jaxs(exported, form):
    case = exported(NAME)
    before = {name: leaf.copy() for name, leaf in case.variables["params"]["logits"].items()}
    plain = MAKE[form](case.variables)
    corrected = correct_bias(MAKE[form], ARCH, case.variables, SEEN)
    for images, most in ((SEEN, 0.35), (UNSEEN, 0.7)):
        wanted = case.model.logits(images).mean(0)
        shift, rest = (
            np.abs(run_tflite(file, images).mean(0) - wanted).max() for file in (plain, corrected)
        )
        assert rest < most * shift
    for name, leaf in case.variables["params"]["logits"].items():
        assert np.array_equal(leaf, before[name])
