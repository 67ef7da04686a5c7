"""Numbers of the installed package as bytes, to be compared with those of another build.

    python core_numbers.py OUT.npz           # of the core, of cells and of an online training
    python core_numbers.py OUT.npz CORE.so   # of the core alone, from this file: needs NumPy only

Every instruction set that the processor supports has its own.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

TYPES = (np.float32, np.float64)


def alone(path: str) -> ModuleType:
    """The core out of its file, without the package around it."""
    spec = importlib.util.spec_from_file_location("_core", path)
    assert spec is not None
    assert spec.loader is not None
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core


def of_core(core: Any) -> dict[str, np.ndarray]:
    """Every unary instruction, products of several shapes, and a small program over time."""
    found = {}
    random = np.random.default_rng(0)
    special = [0.0, -0.0, 1e-40, -1e-40, np.inf, -np.inf, np.nan]
    for kind in TYPES:
        label = np.dtype(kind).name
        x = np.concatenate([random.normal(size=1000) * 20, special]).astype(kind)
        for name in (n for n, operands in core.OPCODES.items() if operands == 1):
            if name in ("sum", "amax"):  # of a row
                continue
            out = np.empty_like(x)
            core.elementwise(name, x, out)
            found[f"{label} {name}"] = out
        for rows, depth, width in ((1, 7, 5), (3, 64, 33), (70, 300, 40)):
            a, b = (random.normal(size=s).astype(kind) for s in ((rows, depth), (depth, width)))
            out = np.empty((rows, width), kind)
            core.multiply(a, b, out, threads=2)
            found[f"{label} multiply {rows} {depth} {width}"] = out
            transposed = np.empty((rows, width), kind)
            core.multiply(a, np.asfortranarray(b), transposed)
            found[f"{label} multiply transposed {rows} {depth} {width}"] = transposed
        found[f"{label} program"] = over_time(core, random, label)
    return found


def over_time(core: Any, random: np.random.Generator, dtype: str) -> np.ndarray:
    """States of h = tanh(x + h W) ** 0.5, whose last lane is reset once."""
    steps, batch, width = 9, 3, 21
    program = core.Program(
        dtype=dtype,
        reverse=False,
        states=(width,),
        scratch=(width, width),
        time=((width, "r"),),
        matrices=((width, width),),
        instructions=(
            ("matmul", ("scratch", 0, 0, width), ("time", 0, 0, width), ("state", 0, 0, width), 0),
            ("tanh", ("scratch", 1, 0, width), ("scratch", 0, 0, width)),
            ("abs", ("scratch", 0, 0, width), ("scratch", 1, 0, width)),
            ("pow", ("next", 0, 0, width), ("scratch", 0, 0, width), 0.5),
        ),
    )
    states = np.zeros((steps + 1, batch, width), dtype)
    time = random.normal(size=(steps, batch, width)).astype(dtype)
    matrix = (random.normal(size=(width, width)) / 5).astype(dtype)
    reset = np.zeros((steps, batch), bool)
    reset[4, 2] = True
    initial = np.ones((batch, width), dtype)
    program.forward(
        steps, batch, [states], [time], matrices=[matrix], initial=[initial], reset=reset
    )
    return states


def of_package() -> dict[str, np.ndarray]:
    """Outputs and gradients of cells that run natively, and weights after online training."""
    import torch
    from torch import nn

    import bptt

    found = {}
    for make in (nn.RNNCell, nn.GRUCell, nn.LSTMCell, bptt.cells.GRU):
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            cell = make(5, 24).to(dtype)
            inputs = torch.randn(30, 4, 5, dtype=dtype, requires_grad=True)
            outputs, _ = bptt.unfold(cell, inputs, backend="native")
            outputs.square().sum().backward()
            label = f"{make.__name__} {dtype}"
            found[f"{label} outputs"] = outputs.detach().numpy()
            for name, tensor in [("input", inputs), *cell.named_parameters()]:
                assert tensor.grad is not None
                found[f"{label} {name}"] = tensor.grad.numpy()
    torch.manual_seed(0)
    network = bptt.Network(nn.RNNCell(1, 16), nn.Linear(16, 1))
    stream = bptt.Stream(torch.arange(200).mul(0.3).sin(), horizon=1)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    method = bptt.SlidingWindow(5)
    bptt.fit(network, stream, method=method, optimizer=optimizer, epochs=1, progress=False)
    found |= {f"online {name}": p.detach().numpy() for name, p in network.named_parameters()}
    return found


def main() -> None:
    """Write the numbers of every instruction set into one file."""
    out, *given = sys.argv[1:]
    if given:
        core: Any = alone(given[0])
    else:
        from bptt import _core as core
    found = {}
    for name, usable in core.variants().items():
        if usable:
            core.use_isa(name)
            numbers = of_core(core) if given else of_core(core) | of_package()
            found |= {f"{name}: {key}": value for key, value in numbers.items()}
    np.savez(out, **{key.replace("/", "_"): value for key, value in found.items()})
    print(f"{len(found)} arrays, of {core.isa()} and those before it")


if __name__ == "__main__":
    main()
