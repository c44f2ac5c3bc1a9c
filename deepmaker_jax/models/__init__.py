"""Networks: the plain Flax one of an architecture, and its folded form for export."""

from deepmaker_jax.models.fold import fold, folded_network
from deepmaker_jax.models.network import Network

__all__ = ["Network", "fold", "folded_network"]
