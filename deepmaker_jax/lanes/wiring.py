"""A network as data: which channel groups it has and which edges join them.

A *group* is `size_class.group` channels of one layer at one resolution (a
*level*); a layer of 20 channels is three groups of 8, four of whose channels
are padding. An *edge* is the convolution from one group to another. A network
is then two lists, and one compiled program runs any network whose lists fit
its size class: see `lanes.forward`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax.arch import INPUT, ArchSpec, Layer, layers
from deepmaker_jax.lanes.size_class import BLOCK, SizeClass
from deepmaker_jax.types import Array

Place = tuple[str, np.ndarray]  # a lane's array, and where in it (flat) each plain entry lies
Tree = dict[str, Any]


class Counts(NamedTuple):
    """How often each loop of a lane runs: all that differs between lanes in trip counts.

    Lanes that run side by side (vmap) share the larger count of each and send
    what is not theirs to the trash group.

    Attributes:
      num_groups: Int[l], groups of each level.
      num_read: Int[l], groups that the head reads: none above the last level.
      num_stem: Int[l], groups that the stem writes, the level's first ones.
      num_pooled: Int[l], groups that are pooled into the next level.
      num_conv_out, num_conv_in, num_pointwise: Int[l, g], edges out of and into a group.
    """

    num_groups: Array
    num_read: Array
    num_stem: Array
    num_pooled: Array
    num_conv_out: Array
    num_conv_in: Array
    num_pointwise: Array


class Wiring(NamedTuple):
    """A network's groups and edges, padded to its size class.

    Groups of a level are numbered in execution order, edges by (level, source,
    target).

    Attributes:
      counts: the lane's own loop counts.
      num_inputs: Int[l], groups without a norm: what the level before pooled,
        its first ones.
      first_pooled: Int[l].
      by_max: Bool[l], True where pooling takes the largest and not the mean.
      is_last: Bool[l], True where the head reads.
      first_conv_out, first_conv_in, first_pointwise: Int[l, g].
      conv_source, conv_target: Int[e], groups; 0 where there is no edge.
      conv_in: Int[e], edges sorted by (level, target, source).
      pointwise_source: Int[m], the first of the BLOCK channels' groups that a 1x1 edge reads.
      activation: Int[], index into the size class's.
    """

    counts: Counts
    num_inputs: Array
    first_pooled: Array
    by_max: Array
    is_last: Array
    first_conv_out: Array
    first_conv_in: Array
    first_pointwise: Array
    conv_source: Array
    conv_target: Array
    conv_in: Array
    pointwise_source: Array
    activation: Array


class Lane(NamedTuple):
    """A network fitted into a size class.

    Attributes:
      wiring: its groups and edges.
      places: where each leaf of the plain network's `params` and `batch_stats`
        lies, by (collection, layer, name).
    """

    wiring: Wiring
    places: dict[tuple[str, str, str], Place]


class DoesNotFitError(ValueError):
    """An architecture that a size class has no room or no operation for."""


def shapes(size_class: SizeClass) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a lane's arrays by name; `mean` and `var` are its batch statistics."""
    c, k = size_class.group, size_class.kernel
    rows = (sum(size_class.num_rows),)
    return {
        "stem": (size_class.num_stem, c, 9 * size_class.input_shape[-1]),
        "conv": (size_class.num_convs, c, k * k * c),
        "pointwise": (size_class.num_pointwise, BLOCK, BLOCK),
        "scale": rows,
        "bias": rows,
        "head": (max(size_class.num_rows), size_class.num_classes),
        "head_bias": (size_class.num_classes,),
        "mean": rows,
        "var": rows,
    }


STATISTICS = ("mean", "var")


