"""Every case exported once for all tests of this folder: TensorFlow starts once."""

import pytest

from deepmaker_jax.export import Model, to_tflite, to_tflite_int8
from tests.export.networks import CASES, Exported, random_images, random_variables


@pytest.fixture(scope="session")
def exported():
    """Returns a function from a case's name to its `Exported`."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            arch = CASES[name]
            variables, images = random_variables(arch), random_images(arch)
            made[name] = Exported(
                arch=arch,
                variables=variables,
                images=images,
                logits=Model.of(name, arch, variables).logits(images),
                float32=to_tflite(arch, variables),
                int8=to_tflite_int8(arch, variables, random_images(arch, num=8, seed=1)),
            )
        return made[name]

    return get
