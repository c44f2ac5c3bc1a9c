"""What a process needs before JAX computes in it: one XLA thread, a place for programs."""

import os
import pathlib
import sys

ONE_THREAD = {"NPROC": "1", "PJRT_NPROC": "1"}  # XLA's CPU client sizes its thread pools by these


def cache_folder() -> pathlib.Path:
    """Returns where compiled programs are kept between processes and runs.

    `JAX_COMPILATION_CACHE_DIR` names another place.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    default = os.path.join(home, "deepmaker-jax", "programs")
    return pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or default)


def one_thread() -> None:
    """Limits XLA to one CPU thread in this process and those it starts.

    With more, results differ from call to call (jax#39741).

    Raises:
      RuntimeError: JAX has started with its thread pools already.
    """
    if not is_one_thread() and _jax_has_started():
        raise RuntimeError("one_thread() must be called before JAX's first computation")
    os.environ.update(ONE_THREAD)


def _jax_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def is_one_thread() -> bool:
    """Whether `one_thread` was called in this process or the one that started it."""
    return all(os.environ.get(name) == value for name, value in ONE_THREAD.items())


def keep_programs() -> None:
    """Turns on JAX's persistent compilation cache for programs worth keeping."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
