"""RNN, GRU and LSTM, forward and backward: `bptt.unfold` and `bptt.nn` beside `torch.nn` and JAX.

    python benchmarks/layers.py [--json docs/figures/layers.json] [--figure docs/figures/layers.png]

Float32, equal weights, gradients of all parameters. Ours on two threads and on one; PyTorch on one
and on two, the better one counts; JAX as it likes. Outputs and gradients are compared first. The
fixed overhead of a call is measured beside ``w.sum().backward()``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import headline, machine, readable, table, time_in_turn, with_threads, write
from torch import Tensor, nn

import bptt

CELLS = {"RNN": bptt.cells.Elman, "GRU": bptt.cells.GRU, "LSTM": bptt.cells.LSTM}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
WORKS = [(1000, 1, 8, 64), (100, 1, 8, 32), (200, 32, 64, 128), (100, 64, 256, 512)]
# Least ratios to be reached, against torch.nn and against JAX, as the project set them itself.
BARS = {
    (1000, 1, 8, 64): {"RNN": (40, 2), "GRU": (60, 5), "LSTM": (2.5, 3)},
    (100, 1, 8, 32): {"RNN": (20, 1.5), "GRU": (50, 1.5), "LSTM": (2.5, 1.5)},
    (200, 32, 64, 128): {"RNN": (1.8, 2), "GRU": (2.5, 2), "LSTM": (1.5, 2)},
    (100, 64, 256, 512): {"RNN": (1.1, 1.1), "GRU": (1.2, 1.1), "LSTM": (0.95, 1.1)},
}


def operations(kind: str, steps: int, lanes: int, inputs: int, hidden: int) -> float:
    """Floating-point operations of the matrix products: two forward, three backward (the
    gradients of both weights and of the state; the inputs need none)."""
    return 2.0 * steps * lanes * GATES[kind] * hidden * (2 * inputs + 3 * hidden)


def contestants(
    kind: str, work: tuple[int, int, int, int], with_jax: bool
) -> dict[str, Callable[[], Any]]:
    steps, lanes, inputs, hidden = work
    torch.manual_seed(0)
    cell = CELLS[kind](inputs, hidden)
    layer, drop_in = (getattr(module, kind)(inputs, hidden) for module in (nn, bptt.nn))
    for each in (layer, drop_in):
        each.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x, seed = torch.randn(steps, lanes, inputs), torch.randn(steps, lanes, hidden)

    def ours() -> tuple[Tensor, list[Tensor]]:
        cell.zero_grad()
        outputs, _ = bptt.unfold(cell, x)
        outputs.backward(seed)
        return outputs.detach(), [p.grad for p in cell.parameters()]

    def of_layer(layer: nn.Module) -> tuple[Tensor, list[Tensor]]:
        layer.zero_grad()
        outputs, _ = layer(x)
        outputs.backward(seed)
        return outputs.detach(), [p.grad for p in layer.parameters()]

    theirs, dropped_in = partial(of_layer, layer), partial(of_layer, drop_in)

    entries: dict[str, Callable[[], Any]] = {
        "bptt, 2 threads": with_threads(2, ours),
        "bptt, 1 thread": with_threads(1, ours),
        "bptt.nn, 2 threads": with_threads(2, dropped_in),
        "torch.nn, 1 thread": with_threads(1, theirs),
        "torch.nn, 2 threads": with_threads(2, theirs),
    }
    agree(ours(), theirs(), f"{kind} torch.nn")
    agree(dropped_in(), theirs(), f"bptt.nn.{kind}")
    if with_jax:
        from jax_layers import forward_backward

        weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
        jax_call = forward_backward(kind, weights, x.numpy(), seed.numpy())
        entries["JAX"] = jax_call
        found, gradients = jax_call()
        ordered = [torch.tensor(gradients[name].__array__()) for name in weights]
        agree(ours(), (torch.tensor(found.__array__()), ordered), f"{kind} JAX")
    return entries


def agree(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]], name: str) -> None:
    """Refuse to time what computes something else."""
    for a, b in zip([one[0], *one[1]], [other[0], *other[1]], strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * scale, msg=f"{name} differs")


def measure(
    kind: str, work: tuple[int, int, int, int], peaks: dict[str, Any], with_jax: bool, rounds: int
) -> dict[str, Any]:
    timings = time_in_turn(contestants(kind, work, with_jax), rounds=rounds)
    medians = {name: timing.median for name, timing in timings.items()}
    mine = medians["bptt, 2 threads"]
    rival = min(medians["torch.nn, 1 thread"], medians["torch.nn, 2 threads"])
    rate = operations(kind, *work) / 1e9
    bar = BARS[work][kind]
    return {
        "layer": kind,
        "work": work,
        "seconds": medians,
        "against_torch": rival / mine,
        "layer_against_torch": rival / medians["bptt.nn, 2 threads"],
        "against_jax": medians["JAX"] / mine if with_jax else None,
        "bar_torch": bar[0],
        "bar_jax": bar[1],
        "peak_share_2": rate / mine / peaks["peak_2"],
        "peak_share_1": rate / medians["bptt, 1 thread"] / peaks["peak_1"],
        "torch_peak_share": rate / rival / peaks["peak_2"],
    }


def row(result: dict[str, Any]) -> list[str]:
    seconds, jax = result["seconds"], result["against_jax"]
    rival = min(seconds["torch.nn, 1 thread"], seconds["torch.nn, 2 threads"])
    return [
        result["layer"],
        "{} × {} × {} → {}".format(*result["work"]),
        readable(seconds["bptt, 2 threads"]),
        readable(seconds["bptt, 1 thread"]),
        readable(seconds["bptt.nn, 2 threads"]),
        readable(rival),
        readable(seconds["JAX"]) if jax else "–",
        f"{result['against_torch']:.2f}× (≥ {result['bar_torch']})",
        f"{result['layer_against_torch']:.2f}×",
        f"{jax:.2f}× (≥ {result['bar_jax']})" if jax else "–",
        f"{result['peak_share_2']:.0%}",
        f"{result['peak_share_1']:.0%}",
    ]


class Empty(torch.autograd.Function):
    """The least that a call in autograd with four parameters can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, *parameters)
        ctx.set_materialize_grads(False)
        return x.new_empty(3, 1, 4), x.new_empty(1, 4)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return None, *[p.new_empty(p.shape) for p in ctx.saved_tensors[1:]]


