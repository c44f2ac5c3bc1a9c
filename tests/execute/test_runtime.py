"""What workers find in their environment, and that the parent's own comes back."""

import os
import subprocess
import sys

import pytest

from deepmaker_jax.execute import runtime


@pytest.mark.parametrize(
    ("before", "within"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_workers_get_one_thread_and_huge_pages_unless_the_user_decided(before, within, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    if before:
        monkeypatch.setenv("GLIBC_TUNABLES", before)
    with runtime.starting_workers(JAX_PLATFORMS="cpu"):
        names = ("NPROC", "GLIBC_TUNABLES", "JAX_PLATFORMS")
        show = f"import os; print(*(os.environ[name] for name in {names}))"
        said = subprocess.run([sys.executable, "-c", show], capture_output=True, check=True)
    assert said.stdout.decode().split() == ["1", within, "cpu"]
    assert os.environ["JAX_PLATFORMS"] == "tpu"
    assert os.environ.get("GLIBC_TUNABLES") == before
    assert "NPROC" not in os.environ
