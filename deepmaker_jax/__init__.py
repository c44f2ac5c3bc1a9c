"""DeepMaker JAX: a search for small, accurate networks for small devices.

The names below are loaded when they are first used, so that `import
deepmaker_jax` starts no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepmaker_jax.arch import ArchSpec, Stage
    from deepmaker_jax.cli import experiment
    from deepmaker_jax.config import Config
    from deepmaker_jax.data import Dataset, make_dataset
    from deepmaker_jax.data import load as load_data
    from deepmaker_jax.errors import InputError
    from deepmaker_jax.execute.runtime import one_thread
    from deepmaker_jax.export import load
    from deepmaker_jax.job import run
    from deepmaker_jax.spaces import Gene, Space
    from deepmaker_jax.types import Objective

_PLACES = {
    "ArchSpec": "arch",
    "Config": "config",
    "Dataset": "data",
    "Gene": "spaces",
    "InputError": "errors",
    "Objective": "types",
    "Space": "spaces",
    "Stage": "arch",
    "experiment": "cli",
    "load": "export",
    "load_data": "data",
    "make_dataset": "data",
    "one_thread": "execute.runtime",
    "run": "job",
}
__all__ = [
    "ArchSpec", "Config", "Dataset", "Gene", "InputError", "Objective", "Space", "Stage",
    "experiment", "load", "load_data", "make_dataset", "one_thread", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    return getattr(module, "load" if name == "load_data" else name)
