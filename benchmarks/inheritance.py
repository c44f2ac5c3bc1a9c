"""Whether a child that starts from its parent's weights is judged as well for less training.

    python -m benchmarks.inheritance --data DIR --work WORK --out FILE

Lamarckian inheritance as in Elsken et al. 2019: wherever a child's layer reads and makes what the
parent's did, it takes the weights; what is new is drawn afresh, and those who read it begin with
zeros there, so that a child that only grew computes what its parent did (Net2Net). Parents are the
first of 5,000 parameters or more and 10 million multiply-accumulates or fewer that the sampler of
`benchmarks.curves` draws, trained as there for 9 epochs; each child is a mutation away, of one gene
on average. Its accuracy after 1 and 3 epochs from inherited weights, and as many from scratch, are
compared with what a full training from scratch with another seed, 9 epochs, gives it, as one
with the same seed is a part of its own truth: by Kendall's tau over all children, and over the
pairs of children that only their own training tells apart, those of one parent. "parent" is the
accuracy of a child's parent, which is known without any training of the child. `gain` is what
inherited weights add to as many epochs from scratch. Intervals hold 90 % of what comes out with
parents drawn again, with replacement.

It is the best that a search could have of inheritance: there most parents were trained for 3 epochs
alone, and crossover changes more of a child. Three core-hours; goes on where it was, inside a
training too.
"""

import argparse
import functools
import itertools
import pathlib
from typing import Any

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.stats  # noqa: E402

from benchmarks.curves import RUNGS, feasible, make_task  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.resample import drawn, interval  # noqa: E402
from deepmaker_jax.arch import INPUT, ArchSpec, layers  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.evolve import operators  # noqa: E402
from deepmaker_jax.feasible import Feasible  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402
from deepmaker_jax.train.init import init  # noqa: E402

NUM_PARENTS, NUM_CHILDREN = 8, 6
LEAST_PARAMS, MOST_MACS = 5_000, 10_000_000
REPORTING = ("main", "summary", "_with_interval", "tau_of_all", "tau_of_siblings", "drawn",
             "interval")  # fmt: skip
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
        rungs=RUNGS,
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
        }
        for name, start in (("scratch", None), ("inherited", begun)):
            for epochs in RUNGS[:2]:
                path = folder / f"{i}-{name}-{epochs}.msgpack"  # the longer begins as the shorter
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
    made = made_of(reporting=REPORTING)
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
    names = [f"{start}_{epochs}" for start in ("scratch", "inherited") for epochs in RUNGS[:2]]
    diverged = {name: sum(row[name] is None for row in rows) for name in (*names, "truth")}
    rows = [{key: 0.0 if v is None else v for key, v in row.items()} for row in rows]
    truth = np.array([row["truth"] for row in rows])
    families: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        families.setdefault(row["parent"], []).append(i)
    whole = list(families.values())
    samples = [whole, *([whole[i] for i in rows] for rows in drawn(len(whole)))]
    by_parent = np.array([row["parent_accuracy"] for row in rows])
    alone = _with_interval(np.array([tau_of_all(by_parent, truth, some) for some in samples]))
    table: list[dict[str, Any]] = [
        {"measured": "parent", "mean_accuracy": round(float(by_parent.mean()), 4), "tau": alone}
    ]
    for epochs in RUNGS[:2]:
        taus: dict[str, np.ndarray] = {}
        for name in (f"scratch_{epochs}", f"inherited_{epochs}"):
            found = np.array([row[name] for row in rows])
            row = {"measured": name, "mean_accuracy": round(float(found.mean()), 4)}
            for key, measure in (("tau", tau_of_all), ("tau_of_siblings", tau_of_siblings)):
                values = np.array([measure(found, truth, some) for some in samples])
                row[key] = _with_interval(values)
                if key in taus:
                    row[f"{key}_gain"] = _with_interval(values - taus[key])
                taus[key] = values
            table.append(row)
    mean = round(float(truth.mean()), 4)
    full = {"full_epochs": RUNGS[-1], "full_mean_accuracy": mean}
    return {"children": len(rows), "diverged": diverged} | full | {"measurements": table}


def _with_interval(values: np.ndarray) -> dict[str, Any]:
    """Returns the first value, and what holds 90 % of the others."""
    return {"value": round(float(values[0]), 3), "interval": interval(values[1:], places=3)}


def tau_of_all(found: np.ndarray, truth: np.ndarray, families: list[list[int]]) -> float:
    """Returns Kendall's tau over the children of some families, the rows of each."""
    rows = list(itertools.chain(*families))
    return float(scipy.stats.kendalltau(found[rows], truth[rows]).statistic)


def tau_of_siblings(found: np.ndarray, truth: np.ndarray, families: list[list[int]]) -> float:
    """Returns the mean agreement, -1 to 1, of pairs within families."""
    pairs = itertools.chain(*(itertools.combinations(rows, 2) for rows in families))
    return float(
        np.mean([np.sign(found[i] - found[j]) * np.sign(truth[i] - truth[j]) for i, j in pairs])
    )


if __name__ == "__main__":
    main()
