"""Times one training step of 24 networks, each in its own program, beside PyTorch eager.

    pip install -e '.[benchmark]'
    python -m benchmarks.plain_step --out benchmarks/results/plain_step.json

One thread each, batch 64 of 32x32x3 with crops and flips, the two in turn; per
network the least of `--repeats` turns. About 4 minutes on one core.
"""

import argparse
import pathlib
import time

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from benchmarks import torch_network  # noqa: E402
from benchmarks.population import population  # noqa: E402
from benchmarks.record import publish  # noqa: E402
from deepmaker_jax.arch import ArchSpec  # noqa: E402
from deepmaker_jax.config import TrainConfig  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.train.init import init  # noqa: E402
from deepmaker_jax.train.optimizer import Cycle  # noqa: E402
from deepmaker_jax.train.runner import Plain  # noqa: E402
from deepmaker_jax.train.step import Feed  # noqa: E402

CYCLE = Cycle(0, 100)
SETTINGS = TrainConfig(batch_size=64, crop=4, flip=True)
SCALE = np.full(3, 1 / 64, np.float32)
NUM_IMAGES = 2048
STEPS = 4  # a call of ours


def make_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns random pixels and labels: a step costs the same on any picture."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, NUM_IMAGES).astype(np.int32)


def our_step(arch: ArchSpec, images: np.ndarray, labels: np.ndarray):
    """Returns (a function that does STEPS steps in one call, seconds to compile it)."""
    feed = Feed(
        images=jax.device_put(images),
        labels=jax.device_put(labels),
        input_scale=jax.device_put(SCALE),
        key=jax.random.key(0),
        learning_rate=np.float32(1e-3),
        cycle=np.array(CYCLE, np.int32),
    )
    began = time.perf_counter()
    variables = init(arch, seed=0, input_scale=SCALE)
    runner = Plain(arch, SETTINGS, feed, variables, measured=False)
    seconds = time.perf_counter() - began
    rows = np.arange(STEPS * SETTINGS.batch_size, dtype=np.int32).reshape(STEPS, -1)

    def go() -> None:
        runner.run(rows, CYCLE)
        jax.block_until_ready(runner.state)

    return go, seconds


def torch_step(arch: ArchSpec, images: np.ndarray, labels: np.ndarray):
    """Returns a function that does one step in PyTorch."""
    network = torch_network.TorchNetwork(arch, SCALE)
    network.load(init(arch, seed=0, input_scale=SCALE))
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch_network.make_optimizer(network, arch, SETTINGS)
    rows = torch.arange(SETTINGS.batch_size)
    data, targets = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))

    def go() -> None:
        x = torch_network.augment(data[rows], crop=4, flip=True)
        loss = functional.cross_entropy(network(x), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return go


def main() -> None:
    """Times and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = make_images()
    rows = []
    for arch in population(args.networks):
        (ours, compile_seconds), theirs = (
            our_step(arch, images, labels),
            torch_step(arch, images, labels),
        )
        times: list[list[float]] = [[], []]
        for _ in range(args.repeats + 1):
            for go, steps, spent in zip((ours, theirs), (STEPS, 1), times, strict=True):
                began = time.perf_counter()
                go()
                spent.append((time.perf_counter() - began) / steps)
        best = [1e3 * min(spent[1:]) for spent in times]  # the first call is not like the rest
        rows.append({
            "params": cost(arch).params, "macs": cost(arch).macs,
            "ours_ms": round(best[0], 2), "pytorch_ms": round(best[1], 2),
            "compile_seconds": round(compile_seconds, 2),
        })  # fmt: skip
    total = {name: sum(row[name] for row in rows) for name in ("ours_ms", "pytorch_ms")}
    publish(
        {
            "torch": torch.__version__,
            "ratio": round(total["pytorch_ms"] / total["ours_ms"], 3),
            "ours_ms": round(total["ours_ms"], 1),
            "pytorch_ms": round(total["pytorch_ms"], 1),
            "compile_seconds": round(sum(row["compile_seconds"] for row in rows), 1),
            "networks": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
