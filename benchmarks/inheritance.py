"""Whether a child that starts from its parent's weights is judged as well for less training.

    python -m benchmarks.inheritance --data DIR --work WORK --out FILE

Lamarckian inheritance as in Elsken et al. 2019: wherever a child's layer reads and makes what the
parent's did, it takes the weights; what is new is drawn afresh, and those who read it begin with
zeros there, so that a child that only grew computes what its parent did (Net2Net). A layer that
knows none of what it reads is drawn afresh with its norm. Parents are the first of 5,000 parameters
or more and 10 million multiply-accumulates or fewer that the sampler of `benchmarks.curves` draws,
trained for 9 epochs, with a rung at the third; each child is a mutation away, of one to three
genes, mostly. Its accuracy after 1 and 3 epochs from inherited weights, and as many from scratch,
are compared with what a full training from scratch with another seed gives it, as one with the same
seed is a part of its own truth: by Kendall's tau over all children, and over the pairs of children
of one parent, which the parent's accuracy does not tell apart. That, "params" and "macs" are known
without any training of the child. `gains` are what inherited weights add to as many epochs from
scratch, and what one epoch with them has on three without. Every training has the recipe's learning
rate and its decay by the training's end, inherited weights too: whether they need a lower one was
not tried. Intervals hold 90 % by a jackknife over families (t distribution).

A search would have less of it: there most parents were trained for 3 epochs alone, and crossover
changes more of a child. Of 24 families a gain of less than 0.15 in the siblings' tau may stay
unseen. Three core-hours; goes on where it was, inside a
training too.
"""

import argparse
import functools
import itertools
import math
import pathlib
from collections.abc import Callable
from typing import Any

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.stats  # noqa: E402

from benchmarks.curves import RUNGS, feasible, make_task  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from deepmaker_jax.arch import INPUT, ArchSpec, layers  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.evolve import operators  # noqa: E402
from deepmaker_jax.feasible import Feasible  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402
from deepmaker_jax.train.init import init  # noqa: E402

NUM_PARENTS, NUM_CHILDREN = 24, 4
LEAST_PARAMS, MOST_MACS = 5_000, 10_000_000
TRIED = (1, 3)  # epochs
Variables = dict[str, Any]
Channel = tuple[str, int]  # which layer makes it, and its place among that layer's


def channels(arch: ArchSpec) -> dict[str, list[Channel]]:
    """Returns what each layer's input channels are, by the layer's name."""
    made: dict[str, list[Channel]] = {INPUT: [(INPUT, i) for i in range(arch.input_shape[-1])]}
    read: dict[str, list[Channel]] = {}
    for layer in layers(arch):
        read[layer.name] = list(itertools.chain.from_iterable(made[i] for i in layer.inputs))
        makes = layer.op in ("conv", "dense")
        own = [(layer.name, i) for i in range(layer.shape[-1])]
        made[layer.name] = own if makes else read[layer.name]
    return read


def inherit(child: ArchSpec, parent: ArchSpec, trained: Variables, fresh: Variables) -> Variables:
    """Returns the child's first variables.

    Args:
      child: its architecture.
      parent: its parent's; a layer is the same if it has the same name.
      trained: the parent's.
      fresh: the child's own.
    """
    theirs, ours = channels(parent), channels(child)
    found = jax.tree.map(np.array, fresh)
    for layer in layers(child):
        if layer.name not in trained["params"] or layer.op not in ("conv", "dense"):
            continue
        old, new = trained["params"][layer.name], found["params"][layer.name]
        num_out = min(old["kernel"].shape[-1], new["kernel"].shape[-1])
        places = {channel: i for i, channel in enumerate(theirs[layer.name])}
        if places.keys().isdisjoint(ours[layer.name]):
            continue  # zeros for all that it reads would make it constant
        kernel = _resized(old["kernel"], new["kernel"].shape)
        for i, channel in enumerate(ours[layer.name]):
            known = places.get(channel)
            # Outputs that the parent has not are drawn afresh, whatever they read.
            new["kernel"][..., i, :num_out] = 0 if known is None else kernel[..., known, :num_out]
        if "bias" in new:
            new["bias"][:num_out] = old["bias"][:num_out]
        norm = f"{layer.name}_bn"
        for kind in ("params", "batch_stats"):
            for name, leaf in found[kind].get(norm, {}).items():
                leaf[:num_out] = trained[kind][norm][name][:num_out]
    return found


