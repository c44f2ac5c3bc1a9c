"""A trained network in JAX: what a bundle's weights stand for."""

import dataclasses
from typing import Any

import numpy as np

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.errors import InputError
from deepmaker_jax.models import Network
from deepmaker_jax.train.step import predict


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its weights.

    Attributes:
      id: the candidate's.
      arch: its architecture.
      network: the plain Flax module, unfolded; `network.apply(variables, images)`.
      variables: its collections, float32.
    """

    id: str
    arch: ArchSpec
    network: Network
    variables: dict[str, Any]

    @classmethod
    def of(cls, id: str, arch: ArchSpec, variables: dict[str, Any]) -> "Model":
        """Returns the model of an architecture's plain network."""
        return cls(id, arch, Network(layers(arch)), variables)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits, Float32[n, classes], in evaluation mode.

        The bits of a row do not depend on the other rows.

        Args:
          images: raw pixels 0..255, uint8 or float [n, h, w, c].

        Raises:
          InputError: the images are not of the network's shape.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.arch.input_shape:
            raise InputError(
                f"images {list(images.shape)} must be [n, "
                f"{', '.join(map(str, self.arch.input_shape))}], what model {self.id} takes"
            )
        return predict(self.network, self.variables, images)

    __call__ = logits
