"""A process that ends though a thread of it does not, or though nobody hears that it shall."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from deepmaker_jax.cli import guarded

SCRIPT = """
import sys, threading, time
from deepmaker_jax import ending
from deepmaker_jax.cli import guarded
thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
thread.start()
ending.leave_behind(thread)
def work():
    print("all of this", end="")
    raise {stop}
sys.exit(guarded(work))
"""


@pytest.mark.parametrize(
    ("stop", "code"), [("KeyboardInterrupt", 130), ("RuntimeError('so it is')", 1)]
)
def test_a_command_ends_with_its_code_at_once(stop, code):
    script = SCRIPT.format(stop=stop)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert done.returncode == code
    assert done.stdout == b"all of this"


def test_any_other_end_waits_for_the_thread():
    """Which XLA would take down with a signal."""
    script = """
import atexit, threading, time
from deepmaker_jax import ending
thread = threading.Thread(target=time.sleep, args=(1,), daemon=True)
atexit.register(lambda: print(thread.is_alive()))
thread.start()
ending.leave_behind(thread)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, b"False\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_arrives_where_python_drops_exceptions_is_not_lost(number, code, capsys):
    """In a callback of the garbage collection, as JAX has one."""
    sent = []

    def collecting(phase, info):
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # where the exception is raised

    def work():
        gc.collect()
        time.sleep(60)

    gc.callbacks.append(collecting)
    try:
        assert guarded(work) == code
    finally:
        gc.callbacks.remove(collecting)
    assert sent
    assert capsys.readouterr().err == "stopped\n"
