"""Run by test_devices.py in a process with 8 virtual CPU devices: lanes split over a mesh."""

import functools

import jax
import numpy as np

from deepmaker_jax.train import Split
from deepmaker_jax.train.course import Job
from deepmaker_jax.train.lane import run_on_devices
from deepmaker_jax.train.population import Population
from tests.lanes import test_lane as one


def main():
    devices = jax.devices()
    assert len(devices) == 8, devices
    archs = [one.ARCHS[i % len(one.ARCHS)] for i in range(8)]
    states, feeds = [one.start(a) for a in archs], [one.feed(a) for a in archs]
    calls = [one.call(i, num_steps=4 + i % 3) for i in range(8)]

    @functools.cache
    def program(num):
        """Returns the program on the first `num` devices."""
        mesh = jax.sharding.Mesh(np.array(devices[:num]), ("lanes",))
        return jax.jit(run_on_devices(one.CLASS, one.SETTINGS, mesh))

    def split(num, lanes):
        """Runs these lanes split over the first `num` devices."""
        work = one.stacked([one.make_work(one.CLASS, one.BATCH)] * len(lanes))
        inputs = [one.stacked([kind[i] for i in lanes]) for kind in (states, feeds, calls)]
        found, _, sums = program(num)(one.data(), inputs[0], work, *inputs[1:])
        return [one.of(found, i) for i in range(len(lanes))], np.asarray(sums).sum(1)

    eight, sums = split(8, range(8))
    # One lane a device: each as if it were alone, whichever device it is on.
    for i in (0, 3, 7):
        (alone,), (alone_sums,) = split(1, [i])
        one.same_bits(eight[i], alone)
        np.testing.assert_array_equal(sums[i], alone_sums)
    turned, _ = split(8, [*range(3, 8), 0, 1, 2])
    for place, i in enumerate([*range(3, 8), 0, 1, 2]):
        one.same_bits(turned[place], eight[i])
    two, two_sums = split(2, range(8))  # four lanes a device: another program, to rounding
    for ours, theirs in zip(eight, two, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), ours, theirs
        )
    np.testing.assert_array_equal(sums[:, 0], two_sums[:, 0])
    population(devices[:2])
    print("lanes on 8 devices agree")


def population(devices):
    """Trains three candidates in one lane of each of two devices: a slot is used twice."""
    data = one.data()
    split, held_out = Split(data.images, data.labels), np.arange(40, 64)
    jobs = [
        Job(arch, 2 - (i == 0), np.arange(40), held_out, key=i)
        for i, arch in enumerate(one.ARCHS[:3])
    ]

    def train(order):
        waiting = [jobs[i] for i in order]
        slots = Population(
            one.CLASS, split, settings=one.SETTINGS, seed=0, input_scale=data.input_scale,
            num_lanes=2, devices=devices,
        )  # fmt: skip
        found = slots.train(lambda: waiting.pop(0) if waiting else None)
        return {job.key: trained for job, trained in found}

    found, turned = train([0, 1, 2]), train([2, 1, 0])
    for i in range(3):
        assert not found[i].diverged
        one.same_bits(found[i].variables, turned[i].variables)
        assert found[i].score == turned[i].score


if __name__ == "__main__":
    main()
