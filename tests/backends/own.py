"""A backend from outside the package: the logits as a table, for a device that looks them up."""

import os
import subprocess
import time

import numpy as np

from deepmaker_jax.backends import Backend, Tool, attempt, entry, measure_each
from deepmaker_jax.export.parity import EXACT

PATH = "table/logits.npy"


def probe():
    return [Tool("numpy", np.__version__, "pip install numpy")]


def build(member):
    path = member.bundle / PATH
    return [attempt(member.bundle, PATH, "table 1", lambda: np.save(path, member.logits))]


def measure(member, artifacts):
    def run(artifact):
        logits = np.load(member.bundle / artifact.path)
        return entry(member, artifact, logits=logits, rule=EXACT)

    return measure_each(member, artifacts, run)


def burst(member):
    raise RuntimeError("no memory\n  left at /some/where")


def die(member):
    tool = subprocess.Popen(["sleep", "600"])
    (member.bundle / "dying" / "half").write_bytes(b"x")
    (member.bundle.parent / "pid").write_text(str(tool.pid))
    os._exit(3)


def hang(member):
    (member.bundle.parent / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def refuse(arch):
    return ["too new", "too old"]


TABLE = Backend("table", "logits as a table", probe, build, measure)
BROKEN = TABLE._replace(name="broken", build=burst)
DYING = TABLE._replace(name="dying", build=die)
HANGING = TABLE._replace(name="hanging", build=hang)
PICKY = TABLE._replace(name="picky", supports=refuse)
