"""One update a step: the sliding window of the classic pseudocode, `bptt` beside PyTorch, NumPy and
JAX.

    python benchmarks/online.py [--json FILE] [--rounds N] [--quick]

All on one thread, in turn. The peer of `bptt.fit` is a loop over windows that unfolds, goes back,
updates by plain SGD and advances the context: PyTorch with `nn.RNN` and with a cell, NumPy by hand,
JAX with the window as a `scan` inside a `fori_loop`, and with the window unrolled.

Operations are those of the arithmetic an update needs: two a multiply-add in every product (input,
recurrence and readout; forward, backward and gradients; the advance), one an element for each
pointwise instruction and for the update itself. The peak of one stream is what a product of one
row with a matrix in cache reaches on this machine, one thread, by the core's own kernel: with a
matrix of the same size, and with one of the best size (small ones never get there).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from harness import machine, table, write
from torch import nn

import bptt

# Before JAX is imported, which reads it then.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

RATE = 1e-3

Case = tuple[str, int, int, str, int]  # cell, hidden, depth, optimizer, lanes


def data(steps: int, lanes: int) -> torch.Tensor:
    """A sine in noise for every lane."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, lanes, 1, generator=generator)
    return torch.arange(steps)[:, None, None].mul(0.1).sin() + 0.1 * noise


def network(cell: str, hidden: int) -> bptt.Network:
    torch.manual_seed(1)
    return bptt.Network(getattr(bptt.cells, cell)(1, hidden), nn.Linear(hidden, 1))


# -- contestants: each makes a call that gives how many updates it made ---------------------------


def ours(cell: str, hidden: int, depth: int, optimizer: str, lanes: int, updates: int) -> Any:
    net = network(cell, hidden)
    series = data(updates + depth, lanes)
    stream = bptt.Stream(series, horizon=1)
    kind = getattr(torch.optim, optimizer)
    optim, method = kind(net.parameters(), RATE), bptt.SlidingWindow(depth)

    def call() -> int:
        history = bptt.fit(net, stream, method=method, optimizer=optim, epochs=1, progress=False)
        return history.epochs[0].updates

    return call


def stepwise(hidden: int, depth: int, updates: int) -> Callable[[], int]:
    learner = bptt.Online(
        network("Elman", hidden),
        bptt.SlidingWindow(depth),
        "mse",
        lambda p: torch.optim.SGD(p, RATE),
    )
    steps = list(data(updates, 1)[:, 0])

    def call() -> int:
        for step in steps:
            learner.step(step, step)
        return len(steps)

    return call


def torch_loop(hidden: int, depth: int, updates: int, whole: bool) -> Callable[[], int]:
    net = network("Elman", hidden)
    layer = nn.RNN(1, hidden)
    optim = torch.optim.SGD(
        [*(layer if whole else net.cell).parameters(), *net.readout.parameters()], RATE
    )
    series = data(updates + depth, 1)

    def window(t: int, x: torch.Tensor) -> torch.Tensor:
        if whole:
            return layer(series[t : t + depth], x[None])[1][0]
        for k in range(depth):
            x = net.cell(series[t + k], x)
        return x

    def call() -> int:
        x = torch.zeros(1, hidden)
        for t in range(updates):
            loss = (net.readout(window(t, x)) - series[t + depth]).square().mean()
            loss.backward()
            optim.step()
            optim.zero_grad()
            with torch.no_grad():
                x = layer(series[t : t + 1], x[None])[1][0] if whole else net.cell(series[t], x)
        return updates

    return call