def overhead(rounds: int) -> dict[str, float]:
    """Microseconds of a call on three steps of four units, above ``w.sum().backward()``."""
    x, seed, weight = torch.randn(3, 1, 2), torch.ones(3, 1, 4), nn.Parameter(torch.randn(4))

    def least() -> None:
        weight.grad = None
        weight.sum().backward()

    def call(module: nn.Module, run: Callable[[Tensor], Any]) -> Callable[[], Any]:
        def once() -> None:
            module.zero_grad()
            run(x)[0].backward(seed)

        return with_threads(1, once)

    entries = {"least": with_threads(1, least)}
    module = CELLS["RNN"](2, 4)
    parameters = list(module.parameters())
    name = "an empty autograd function"
    entries[name] = call(module, lambda x: Empty.apply(x, *parameters))
    for kind, make in CELLS.items():
        cell, layer = make(2, 4), getattr(bptt.nn, kind)(2, 4)
        entries[f"unfold, {kind}"] = call(cell, lambda x, cell=cell: bptt.unfold(cell, x))
        entries[f"bptt.nn.{kind}"] = call(layer, layer)
    timings = time_in_turn(entries, rounds=rounds)
    floor = timings.pop("least").median
    return {name: (timing.median - floor) * 1e6 for name, timing in timings.items()}


HEADER = [
    "layer",
    "time × batch × input → hidden",
    "bptt ms",
    "1 thread",
    "bptt.nn ms",
    "torch.nn ms",
    "JAX ms",
    "against torch.nn",
    "bptt.nn against torch.nn",
    "against JAX",
    "of peak, 2",
    "of peak, 1",
]


def draw(results: list[dict[str, Any]], path: str) -> None:
    """Ratios as bars, one group a work."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
    colours = {"against_torch": "#c44e52", "against_jax": "#4c72b0"}
    names = {"against_torch": "against torch.nn", "against_jax": "against JAX"}
    for offset, key in enumerate(colours):
        values = [r[key] or 0 for r in results]
        places = [i + 0.38 * offset for i in range(len(results))]
        axis.bar(places, values, 0.36, color=colours[key], label=names[key])
        for place, value in zip(places, values, strict=True):
            if value:
                axis.text(place, value, f"{value:.1f}", ha="center", va="bottom", fontsize=7)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_xticks([i + 0.19 for i in range(len(results))])
    axis.set_xticklabels(
        ["{}\n{}×{}\n{}→{}".format(r["layer"], *r["work"]) for r in results], fontsize=7
    )
    axis.set_ylabel("times as fast (log scale)")
    axis.set_title(
        "bptt.unfold, forward and backward, float32, two CPU cores (time × batch, input → hidden)"
    )
    axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--figure", help="draw the ratios there")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-jax", action="store_true", help="leave JAX out")
    options = parser.parse_args()
    peaks = machine()
    print(headline(peaks))
    results = []
    for work in WORKS:
        for kind in CELLS:
            results.append(measure(kind, work, peaks, not options.no_jax, options.rounds))
            print("  ".join(row(results[-1])), flush=True)
    print(table(HEADER, [row(result) for result in results]))
    fixed = overhead(options.rounds)
    for name, microseconds in fixed.items():
        print(f"fixed overhead of a call, {name}: {microseconds:.0f} µs")
    print("The bar for unfold: 70 µs.")
    write(options.json, {"machine": peaks, "results": results, "overhead_us": fixed})
    if options.figure:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