def _resized(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a kernel cut or padded with zeros to another width, about its middle."""
    if kernel.ndim == 2 or kernel.shape[0] == shape[0]:
        return kernel
    by = (shape[0] - kernel.shape[0]) // 2
    if by < 0:
        return kernel[-by:by, -by:by]
    return np.pad(kernel, ((by, by), (by, by), (0, 0), (0, 0)))


def parents(part: Feasible) -> list[np.ndarray]:
    """Returns the parents' genomes."""
    some = part.sample(np.random.default_rng(1), num=8 * NUM_PARENTS)
    costs = [cost(part.space.decode(genome)) for genome in some]
    fitting = [c.params >= LEAST_PARAMS and c.macs <= MOST_MACS for c in costs]
    return list(itertools.compress(some, fitting))[:NUM_PARENTS]


def children_of(genome: np.ndarray, part: Feasible, *, seed: int) -> list[np.ndarray]:
    """Returns different networks that are each a mutation away."""
    rate, known, found = 1 / len(genome), {part.space.id(genome)}, []
    num_choices = jnp.array(part.space.num_choices)
    for key in jax.random.split(jax.random.key(seed), 1000):
        child = operators.mutate(key, genome[None], num_choices=num_choices, rate=rate)
        child = part.space.repair(np.asarray(child[0]))
        if part.space.id(child) not in known and part.allows(child):
            known.add(part.space.id(child))
            found.append(child)
        if len(found) == NUM_CHILDREN:
            return found
    raise RuntimeError(f"{part.space.id(genome)} has fewer than {NUM_CHILDREN} neighbours")


def do_job(data_path: str, work: pathlib.Path, index: int) -> list[dict[str, Any]]:
    """Returns the accuracies of one parent's children; checkpoints lie in `work`."""
    part = feasible()
    task = make_task(0, part, data_path)
    genome = parents(part)[index]
    go = functools.partial(
        train, data=Split(task.images, task.labels), settings=task.settings, seed=task.seed,
        input_scale=task.input_scale, rows=task.search_rows, held_out=task.validation_rows,
        rungs=RUNGS[1:],
    )  # fmt: skip
    folder = work / f"{index}"
    folder.mkdir(parents=True, exist_ok=True)
    parent = part.space.decode(genome)
    trained = go(parent, num_epochs=RUNGS[-1], checkpoint=folder / "parent.msgpack")
    rows = []
    for i, child in enumerate(children_of(genome, part, seed=index)):
        arch = part.space.decode(child)
        fresh = init(arch, seed=task.seed, input_scale=task.input_scale)
        begun = inherit(arch, parent, trained.variables, fresh)
        row: dict[str, Any] = {
            "parent": part.space.id(genome),
            "parent_accuracy": trained.score.accuracy if trained.score else None,
            "id": part.space.id(child),
            "params": cost(arch).params,
            "macs": cost(arch).macs,
        }
        for name, start in (("scratch", None), ("inherited", begun)):
            for epochs in TRIED:
                path = folder / f"{i}-{name}-{epochs}.msgpack"
                score = go(arch, num_epochs=epochs, checkpoint=path, start=start).score
                row[f"{name}_{epochs}"] = score.accuracy if score else None
        path = folder / f"{i}-truth.msgpack"
        score = go(arch, num_epochs=RUNGS[-1], seed=task.seed + 1, checkpoint=path).score
        row["truth"] = score.accuracy if score else None
        rows.append(row)
    return rows


def main() -> None:
    """Trains what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    made = made_of(do_job)
    # No row of one source goes on from a checkpoint of another.
    jobs = {f"parent {i}": (args.data, args.work / made, i) for i in range(NUM_PARENTS)}
    rows = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=args.workers, made_of=made
    )
    publish(summary(rows), args.out)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns how well each cheaper measurement orders the children.

    A training that diverged orders as one that is always wrong.
    """
    names = [f"{start}_{epochs}" for epochs in TRIED for start in ("scratch", "inherited")]
    diverged = {name: sum(row[name] is None for row in rows) for name in (*names, "truth")}
    found = {
        key: np.array([row[key] or 0 for row in rows], np.float64)
        for key in (*names, "truth", "parent_accuracy", "params", "macs")
    }
    of = np.array([row["parent"] for row in rows])
    families = [np.flatnonzero(of == parent) for parent in dict.fromkeys(of)]
    truth = found["truth"]
    table: list[dict[str, Any]] = []
    for name in ("parent_accuracy", "params", "macs", *names):
        row: dict[str, Any] = {"measured": name}
        for key, measure in MEASURES.items():
            if name in names or measure is not mean_accuracy:
                row[key] = jackknifed(measure, families, found[name], truth)
        table.append(row)
    gains: list[dict[str, Any]] = [
        {"of": f"inherited_{epochs}", "beside": f"scratch_{more}"}
        for epochs, more in itertools.combinations_with_replacement(TRIED, 2)
    ]
    for row in gains:
        pair = found[row["of"]], found[row["beside"]]
        for key, measure in MEASURES.items():
            row[key] = jackknifed(functools.partial(_more, measure), families, *pair, truth)
    full = {"full_epochs": RUNGS[-1], "full_mean_accuracy": round(float(truth.mean()), 4)}
    return (
        {"children": len(rows), "diverged": diverged}
        | full
        | {"measurements": table, "gains": gains}
    )


def jackknifed(
    measure: Callable[..., float], families: list[np.ndarray], *columns: np.ndarray
) -> dict[str, Any]:
    """Returns a measure of some families' rows, and what holds it for 90 % of such families."""
    num = len(families)
    without = [measure(families[:i] + families[i + 1 :], *columns) for i in range(num)]
    error = math.sqrt((num - 1) * np.var(without))
    half = error * scipy.stats.t.ppf(0.95, num - 1)
    value = measure(families, *columns)
    interval = [round(float(end), 3) for end in (value - half, value + half)]
    return {"value": round(value, 3), "interval": interval}


def mean_accuracy(families: list[np.ndarray], found: np.ndarray, _: np.ndarray) -> float:
    """Returns the mean of some families' rows."""
    return float(found[np.concatenate(families)].mean())


def tau_of_all(families: list[np.ndarray], found: np.ndarray, truth: np.ndarray) -> float:
    """Returns Kendall's tau over the children of some families, the rows of each."""
    rows = np.concatenate(families)
    return float(scipy.stats.kendalltau(found[rows], truth[rows]).statistic)


def tau_of_siblings(families: list[np.ndarray], found: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean agreement, -1 to 1, of pairs within families."""
    pairs = itertools.chain(*(itertools.combinations(rows, 2) for rows in families))
    return float(
        np.mean([np.sign(found[i] - found[j]) * np.sign(truth[i] - truth[j]) for i, j in pairs])
    )


def _more(measure, families, found, scratch, truth) -> float:
    return measure(families, found, truth) - measure(families, scratch, truth)


MEASURES = {"accuracy": mean_accuracy, "tau": tau_of_all, "tau_of_siblings": tau_of_siblings}


if __name__ == "__main__":
    main()