class _Fitting:
    """Lays a layer list out in groups and edges."""

    def __init__(self, size_class: SizeClass):
        self.of = size_class
        num_levels = len(size_class.num_rows)
        self.shapes = shapes(size_class)
        self.rows: dict[str, tuple[int, np.ndarray]] = {}  # tensor -> level, row of each channel
        self.num_groups = [0] * num_levels
        self.num_inputs = [0] * num_levels
        self.num_stem = [0] * num_levels
        self.pooled = [(0, 0, False)] * num_levels  # first group, groups, by maximum
        self.last = 0
        self.convs: list[tuple[int, int, int]] = []  # level, source, target
        self.pointwise: list[tuple[int, int, int]] = []  # level, target, block
        self.places: dict[tuple[str, str, str], Place] = {}
        self.kernels: list[tuple[Layer, int, np.ndarray, np.ndarray]] = []

    def need(self, holds: bool, what: str) -> None:
        if not holds:
            raise DoesNotFitError(f"size class {self.of.name} has no room for {what}")

    def allocate(self, level: int, channels: int) -> np.ndarray:
        """Takes the next groups of a level; returns the rows of `channels` channels."""
        self.need(level < len(self.num_groups), f"level {level}")
        first, c = self.num_groups[level], self.of.group
        self.num_groups[level] += -(-channels // c)
        room = self.of.num_rows[level] // c
        self.need(self.num_groups[level] <= room, f"{self.num_groups[level]} groups")
        return first * c + np.arange(channels)

    def add(self, layer: Layer) -> None:
        if layer.op == "conv":
            self.conv(layer)
        elif layer.op == "concat":
            level = self.rows[layer.inputs[0]][0]
            joined = np.concatenate([self.rows[name][1] for name in layer.inputs])
            self.rows[layer.name] = level, joined
        elif layer.op in ("max_pool", "avg_pool"):
            self.pool(layer)
        elif layer.op == "global_pool":
            self.rows[layer.name] = self.rows[layer.inputs[0]]
            self.last = self.rows[layer.name][0]
        elif layer.op == "dense":
            self.head(layer)
        else:
            self.need(False, f"operation {layer.op}")

    def conv(self, layer: Layer) -> None:
        self.need(layer.norm and not layer.bias, "a convolution without a norm")
        channels = layer.shape[-1]
        if layer.inputs == (INPUT,):
            level = layer.stride - 1
            self.need(layer.kernel == 3 and level <= 1, f"a stem of {layer.kernel}x{layer.kernel}")
            self.need(layer.shape[:2] == self.of.side(level), "a stem of this image's odd side")
            self.need(self.num_groups[level] == 0, "a second stem")
            rows = self.allocate(level, channels)
            self.num_stem[level] = self.num_groups[level]
            self.need(self.num_groups[level] <= self.of.num_stem, f"a stem of {channels} channels")
            columns = np.arange(self.shapes["stem"][-1]).reshape(3, 3, -1, 1)
            self.places["params", layer.name, "kernel"] = "stem", columns + columns.size * rows
        else:
            level, sources = self.rows[layer.inputs[0]]
            self.need(layer.stride == 1, "a stride")
            self.need(layer.kernel in (1, self.of.kernel), f"{layer.kernel}x{layer.kernel} kernels")
            rows = self.allocate(level, channels)
            targets = np.unique(rows // self.of.group)
            if layer.kernel == 1:
                size = BLOCK // self.of.group
                blocks = np.unique(sources // BLOCK) * size
                self.pointwise += [(level, int(t), int(b)) for t in targets[::size] for b in blocks]
            else:
                groups = np.unique(sources // self.of.group)
                self.convs += [(level, int(s), int(t)) for s in groups for t in targets]
            self.kernels.append((layer, level, sources, rows))
        self.rows[layer.name] = level, rows
        start = sum(self.of.num_rows[:level])
        name = f"{layer.name}_bn"
        for leaf in ("scale", "bias"):
            self.places["params", name, leaf] = leaf, start + rows
        for leaf in STATISTICS:
            self.places["batch_stats", name, leaf] = leaf, start + rows

    def pool(self, layer: Layer) -> None:
        level, rows = self.rows[layer.inputs[0]]
        c = self.of.group
        first, count = rows[0] // c, -(-len(rows) // c)
        self.need(np.array_equal(rows, first * c + np.arange(len(rows))), "pooling a concatenation")
        self.need(self.pooled[level][1] == 0, "a second pool of one level")
        self.need(level == 0 or layer.op == "avg_pool", "a max pool below the stem")
        self.pooled[level] = int(first), count, layer.op == "max_pool"
        self.need(level + 1 < len(self.num_groups), f"level {level + 1}")
        self.need(layer.shape[:2] == self.of.side(level + 1), "this image's odd side")
        self.need(self.num_groups[level + 1] == 0, "a pool into a level that has begun")
        self.rows[layer.name] = level + 1, self.allocate(level + 1, len(rows))
        self.num_inputs[level + 1] = count

    def head(self, layer: Layer) -> None:
        _, rows = self.rows[layer.inputs[0]]
        classes = np.arange(self.of.num_classes)
        index = rows[:, None] * len(classes) + classes
        self.places["params", layer.name, "kernel"] = "head", index
        self.places["params", layer.name, "bias"] = "head_bias", classes

    def place_kernels(self) -> None:
        """Finds each kernel's entries, once all edges are known and sorted."""
        c, k = self.of.group, self.of.kernel
        self.convs.sort()
        self.pointwise.sort()
        self.need(len(self.convs) <= self.of.num_convs, f"{len(self.convs)} edges")
        self.need(len(self.pointwise) <= self.of.num_pointwise, f"{len(self.pointwise)} 1x1 edges")
        conv_at = {edge: i for i, edge in enumerate(self.convs)}
        pointwise_at = {edge: i for i, edge in enumerate(self.pointwise)}
        for layer, level, sources, rows in self.kernels:
            name = "pointwise" if layer.kernel == 1 else "conv"
            width = self.shapes[name][-1]
            if layer.kernel == 1:
                size, first = BLOCK // c, rows[0] // c
                starts = first + (rows // c - first) // size * size
                edges = [
                    [pointwise_at[level, t, s // BLOCK * size] for t in starts] for s in sources
                ]
                columns, within, height = (
                    (sources % BLOCK)[None, None, :, None],
                    rows - starts * c,
                    BLOCK,
                )
            else:
                edges = [[conv_at[level, s // c, t // c] for t in rows] for s in sources]
                taps = np.arange(k * k).reshape(k, k, 1, 1)
                columns, within, height = taps * c + (sources % c)[:, None], rows % c, c
            at = (np.array(edges) * height + within) * width
            self.places["params", layer.name, "kernel"] = name, columns + at


def fit(arch: ArchSpec, size_class: SizeClass) -> Lane:
    """Returns an architecture as a lane of `size_class`.

    Raises:
      DoesNotFitError: it has more groups or edges than the class, or an
        operation that the class lacks.
    """
    fitting = _Fitting(size_class)
    fitting.need(arch.input_shape == size_class.input_shape, f"images of {arch.input_shape}")
    fitting.need(arch.num_classes == size_class.num_classes, f"{arch.num_classes} classes")
    fitting.need(arch.activation in size_class.activations, f"activation {arch.activation}")
    fitting.need(arch.optimizer in size_class.optimizers, f"optimizer {arch.optimizer}")
    network = layers(arch)
    fitting.need(network[-1].inputs != (INPUT,), "a network without layers")
    for layer in network:
        fitting.add(layer)
    fitting.place_kernels()
    return Lane(_wiring(fitting, size_class.activations.index(arch.activation)), fitting.places)


def empty(size_class: SizeClass) -> Lane:
    """Returns the lane of no network: no group, no edge, no weight."""
    return Lane(_wiring(_Fitting(size_class), 0), {})


def choose(arch: ArchSpec, table: Sequence[SizeClass]) -> SizeClass | None:
    """Returns the first size class that an architecture fits, or None."""
    for size_class in table:
        try:
            fit(arch, size_class)
        except DoesNotFitError:
            continue
        return size_class
    return None


def _wiring(f: _Fitting, activation: int) -> Wiring:
    of, num_levels = f.of, len(f.num_groups)
    size = (num_levels, max(of.num_rows) // of.group)

    def ranges(edges, column):
        """Returns (first, count) of each group's run in a list sorted by (level, column)."""
        first, count = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for i, edge in enumerate(edges):
            at = edge[0], edge[column]
            first[at] = first[at] if count[at] else i
            count[at] += 1
        return first, count

    def padded(values, length):
        filled = np.zeros(length, np.int32)
        filled[: len(values)] = values
        return filled

    by_target = sorted(range(len(f.convs)), key=lambda i: (f.convs[i][0], f.convs[i][2], i))
    first_out, num_out = ranges(f.convs, 1)
    first_in, num_in = ranges([f.convs[i] for i in by_target], 2)
    first_pointwise, num_pointwise = ranges(f.pointwise, 1)
    pooled = np.array(f.pooled, np.int32)
    groups = np.array(f.num_groups, np.int32)
    return Wiring(
        counts=Counts(
            num_groups=groups,
            num_read=np.where(np.arange(num_levels) == f.last, groups, 0).astype(np.int32),
            num_stem=np.array(f.num_stem, np.int32),
            num_pooled=pooled[:, 1],
            num_conv_out=num_out,
            num_conv_in=num_in,
            num_pointwise=num_pointwise,
        ),
        num_inputs=np.array(f.num_inputs, np.int32),
        first_pooled=pooled[:, 0],
        by_max=pooled[:, 2].astype(bool),
        is_last=np.arange(num_levels) == f.last,
        first_conv_out=first_out,
        first_conv_in=first_in,
        first_pointwise=first_pointwise,
        conv_source=padded([edge[1] for edge in f.convs], of.num_convs),
        conv_target=padded([edge[2] for edge in f.convs], of.num_convs),
        conv_in=padded(by_target, of.num_convs),
        pointwise_source=padded([edge[2] for edge in f.pointwise], of.num_pointwise),
        activation=np.int32(activation),
    )


def turns(lane: Lane) -> int:
    """Returns how often a lane's loops over groups and edges go round in all."""
    return sum(int(np.sum(count)) for count in lane.wiring.counts)


def lane_macs(size_class: SizeClass, lane: Lane) -> int:
    """Returns what a lane's edges multiply for one image, padded channels included."""
    counts, c, total = lane.wiring.counts, size_class.group, 0
    for level in range(len(size_class.num_rows)):
        h, w = size_class.side(level)
        edge = size_class.kernel**2 * c * c
        stem = 9 * size_class.input_shape[-1] * c
        total += (
            h
            * w
            * int(
                counts.num_conv_out[level].sum() * edge
                + counts.num_pointwise[level].sum() * BLOCK * BLOCK
                + counts.num_stem[level] * stem
            )
        )
    return total + max(size_class.num_rows) * size_class.num_classes


def put(lane: Lane, size_class: SizeClass, variables: Tree) -> dict[str, np.ndarray]:
    """Returns a plain network's variables as a lane's arrays, padding zero; `take`'s inverse."""
    dtype = next((v["kernel"].dtype for v in variables["params"].values()), np.float32)
    found = {name: np.zeros(shape, dtype) for name, shape in shapes(size_class).items()}
    for (collection, layer, leaf), (name, index) in lane.places.items():
        value = np.asarray(variables[collection][layer][leaf])
        found[name].reshape(-1)[index.reshape(-1)] = value.reshape(-1)
    return found


def take(lane: Lane, arrays: dict[str, Any]) -> Tree:
    """Returns a lane's arrays as the plain network's `params` and `batch_stats`."""
    flat = {name: np.asarray(value).reshape(-1) for name, value in arrays.items()}
    variables: Tree = {"params": {}, "batch_stats": {}}
    for (collection, layer, leaf), (name, index) in lane.places.items():
        variables[collection].setdefault(layer, {})[leaf] = flat[name][index]
    return variables


def valid(lane: Lane, size_class: SizeClass) -> dict[str, np.ndarray]:
    """Returns Bool arrays like a lane's parameters, True where the plain network has an entry."""
    found = {
        name: np.zeros(shape, bool)
        for name, shape in shapes(size_class).items()
        if name not in STATISTICS
    }
    for (collection, _, _), (name, index) in lane.places.items():
        if collection == "params":
            found[name].reshape(-1)[index.reshape(-1)] = True
    return found
