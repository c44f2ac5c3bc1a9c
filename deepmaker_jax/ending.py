"""How a process ends while a thread of it compiles, which nothing can interrupt.

Python must not end under a thread that XLA will return from: it takes the process down with a
signal of its own. So either its end waits for the thread, or the system ends all at once.
"""

import atexit
import os
import sys
import threading

_left: list[threading.Thread] = []


def leave_behind(thread: threading.Thread) -> None:
    """Lets Python's end wait for a daemon thread that nobody else waits for."""
    _left.append(thread)
    atexit.register(thread.join)  # it runs before what was registered earlier: JAX's own end


def end_at_once(code: int) -> None:
    """Lets this process end with `code` without waiting for what was left behind."""
    if any(thread.is_alive() for thread in _left):
        atexit.register(_end, code)


def _end(code: int) -> None:
    if any(thread.is_alive() for thread in _left):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
