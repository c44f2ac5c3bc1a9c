"""Shared set-up: checked annotations, one XLA thread, kept programs, strict JAX."""

import io
import os
import signal
from typing import TextIO

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from beartype import BeartypeConf, BeartypeDecorPlace, FrozenDict
from beartype.claw import beartype_package

# Not checked: what people and files hand over, which says so in one line of its own; and lanes and
# models, which take whatever JAX traces with.
UNCHECKED = tuple(
    f"deepmaker_jax.{name}"
    for name in ("arch", "config", "data", "job", "lanes", "models", "rules", "spaces")
)
CONF = BeartypeConf(
    claw_decor_place_func=BeartypeDecorPlace.FIRST,  # below `jax.custom_vjp` and its like
    claw_is_pep526=False,  # local variables are pyright's alone
    claw_skip_package_names=UNCHECKED,
    hint_overrides=FrozenDict({TextIO: io.TextIOBase}),  # a StringIO is one
    is_pep484_tower=True,  # an int is a float
)
beartype_package("deepmaker_jax", conf=CONF)

# Tests compile hundreds of programs and run each for seconds: this way in half the time.
# tests/test_extension.py compiles as users do. (Level 0 without fusion emitters computes wrong
# gradients in jaxlib 0.10.)
COMPILED_FAST = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
if COMPILED_FAST not in os.environ.get("XLA_FLAGS", ""):  # a worker of pytest's inherits it
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COMPILED_FAST}".strip()

# A shell starts background jobs with SIGINT ignored, which all that tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

from deepmaker_jax.execute import runtime  # noqa: E402 - after the hook

runtime.one_thread()
runtime.keep_programs()

import jax  # noqa: E402 - after the thread count

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Files that take longest, which begin first: at the end one worker would wait for the other's.
LONGEST = (
    "test_damage", "test_side_by_side", "test_job", "test_backends", "test_executors",
    "test_job_commands", "test_devices", "test_ray", "test_job_settings", "test_documents",
    "test_extension", "test_cifar_archives",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
