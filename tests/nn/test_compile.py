"""`torch.compile`, `torch.export` and the operators beneath them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import bptt.nn
from bptt.engine.runtime import library
from bptt.nn._kinds import Kind, Standing

from .helpers import gradients, needs_core, packed, same, unfolded_by_engine

pytestmark = needs_core

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("GRU", {"batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 3}),
]


class Model(nn.Module):
    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.rnn = getattr(bptt.nn, kind)(4, 5, **options)
        self.out = nn.LazyLinear(2)

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        output, last = self.rnn(torch.relu(self.embed(x)), hx)
        return self.out(output), last


@pytest.fixture(autouse=True)
def _afresh() -> None:
    torch._dynamo.reset()


def made(kind: str, options: dict[str, Any]) -> tuple[Model, Tensor]:
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    model = Model(kind, **options).double()
    model(x)
    return model, x


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda v: str(v))
def test_no_graph_break(kind: str, options: dict[str, Any]) -> None:
    model, x = made(kind, options)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    expected, wanted = model(x), list(model.parameters())
    found = compiled(x)
    same(found, expected)
    same(gradients(found, wanted), gradients(expected, wanted))
    same(compiled(x, expected[1]), model(x, expected[1]))
    with torch.no_grad():
        same(compiled(x), expected)
    assert isinstance(model.rnn, getattr(nn, kind))


def test_other_shapes() -> None:
    """A second shape is compiled once more, for all others."""
    model, x = made("GRU", {"bidirectional": True})
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    wanted = list(model.parameters())
    for steps, lanes in ((6, 3), (7, 4), (8, 2), (5, 6)):
        x = torch.randn(steps, lanes, 4, dtype=torch.float64)
        found, expected = compiled(x), model(x)
        same(found, expected)
        same(gradients(found, wanted), gradients(expected, wanted))
    assert counter.frame_count == 2


def test_inductor() -> None:
    model, x = made("GRU", {})
    compiled, wanted = torch.compile(model, fullgraph=True), list(model.parameters())
    found, expected = compiled(x), model(x)
    same(found, expected)
    same(gradients(found, wanted), gradients(expected, wanted))


def test_packed_sequences_compile() -> None:
    """With graph breaks: lengths are data."""
    layer = bptt.nn.GRU(4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    compiled = torch.compile(lambda x: layer(packed(x, False))[0].data, backend="eager")
    same(compiled(x), layer(packed(x, False))[0])


def test_any_cell_runs_natively_beside_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = bptt.nn.Recurrent(bptt.cells.GRU(4, 5))
    model, x = nn.Sequential(nn.Linear(4, 4), layer), torch.randn(6, 3, 4)
    expected = model(x)
    seen = unfolded_by_engine(monkeypatch)
    compiled = torch.compile(model, backend="aot_eager")
    same(compiled(x), expected, 1e-6)
    same(compiled(x), expected, 1e-6)
    assert len(seen) == 2


def test_torchs_layers_are_left_alone() -> None:
    """What Dynamo does with PyTorch's own layers is not changed."""
    bptt.nn.GRU(4, 5)
    with pytest.raises(Exception, match="RNN, GRU, or LSTM"):
        torch.compile(nn.GRU(4, 5), backend="eager", fullgraph=True)(torch.randn(6, 3, 4))
    assert torch._dynamo.config.allow_rnn is False


def test_accelerated_model_compiles() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 5))
    bptt.nn.accelerate(model)
    x = torch.randn(6, 3, 4)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda v: str(v))
def test_export(kind: str, options: dict[str, Any]) -> None:
    model, x = made(kind, options)
    program = torch.export.export(model.eval(), (x,))
    same(program.module()(x), model(x))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    same(torch.export.load(buffer).module()(x), model(x))


def test_export_of_any_length() -> None:
    model, x = made("GRU", {})
    axes = {0: torch.export.Dim("time", min=2), 1: torch.export.Dim("lane", min=2)}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": axes})
    for steps, lanes in ((6, 3), (9, 5)):
        x = torch.randn(steps, lanes, 4, dtype=torch.float64)
        same(program.module()(x), model(x))


def unfolding(needs: bool, kind: str = "GRU") -> tuple[Any, ...]:
    """Arguments of ``bptt::unfold``."""
    widths = (5, 5) if kind == "LSTM" else (5,)
    name = Standing(Kind(kind, 4, 5, 0, True), "float64", (needs,) * 4).name
    gates = {"GRU": 3, "LSTM": 4}[kind] * 5

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=needs)

    weights = [draw(gates, 4), draw(gates, 5), draw(gates), draw(gates)]
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[2, 1] = True
    start, initial = [draw(3, w) for w in widths], [draw(3, w) for w in widths]
    lengths = torch.tensor([6, 4, 5])
    return name, draw(6, 3, 4), start, initial, weights, reset, lengths, None


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("needs", [False, True])
def test_opcheck(kind: str, needs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own checks, of the loop with the arguments that an unfolding gives it."""
    seen: list[Any] = []
    operators = torch.ops.bptt
    library._unfold(*unfolding(needs, kind))  # the program is made before anything is replaced
    for name in ("loop", "loop_backward"):
        plain = getattr(operators, name)

        def spy(*args: Any, plain: Any = plain) -> Any:
            seen.append((plain, args))
            return plain(*args)

        monkeypatch.setattr(operators, name, spy)
    result = library._unfold(*unfolding(needs, kind))
    if needs:
        sum((r * r).sum() for r in result).backward()
    monkeypatch.undo()
    assert len(seen) == (2 if needs else 1)
    for operator, args in seen:
        # A gradient's gradient is not an operator's business: compiled code does not ask for it.
        given = [_fresh(a, needs and operator is operators.loop) for a in args]
        torch.library.opcheck(operator.default, tuple(given))


def _fresh(value: Any, needs: bool) -> Any:
    if isinstance(value, (list, tuple)):
        return [_fresh(v, needs) for v in value]
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(needs and value.requires_grad)
    return value


def test_operator_equals_unfold() -> None:
    """Resets, lengths, start and initial states, with all their gradients."""
    name, x, start, initial, weights, reset, lengths, _ = unfolding(True)
    cell = bptt.cells.GRU(4, 5, dtype=torch.float64)
    for parameter, weight in zip(cell.parameters(), weights, strict=True):
        parameter.data.copy_(weight.detach())
    _, last, states = bptt.unfold(
        cell, x, start[0], initial=initial[0], reset=reset, lengths=lengths, return_states=True
    )
    wanted = [x, start[0], initial[0]]
    every = torch.cat([start[0].unsqueeze(0), states])  # the operator gives the start as well
    expected = gradients((every, last), [*wanted, *cell.parameters()])
    (found,) = torch.ops.bptt.unfold(name, x, start, initial, weights, reset, lengths, None)
    same((found[1:], found[-1]), (states, last))
    same(gradients((found, found[-1]), [*wanted, *weights]), expected)


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(bptt.CellError, match="no cell is known as 'cell-0-gone'"):
        library._plan("cell-0-gone;4;float32;1;00")
