"""Settings and contexts of PyTorch around a call: ``auto`` is as ``eager``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import bptt

from .contact import SIZE, Seen, agree, assert_close, assert_equal, cell_of, drive, given, seen

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore"),
]

CELLS: dict[str, Callable[[], Any]] = {
    "own": lambda: cell_of(drive),
    "GRUCell": lambda: nn.GRUCell(SIZE, SIZE),
    "refused": lambda: cell_of(lambda s, i, h: drive(s, i, h) * (1 if h.sum() > 0 else 2)),
}


class Passing(TorchDispatchMode):
    """Sees every operator and changes none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class PassingFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Doubling(TorchDispatchMode):
    """Gives twice what a hyperbolic tangent is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found * 2 if func is torch.ops.aten.tanh.default else found


class DoublingFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found * 2 if func is torch.tanh else found


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def other_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float64)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "dispatch mode": Passing,
    "dispatch mode that changes": Doubling,
    "function mode": PassingFunctions,
    "function mode that changes": DoublingFunctions,
    "flop counter": lambda: FlopCounterMode(display=False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast, off": lambda: torch.autocast("cpu", enabled=False),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic": deterministic,
    "saved tensors": lambda: saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
    "saved on the CPU": save_on_cpu,
    "profiler": lambda: profile(activities=[ProfilerActivity.CPU]),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "force_eager": lambda: torch.compiler.set_stance("force_eager"),
    "fail_on_recompile": lambda: torch.compiler.set_stance("fail_on_recompile"),
    "eager_on_recompile": lambda: torch.compiler.set_stance("eager_on_recompile"),
    "another default dtype": other_default,
    "default device": lambda: torch.device("cpu"),
    "one thread": lambda: torch.autograd.set_multithreading_enabled(False),
    "forked generators": torch.random.fork_rng,
}


@pytest.mark.parametrize(("cell", "first"), [("own", True), ("own", False), ("GRUCell", True)])
@pytest.mark.parametrize("name", CONTEXTS)
def test_contexts(name: str, cell: str, first: bool) -> None:
    """Entered before the first call, or after one; left again."""
    made = CELLS[cell]()
    if not first:
        agree(made)
    with CONTEXTS[name]():
        tolerance = 0.05 if name == "autocast" else 1e-9
        agree(made, tolerance=tolerance)
        agree(made, given(1), tolerance=tolerance)
    agree(made)


@pytest.mark.parametrize("first", [True, False])
def test_a_flop_counter_counts_all(first: bool) -> None:
    counts = []
    for backend in ("auto", "eager"):
        cell = CELLS["own"]()
        if not first:
            seen(cell, given(), backend)
        with FlopCounterMode(display=False) as counter:
            seen(cell, given(), backend)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_stances_that_change_between_calls() -> None:
    cell = CELLS["own"]()
    for stance in ("default", "force_eager", "default", "fail_on_recompile", "default"):
        with torch.compiler.set_stance(stance):
            for lanes in (3, 1, 5):
                agree(cell, given(lanes))
        cell.w = nn.Parameter(cell.w.detach() * 0.9)
    torch.compiler.reset()
    agree(cell)


DISABLED = """
import torch, bptt
from torch import nn
torch.set_num_threads(1)
class Cell(nn.Module):
    hidden_size, calls = 4, 0
    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))
    def forward(self, i, h):
        return torch.tanh(self.u(i) + h @ self.w + CONSTANT) * CONSTANT
CONSTANT = torch.tensor(0.3)
for cell in (Cell(), nn.GRUCell(4, 4), bptt.cells.LSTM(4, 4)):
    for lanes in (3, 1):
        x, ends = torch.randn(5, lanes, 4, requires_grad=True), []
        for backend in ("auto", "eager"):
            out, _ = bptt.unfold(cell, x, backend=backend)
            ends.append([out, *torch.autograd.grad(out.sin().sum(), [x, *cell.parameters()])])
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["TORCHDYNAMO_DISABLE=1", "TORCHDYNAMO_SUPPRESS_ERRORS=1"])
def test_settings_of_the_environment(setting: str) -> None:
    name, value = setting.split("=")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DISABLED],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.stdout.strip() == "equal", done.stdout + done.stderr[-2000:]