def numpy_loop(hidden: int, depth: int, updates: int) -> Callable[[], int]:
    net = network("Elman", hidden)
    w = {k: v.detach().numpy().copy() for k, v in net.cell.named_parameters()}
    v, d = (p.detach().numpy().copy() for p in net.readout.parameters())
    series = data(updates + depth, 1)[:, 0].numpy()

    def step(x: np.ndarray, a: np.ndarray) -> np.ndarray:
        return np.tanh(w["weight_ih"] @ a + w["bias_ih"] + w["weight_hh"] @ x + w["bias_hh"])

    def call() -> int:
        nonlocal v, d
        x = np.zeros(hidden, np.float32)
        states = np.empty((depth + 1, hidden), np.float32)
        deltas = np.empty((depth, hidden), np.float32)
        for t in range(updates):
            states[0] = x
            for k in range(depth):
                states[k + 1] = step(states[k], series[t + k])
            slope = 2 * (v @ states[-1] + d - series[t + depth])
            back = v[0] * slope
            for k in reversed(range(depth)):
                deltas[k] = back * (1 - states[k + 1] ** 2)
                back = deltas[k] @ w["weight_hh"]
            bias = deltas.sum(0)
            v -= RATE * slope * states[-1]
            d -= RATE * slope
            w["weight_hh"] -= RATE * deltas.T @ states[:-1]
            w["weight_ih"] -= RATE * deltas.T @ series[t : t + depth]
            w["bias_ih"] -= RATE * bias
            w["bias_hh"] -= RATE * bias
            x = step(x, series[t])
        return updates

    return call


def jax_loop(hidden: int, depth: int, updates: int, unrolled: bool) -> Callable[[], int]:
    import jax
    import jax.numpy as jnp

    net = network("Elman", hidden)
    weights = {k: jnp.asarray(p.detach().numpy()) for k, p in net.state_dict().items()}
    series = jnp.asarray(data(updates + depth, 1)[:, 0].numpy())

    def step(w: Any, x: Any, a: Any) -> Any:
        drive = w["cell.weight_ih"] @ a + w["cell.bias_ih"] + w["cell.bias_hh"]
        return jnp.tanh(drive + w["cell.weight_hh"] @ x)

    def cost(w: Any, x: Any, window: Any, target: Any) -> Any:
        if unrolled:
            for k in range(depth):
                x = step(w, x, window[k])
        else:
            x, _ = jax.lax.scan(lambda x, a: (step(w, x, a), None), x, window)
        return jnp.mean((w["readout.weight"] @ x + w["readout.bias"] - target) ** 2)

    def update(t: Any, carry: Any) -> Any:
        w, x = carry
        window = jax.lax.dynamic_slice_in_dim(series, t, depth)
        slope = jax.grad(cost)(w, x, window, series[t + depth])
        w = jax.tree_util.tree_map(lambda p, g: p - RATE * g, w, slope)
        return w, step(w, x, series[t])

    run = jax.jit(lambda w: jax.lax.fori_loop(0, updates, update, (w, jnp.zeros(hidden))))

    def call() -> int:
        jax.block_until_ready(run(weights))
        return updates

    return call


# -- what it should cost --------------------------------------------------------------------------


def operations(cell: str, hidden: int, depth: int, optimizer: str, lanes: int) -> float:
    """Operations of one update; see the head of this file."""
    gates = {"Elman": 1, "GRU": 3, "LSTM": 4}[cell]
    weights = gates * hidden * (hidden + 1)
    forward = (depth + 1) * 2 * weights
    backward = (depth - 1) * 2 * gates * hidden * hidden + depth * 2 * weights
    pointwise = {"Elman": 1 + 1, "GRU": 8 + 9, "LSTM": 9 + 12}[cell] * depth * hidden
    readout = 6 * hidden
    parameters = weights + 2 * gates * hidden + hidden + 1
    step = {"SGD": 2, "Adam": 12}[optimizer] * parameters + 2 * parameters
    return lanes * (forward + backward + pointwise + readout) + step


def product_of_one_row(hidden: int) -> Callable[[], int]:
    """A row times a hidden x hidden matrix, in cache; gives how many operations were made."""
    from bptt import _core

    a, m, out = torch.randn(1, hidden), torch.randn(hidden, hidden) / hidden, torch.empty(1, hidden)
    repeat = 20_000

    def call() -> int:
        _core.multiply(a, m, out, repeat=repeat)
        return 2 * hidden * hidden * repeat

    return call


