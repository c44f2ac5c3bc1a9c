"""How well networks are told apart without any training.

    python -m benchmarks.proxies --data DIR --out FILE

Over the networks of benchmarks/results/curves.jsonl (seed 0, those that were trained to the last
rung): Kendall's tau of each measure with the accuracy after the last rung. synflow (Tanaka et al.
2020): the sum of every weight times its gradient, all weights positive, no norms, an image of ones.
NASWOT (Mellor et al. 2021): the log determinant of how alike the images of a batch are in the signs
behind each norm. Beside them parameters and multiply-accumulates, which cost nothing at all, and
the first rung's training, of the 20 networks with several seeds, by another seed than the truth's:
of one and the same training it is the beginning. `beyond_costs` is the tau of what a linear fit of
logarithms of parameters and multiply-accumulates leaves of both: what a measure knows that the
costs do not say. The last rows are of `deepmaker_jax.preselection`, taught with as many of the
networks as the row says, all measured after three epochs, the most accurate third of them after
nine, as presets do: the mean over networks that it has not seen, of 20 draws. What it goes by was
chosen on 123 of these networks. Three quarters of an hour of one core.
"""

import argparse
import json
import pathlib
from typing import Any
from unittest import mock

from deepmaker_jax.execute import runtime

runtime.one_thread()

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.curves import RUNGS, feasible, make_task  # noqa: E402
from benchmarks.on_paper import OBJECTIVES  # noqa: E402
from benchmarks.record import publish  # noqa: E402
from benchmarks.surrogate import tau  # noqa: E402
from deepmaker_jax.arch import ArchSpec, layers  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.models import Network, fold  # noqa: E402
from deepmaker_jax.models.network import BatchNorm  # noqa: E402
from deepmaker_jax.preselection import Preselection  # noqa: E402
from deepmaker_jax.spaces import Space  # noqa: E402
from deepmaker_jax.train.init import init  # noqa: E402

CURVES = pathlib.Path(__file__).parent / "results" / "curves.jsonl"
BATCH, DRAWS, TAUGHT = 64, 20, (36, 72)
FIRST = "first rung, another seed"


def synflow(arch: ArchSpec, variables: dict[str, Any]) -> float:
    """Returns the logarithm of synflow, of the folded network: its norms are 1 at the beginning."""
    folded_layers, folded = fold(layers(arch), variables)
    # What flows is positive: every activation but those that saturate is the identity there.
    straight = tuple(layer._replace(activation="relu") for layer in folded_layers[:-1])
    network = Network((*straight, folded_layers[-1]), folded=True)
    ones = np.ones((1, *arch.input_shape))

    def total(params):
        return network.apply({"params": params}, ones).sum()

    with jax.enable_x64(True):  # what flows grows with every layer, beyond float32
        positive = jax.tree.map(lambda p: np.abs(np.asarray(p, np.float64)), folded["params"])
        gradient = jax.tree.map(np.asarray, jax.grad(total)(positive))
    flows = jax.tree.map(lambda p, g: (p * g).sum(), positive, gradient)
    return float(np.log(sum(jax.tree.leaves(flows))))


def naswot(arch: ArchSpec, variables: dict[str, Any], images: np.ndarray) -> float:
    """Returns the log determinant of the batch's Hamming kernel."""
    codes = []

    def keep(next_method, args, kwargs, context):
        x = next_method(*args, **kwargs)
        if isinstance(context.module, BatchNorm):
            codes.append(np.asarray(x > 0).reshape(len(x), -1).astype(np.float32))
        return x

    # Dense stages layer by layer: as one operation they keep their maps to themselves.
    whole = mock.patch("deepmaker_jax.models.network.dense_stages", return_value={})
    with whole, nn.intercept_methods(keep):
        network = Network(layers(arch))
        network.apply(variables, images.astype(np.float32), train=True, mutable=["batch_stats"])
    code = np.concatenate(codes, axis=1)
    kernel = code @ code.T + (1 - code) @ (1 - code).T
    return float(np.linalg.slogdet(kernel.astype(np.float64))[1])