# -- transforms and tracers -----------------------------------------------------------------------


def loss_of(cell: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    return lambda x: bptt.unfold(cell, x, backend=backend)[0].sin().sum()


def functional_loss(cell: nn.Module, backend: str) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            return bptt.unfold(self.cell, x, backend=backend)[0].sin().sum()

    whole = Whole()
    return lambda p, x: torch.func.functional_call(whole, p, (x,))


def of_weights(cell: nn.Module) -> dict[str, Tensor]:
    return {f"cell.{name}": p.detach() for name, p in cell.named_parameters()}


def transposed_twice(cell: nn.Module, x: Tensor, backend: str) -> Tensor:
    return torch.func.vmap(lambda v: bptt.unfold(cell, v, backend=backend)[0])(
        torch.stack([x, x * 0.5])
    )


Transform = Callable[[nn.Module, Tensor, str], Any]

TRANSFORMS: dict[str, Transform] = {
    "grad": lambda c, x, b: torch.func.grad(loss_of(c, b))(x),
    "grad of grad": lambda c, x, b: torch.func.grad(
        lambda v: torch.func.grad(loss_of(c, b))(v).square().sum()
    )(x),
    "vmap": transposed_twice,
    "vmap of grad": lambda c, x, b: torch.func.vmap(torch.func.grad(loss_of(c, b)))(
        torch.stack([x, x * 0.5])
    ),
    "jvp": lambda c, x, b: torch.func.jvp(loss_of(c, b), (x,), (torch.ones_like(x),))[1],
    "vjp": lambda c, x, b: torch.func.vjp(loss_of(c, b), x)[1](torch.tensor(2.0))[0],
    "jacrev": lambda c, x, b: torch.func.jacrev(
        lambda v: bptt.unfold(c, v, backend=b)[0][-1].sum(0)
    )(x),
    "jacfwd": lambda c, x, b: torch.func.jacfwd(
        lambda v: bptt.unfold(c, v, backend=b)[0][-1].sum(0)
    )(x[:2]),
    "hessian": lambda c, x, b: torch.func.hessian(loss_of(c, b))(x[:2, :1]),
    "functional_call": lambda c, x, b: functional_loss(c, b)(of_weights(c), x),
    "grad of functional_call": lambda c, x, b: torch.func.grad(functional_loss(c, b))(
        of_weights(c), x
    )["cell." + next(iter(dict(c.named_parameters())))],
    "an ensemble": lambda c, x, b: torch.func.vmap(functional_loss(c, b), in_dims=(0, None))(
        {n: torch.stack([p, p * 0.5]) for n, p in of_weights(c).items()}, x
    ),
    "forward mode": lambda c, x, b: forward_mode(c, x, b),
    "double backward": lambda c, x, b: doubled(c, x, b),
    "jacobian": lambda c, x, b: torch.autograd.functional.jacobian(
        lambda v: bptt.unfold(c, v, backend=b)[0][-1].sum(0), x
    ),
    "checkpoint": lambda c, x, b: through(c, x, b, use_reentrant=False),
    "reentrant checkpoint": lambda c, x, b: through(c, x, b, use_reentrant=True),
    "compiled": lambda c, x, b: torch.compile(loss_of(c, b), backend="eager")(x),
    "compiled, ahead of time": lambda c, x, b: torch.compile(loss_of(c, b), backend="aot_eager")(x),
    "make_fx": lambda c, x, b: make_fx(loss_of(c, b))(x)(x),
    # Of a module: a function with weights that need a gradient is refused half-way through an
    # operator, and PyTorch's tracer stays confused for the rest of the process.
    "jit.trace": lambda c, x, b: torch.jit.trace(Whole(c, b), x, check_trace=False)(x),
}


def forward_mode(cell: nn.Module, x: Tensor, backend: str) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        outputs, _ = bptt.unfold(cell, dual, backend=backend)
        return torch.autograd.forward_ad.unpack_dual(outputs).tangent.clone()


def doubled(cell: nn.Module, x: Tensor, backend: str) -> list[Tensor]:
    x = x.clone().requires_grad_()
    weights = list(cell.parameters())
    first = torch.autograd.grad(loss_of(cell, backend)(x), [x, *weights], create_graph=True)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return [*first, *torch.autograd.grad(total, [x, *weights])]


def through(cell: nn.Module, x: Tensor, backend: str, use_reentrant: bool) -> list[Tensor]:
    x = x.clone().requires_grad_()
    found = checkpoint(loss_of(cell, backend), x, use_reentrant=use_reentrant)
    found.backward()
    grads = [p.grad for p in cell.parameters()]
    cell.zero_grad()
    return [found, x.grad, *grads]


def transformed(name: str, cell: nn.Module, backend: str) -> Seen:
    """A transform's result, or its error."""
    found = Seen()
    try:
        result = TRANSFORMS[name](cell, given().detach(), backend)
        result = result if isinstance(result, (list, tuple)) else [result]
        found.values = {str(k): tensor for k, tensor in enumerate(result)}
    except Exception as error:
        found.error = error
    return found


@pytest.mark.parametrize(("kind", "first"), [("own", True), ("own", False), ("GRUCell", True)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str, kind: str, first: bool) -> None:
    cell, twin = CELLS[kind](), CELLS[kind]()
    twin.load_state_dict(cell.state_dict())
    if not first:
        agree(cell)
    found = transformed(name, cell, "auto")
    expected = transformed(name, twin, "eager")
    assert_equal(found, expected)
    agree(cell)


class Whole(nn.Module):
    """A module that unfolds."""

    def __init__(self, cell: nn.Module, backend: str) -> None:
        super().__init__()
        self.cell, self.backend = cell, backend

    def forward(self, x: Tensor) -> Tensor:
        return bptt.unfold(self.cell, x, backend=self.backend)[0]


@pytest.mark.parametrize("kind", ["own", "GRUCell"])
@pytest.mark.parametrize("first", [True, False])
def test_export(kind: str, first: bool) -> None:
    cell, x = CELLS[kind](), given().detach()
    if not first:
        agree(cell)
    ends = []
    for backend in ("auto", "eager"):
        exported = torch.export.export(Whole(cell, backend), (x,))
        ends.append(exported.module()(x))
    assert_close("exported", *ends)
    agree(cell)


def test_saving_and_loading_a_traced_call() -> None:
    cell, x = CELLS["own"](), given().detach()
    ends = []
    for backend in ("auto", "eager"):
        traced = torch.jit.trace(Whole(cell, backend), x, check_trace=False)
        kept = io.BytesIO()
        torch.jit.save(traced, kept)
        kept.seek(0)
        ends.append(torch.jit.load(kept)(x * 0.5))
    assert_close("traced", *ends)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_calls_of_several_cells(backend: str) -> None:
    x, made = given().detach(), (nn.GRUCell, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    for make in (*made, lambda *size: cell_of(drive), lambda *size: cell_of(drive)):
        cell = make(SIZE, SIZE)
        compiled = torch.compile(
            lambda v, cell=cell: bptt.unfold(cell, v)[0].sin().sum(), backend=backend
        )
        v = x.clone().requires_grad_()
        found = compiled(v)
        grads = torch.autograd.grad(found, [v, *cell.parameters()])
        expected = loss_of(cell, "eager")(v)
        assert_close("compiled", found, expected)
        torch.testing.assert_close(grads, torch.autograd.grad(expected, [v, *cell.parameters()]))
        del cell, compiled
