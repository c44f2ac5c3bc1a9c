"""DeepMaker JAX: a search for small, accurate networks for small devices.

The names below are loaded when they are first used, so that `import
deepmaker_jax` starts no JAX.
"""

import importlib
from typing import Any

_PLACES = {
    "Config": "config",
    "Dataset": "data",
    "Gene": "spaces",
    "InputError": "errors",
    "Objective": "types",
    "Space": "spaces",
    "ArchSpec": "arch",
    "Stage": "arch",
    "experiment": "cli",
    "load": "export",
    "load_data": "data",
    "make_dataset": "data",
    "one_thread": "execute.runtime",
    "run": "job",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    return getattr(module, "load" if name == "load_data" else name)