def in_turn(contestants: dict[Any, Callable[[], int]], rounds: int) -> dict[Any, list[float]]:
    """Microseconds an update (or an operation) in every round."""
    found: dict[Any, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()  # compilation, tracing
    for _ in range(rounds):
        for name, call in contestants.items():
            started = time.perf_counter()
            made = call()
            found[name].append((time.perf_counter() - started) / made * 1e6)
    return found


def peaks_of(sizes: Sequence[int], rounds: int) -> dict[int, float]:
    """GFLOP/s of one stream by size."""
    times = in_turn({size: product_of_one_row(size) for size in sizes}, rounds)
    return {size: 1e-3 / float(np.median(us)) for size, us in times.items()}


def measure(case: Case, best: int, rounds: int) -> dict[str, Any]:
    """An update of ours beside the peaks, in turn: fractions are medians of what one round found,
    since the machine's own speed is not the same for long."""
    cell, hidden, depth, optimizer, lanes = case
    updates = 40_000 if lanes == 1 else 4000
    times = in_turn(
        {
            "ours": ours(cell, hidden, depth, optimizer, lanes, updates),
            "own": product_of_one_row(hidden),
            "best": product_of_one_row(best),
        },
        rounds,
    )
    us, count = np.array(times["ours"]), operations(*case)
    return {
        "cell": cell,
        "hidden": hidden,
        "depth": depth,
        "optimizer": optimizer,
        "lanes": lanes,
        "us": float(np.median(us)),
        "operations": count,
        "gflops": count / float(np.median(us)) / 1e3,
        "of_own_size": float(np.median(count * np.array(times["own"]) / us)),
        "of_best_size": float(np.median(count * np.array(times["best"]) / us)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the first table alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = machine()
    torch.set_num_threads(1)

    turns = in_turn(
        {
            "bptt.fit": ours("Elman", 32, 10, "SGD", 1, 100_000),
            "bptt.Online.step": stepwise(32, 10, 20_000),
            "PyTorch, nn.RNN": torch_loop(32, 10, 100, whole=True),
            "PyTorch, cell": torch_loop(32, 10, 30, whole=False),
            "NumPy": numpy_loop(32, 10, 400),
            "JAX, scan": jax_loop(32, 10, 20_000, unrolled=False),
            "JAX, unrolled": jax_loop(32, 10, 20_000, unrolled=True),
        },
        4 * options.rounds,  # a machine that is not alone changes its speed within seconds
    )
    side = {name: float(np.median(us)) for name, us in turns.items()}
    print("hidden 32, depth 10, SGD, one thread; microseconds an update\n")
    first = [[name, f"{us:.3g}", f"{us / side['bptt.fit']:.3g}"] for name, us in side.items()]
    print(table(["", "us", "over bptt.fit"], first))

    peaks = peaks_of((16, 32, 48, 64, 96, 128), 4 * options.rounds)
    best = max(peaks, key=lambda size: peaks[size])
    cases: list[Case] = [("Elman", h, k, "SGD", 1) for h in (16, 32, 64) for k in (5, 10, 50)]
    cases += [("GRU", 32, 10, "SGD", 1), ("LSTM", 32, 10, "SGD", 1), ("GRU", 64, 10, "SGD", 1)]
    cases += [("LSTM", 64, 10, "SGD", 1), ("Elman", 32, 10, "Adam", 1), ("Elman", 32, 10, "SGD", 8)]
    cases += [("GRU", 64, 10, "Adam", 8)]
    found = [measure(case, best, options.rounds) for case in ([] if options.quick else cases)]
    rows = [
        [
            "{cell} {hidden}, depth {depth}, {optimizer}, {lanes} lane(s)".format(**x),
            f"{x['us']:.3g}",
            f"{x['operations']:.3g}",
            f"{x['gflops']:.3g}",
            f"{x['of_own_size']:.0%}",
            f"{x['of_best_size']:.0%}",
        ]
        for x in found
    ]
    if rows:
        header = ["", "us", "operations", "GFLOP/s", "of its size's peak", "of the best size's"]
        print(
            "\npeak of one stream, GFLOP/s by hidden size:",
            {h: round(p, 1) for h, p in peaks.items()},
        )
        print("\n" + table(header, rows))
    write(options.json, {"machine": about, "side_by_side": side, "peaks": peaks, "cases": found})


if __name__ == "__main__":
    main()