def rest(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Returns what a linear fit of the costs leaves of some values."""
    table = np.column_stack([np.ones(len(costs)), costs])
    return values - table @ np.linalg.lstsq(table, values, rcond=None)[0]


def main() -> None:
    """Measures every network and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    part = feasible()
    task = make_task(0, part, args.data)
    accuracies: dict[str, dict[int, float]] = {}
    genomes: dict[str, list[int]] = {}
    first: dict[str, float] = {}  # rung's, by another seed
    for row in map(json.loads, CURVES.read_text().splitlines()):
        if row["seed"] == 0 and row["status"] == "ok":
            genomes[row["id"]] = row["genome"]
            accuracies.setdefault(row["id"], {})[row["epochs"]] = row["accuracy"]
        elif row["seed"] == 1 and row["epochs"] == RUNGS[0] and row["status"] == "ok":
            first[row["id"]] = row["accuracy"]
    ids = [id for id, found in accuracies.items() if RUNGS[-1] in found]
    images = task.images[task.search_rows[:BATCH]]
    found: dict[str, list[float]] = {
        name: [] for name in ("synflow", "naswot", "params", "macs", FIRST)
    }
    for i, id in enumerate(ids):
        arch = part.space.decode(np.array(genomes[id], np.int32))
        variables = init(arch, seed=0, input_scale=task.input_scale)
        costs = cost(arch)
        found["synflow"].append(synflow(arch, variables))
        found["naswot"].append(naswot(arch, variables, images))
        found["params"].append(np.log2(costs.params))
        found["macs"].append(np.log2(costs.macs))
        found[FIRST].append(first.get(id, np.nan))
        if i % 10 == 9:  # operations that networks share compile once, but not all stay
            jax.clear_caches()
    truth = np.array([accuracies[id][RUNGS[-1]] for id in ids])
    costs = np.column_stack([found["params"], found["macs"]])
    rows = []
    for name, values in found.items():
        known = np.isfinite(values)
        if name != FIRST and not known.all():
            raise RuntimeError(f"{name} of {ids[np.argmin(known)]} is no number")
        told, true = np.array(values)[known], truth[known]
        row = {"measure": name, "networks": int(known.sum()), "tau": tau(told, true)}
        if name not in ("params", "macs"):
            row["beyond_costs"] = tau(rest(told, costs[known]), rest(true, costs[known]))
        rows.append(row)
    for num in TAUGHT:
        rows.append(
            {"measure": f"preselection, taught with {num}"}
            | taught(
                part.space,
                [genomes[id] for id in ids],
                [accuracies[id] for id in ids],
                costs,
                num=num,
            )
        )
    publish({"networks": len(ids), "measures": rows}, args.out)


def taught(
    space: Space,
    genomes: list[list[int]],
    accuracies: list[dict[int, float]],
    costs: np.ndarray,
    *,
    num: int,
) -> dict[str, float]:
    """Returns how well a process that was taught with `num` networks tells the others apart."""
    truth, found = np.array([each[RUNGS[-1]] for each in accuracies]), []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(genomes))
        preselection = Preselection(space, OBJECTIVES, RUNGS[1:])
        measured = order[:num]
        for rung, epochs in enumerate(RUNGS[1:]):
            preselection.add(
                rung,
                [
                    {"status": "ok", "genome": genomes[i],
                     "objectives": {"error": 1 - accuracies[i][epochs], "params": 1}}
                    for i in measured
                ],
            )  # fmt: skip
            measured = sorted(measured, key=lambda i: -accuracies[i][epochs])[: num // 3]
        rest_of = order[num:]
        hoped = preselection.hoped([np.array(genomes[i], np.int32) for i in rest_of])[:, 0]
        left = [rest(values, costs[rest_of]) for values in (-hoped, truth[rest_of])]
        found.append((tau(-hoped, truth[rest_of]), tau(*left)))
    values = np.mean(found, axis=0)
    return {"tau": round(float(values[0]), 3), "beyond_costs": round(float(values[1]), 3)}


if __name__ == "__main__":
    main()
