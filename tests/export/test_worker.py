"""The export's process: it decides about JAX before JAX starts."""

import subprocess
import sys

SHOW = "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"


def test_unpickling_the_work_starts_no_backend():
    code = f"import pickle; pickle.loads(WORK); {SHOW}".replace("WORK", repr(_pickled()))
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "False"


def _pickled():
    import pickle

    from deepmaker_jax.export.worker import do_export

    return pickle.dumps(do_export)
