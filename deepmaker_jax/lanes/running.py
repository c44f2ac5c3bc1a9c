"""What the forward and the backward pass share: loops with a lane's own counts, products, norms."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.scratch import get, set_window, window
from deepmaker_jax.lanes.size_class import BLOCK, SizeClass
from deepmaker_jax.lanes.wiring import Counts, Wiring
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON

Params = dict[str, Any]


class LaneRun(NamedTuple):
    """What both passes over a lane read: static shapes, weights, wiring and loop counts."""

    of: SizeClass
    params: Params
    wiring: Wiring
    trips: Counts

    def repeat(self, name, body, carry, *at):
        """Runs `body(i, live, carry)` as often as the longest lane beside this one needs.

        `live` is False beyond the lane's own count: what such a turn writes must
        go to the trash.
        """
        trips, own = (
            get(getattr(self.trips, name), *at),
            get(getattr(self.wiring.counts, name), *at),
        )
        return lax.fori_loop(0, trips, lambda i, carry: body(i, i < own, carry), carry)

    def when(self, name, body, carry, *at):
        """Runs `body(zero, carry)` if any lane here repeats `name` at all.

        `zero` is 0: what depends on it is not moved out of the branch by XLA.
        """
        trips = jnp.minimum(get(getattr(self.trips, name), *at), 1)
        return lax.fori_loop(0, trips, body, carry)

    def group(self, live, index, level):
        """Returns a group to read or write, the level's trash in a turn that is not the lane's."""
        return jnp.where(live, index, level.trash)

    def edge(self, live, index):
        """Returns an edge whose weights to read; any does in a turn that is not the lane's."""
        return jnp.where(live, index, 0)

    def by_group(self, name, level):
        """Returns a level's part of a per-channel array, Float[group, c], 0 for the trash."""
        rows = self.of.num_rows[level.index]
        found = self.params[name][level.first_row : level.first_row + rows]
        found = found.reshape(-1, self.of.group)
        return jnp.pad(found, ((0, level.num_groups - len(found)), (0, 0)))

    def by_activation(self, normed, plain, function, *operands):
        """Returns `plain(*operands)` or, behind a norm, `function(activation's name, *operands)`.

        A branch's operands and result are arrays in memory: what reads them does
        not read the scratch memory again, which would be copied whole for that.
        """
        kinds = [lambda *x, n=n: function(n, *x) for n in self.of.activations]
        return lax.switch(
            jnp.where(normed, 1 + self.wiring.activation, 0), [plain, *kinds], *operands
        )

    def block(self, x, chunk, group):
        """Returns BLOCK channels of a chunk from a group on, Float[BLOCK, pixel]."""
        size = BLOCK // self.of.group
        return window(x, (chunk, group, 0, 0), (1, size, *x.shape[2:])).reshape(BLOCK, -1)

    def add_block(self, x, value, chunk, group):
        at, shape = (chunk, group, 0, 0), (1, BLOCK // self.of.group, *x.shape[2:])
        return set_window(x, window(x, at, shape) + value.reshape(shape), at)


def multiply(kernel, x, dtype):
    """Returns kernel @ x, of x's type and summed in `dtype`."""
    return jnp.matmul(kernel.astype(x.dtype), x, preferred_element_type=dtype)


def over_pixels(x, y, dtype):
    """Returns x @ y.T. The order matters: with the larger one last, XLA takes twice as long."""
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def column(vector):
    return vector[:, None]


def moments(z, level):
    """Returns a group's mean and variance over the batch, Float[c] each."""
    count = level.num_chunks * level.pixels
    mean = z.sum((0, 2)) / count
    return mean, jnp.maximum((z * z).sum((0, 2)) / count - mean * mean, 0.0)


def affine(scale, bias, mean, variance):
    """Returns batch norm as a gain and a shift."""
    gain = scale * lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return gain, bias - mean * gain
