"""Shared set-up: one XLA thread, kept programs, strict JAX."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from deepmaker_jax.execute import runtime

runtime.one_thread()
runtime.keep_programs()

import jax  # noqa: E402 - after the thread count

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
