"""`python -m deepmaker_jax.backends`: fetches what pip does not install for this machine."""

from deepmaker_jax.backends import aarch64
from deepmaker_jax.cli import guarded

if __name__ == "__main__":
    raise SystemExit(guarded(aarch64.fetch))
