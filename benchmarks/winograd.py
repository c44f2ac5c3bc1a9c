"""Where Winograd's form of a convolution pays in training: the figures behind `winograd.pays`.

    python -m benchmarks.winograd --out benchmarks/results/winograd.json

Forward pass and both gradients of one convolution, batch 64, in a loop inside one program (as in
training), by Winograd's form and by YNNPACK with patches, one thread; the least of REPEATS turns,
the two in turn. About 5 minutes on one core.
"""

import argparse
import pathlib
import time

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.record import publish  # noqa: E402
from deepmaker_jax.models import ops, winograd  # noqa: E402

BATCH, TURNS, REPEATS = 64, 4, 4
SIDES = (32, 16, 8)
CHANNELS = ((4, 4), (16, 8), (16, 16), (32, 8), (32, 16), (32, 32), (64, 16), (96, 12), (96, 32))


def by_winograd(x, kernel, g):
    """Returns what a training step computes of one convolution, by Winograd's form."""
    back = winograd.convolve(g, kernel[::-1, ::-1].swapaxes(2, 3))
    side = kernel.shape[0]
    return winograd.convolve(x, kernel), back, winograd.kernel_gradient(x, g, side=side)


def by_others(x, kernel, g):
    """The same by YNNPACK, and the kernel's gradient by patches."""
    back = ops._by_ynnpack(g, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    of_kernel = ops.kernel_gradient(x, g, side=kernel.shape[0], stride=1)
    return ops._by_ynnpack(x, kernel, 1), back, of_kernel


def compiled(form, args):
    """Returns a function that does TURNS turns of `form` in one call."""

    def run(x, kernel, g):
        def turn(i, total):
            # What depends on the last turn is not moved out of the loop.
            found = jax.lax.optimization_barrier(form(x + 0 * total, kernel, g))
            return total + 0 * sum(part.ravel()[0] for part in found)

        return jax.lax.fori_loop(0, TURNS, turn, jnp.float32(0))

    return jax.jit(run).lower(*args).compile({"xla_backend_optimization_level": 1})


def milliseconds(run, args) -> float:
    """Returns what one turn takes."""
    began = time.perf_counter()
    run(*args).block_until_ready()
    return 1e3 * (time.perf_counter() - began) / TURNS


def main() -> None:
    """Times and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for side in (3, 5):
        for h in SIDES:
            for c, o in CHANNELS:
                shapes = (BATCH, h, h, c), (side, side, c, o), (BATCH, h, h, o)
                some = tuple(rng.standard_normal(s).astype(np.float32) for s in shapes)
                ours, others = compiled(by_winograd, some), compiled(by_others, some)
                spent = [
                    (milliseconds(ours, some), milliseconds(others, some)) for _ in range(REPEATS)
                ]
                a, b = (min(s[i] for s in spent) for i in (0, 1))
                chosen = winograd.pays(shapes[0], shapes[1], 1)
                rows.append({
                    "kernel": side, "side": h, "in": c, "out": o, "winograd_ms": round(a, 2),
                    "others_ms": round(b, 2), "winograd_is_chosen": chosen,
                    "lost_share": round((a if chosen else b) / min(a, b) - 1, 2),
                })  # fmt: skip
                print(rows[-1], flush=True)
    publish({"batch_size": BATCH, "convolutions": rows}, args.out)


if __name__ == "__main__":
    main()
