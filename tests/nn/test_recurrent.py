"""`Recurrent`: any cell with the face of a layer, resets and every step's states."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
import bptt.nn
from bptt.errors import CellError, OptionError, ShapeError

from .helpers import gradients, needs_core, packed, pair, same

F64 = torch.float64


def like_torch(
    kind: str, backend: str = "eager", **options: Any
) -> tuple[nn.Module, bptt.nn.Recurrent]:
    """PyTorch's layer, and `Recurrent` of our cell with its weights.

    Tracing a program takes longer than these few steps in Python, so few tests do.
    """
    theirs, _ = pair(kind, 4, 5, **options, dtype=F64)
    make = {"RNN": bptt.cells.Elman, "GRU": bptt.cells.GRU, "LSTM": bptt.cells.LSTM}[kind]
    ours = bptt.nn.Recurrent(
        lambda size: make(size, 5, dtype=F64),
        4,
        layers=theirs.num_layers,
        bidirectional=theirs.bidirectional,
        batch_first=theirs.batch_first,
        dropout=theirs.dropout,
        backend=backend,
    )
    for cell, names in zip(ours.cells, theirs._all_weights, strict=True):
        for own, name in zip(cell.parameters(), names, strict=True):
            own.data.copy_(getattr(theirs, name))
    return theirs, ours


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", ["padded", "batch_first", "packed", "alone"])
def test_equals_torch(kind: str, layers: int, bidirectional: bool, form: str) -> None:
    options = {"num_layers": layers, "bidirectional": bidirectional}
    theirs, ours = like_torch(kind, **options, batch_first=form == "batch_first")
    x: Any = torch.randn(6, 3, 4, dtype=F64)
    if form == "packed":
        x = packed(x, False)
    elif form == "alone":
        x = x[:, 0]
    expected, found = theirs(x), ours(x)
    same(found, expected)
    same(ours(x, found[1]), theirs(x, expected[1]))
    same(gradients(found, list(ours.parameters())), gradients(expected, list(theirs.parameters())))


@needs_core
def test_runs_natively() -> None:
    theirs, ours = like_torch("GRU", backend="native", bidirectional=True)
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[2, 1] = True
    for given in (torch.randn(6, 3, 4, dtype=F64), packed(torch.randn(6, 3, 4, dtype=F64), False)):
        same(ours(given), theirs(given))
        native = ours(given, reset=reset, return_states=True)
        ours.backend = "eager"
        same(ours(given, reset=reset, return_states=True), native)
        ours.backend = "native"


def test_dropout_as_torch_draws_it() -> None:
    theirs, ours = like_torch("GRU", num_layers=3, dropout=0.5)
    x = torch.randn(6, 3, 4, dtype=F64)
    for given in (x, packed(x, False)):
        found = []
        for layer in (theirs, ours):
            torch.manual_seed(3)
            found.append(layer(given))
        same(found[0], found[1])
    same(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_reset_parts_a_lane(bidirectional: bool, batch_first: bool) -> None:
    """Pieces between resets, read alone, give the same: from both ends."""
    _, layer = like_torch("LSTM", bidirectional=bidirectional, num_layers=2)
    layer.batch_first = batch_first
    x = torch.randn(7, 2, 4, dtype=F64)
    reset = torch.zeros(7, 2, dtype=torch.bool)
    reset[3, 0] = reset[5, 1] = reset[0, 1] = True
    given = (x.transpose(0, 1), reset.T) if batch_first else (x, reset)
    output, _ = layer(given[0], reset=given[1])
    output = output.transpose(0, 1) if batch_first else output
    layer.batch_first = False
    for lane, border in ((0, 3), (1, 5)):
        # One piece at a time: each layer's own border parts it, so pieces agree at every layer.
        same(output[:border, lane], layer(x[:border, lane])[0])
        same(output[border:, lane], layer(x[border:, lane])[0])


def test_resets_of_packed_sequences() -> None:
    _, layer = like_torch("GRU", bidirectional=True)
    x, lengths = torch.randn(6, 3, 4, dtype=F64), [3, 6, 4]
    sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[2, 0] = reset[4, 1] = reset[4, 2] = True  # the last one lies past its lane's end
    output, _ = nn.utils.rnn.pad_packed_sequence(layer(sequence, reset=reset)[0])
    for lane, border in ((0, 2), (1, 4)):
        same(output[:border, lane], layer(x[:border, lane])[0])
        same(output[border : lengths[lane], lane], layer(x[border : lengths[lane], lane])[0])
    same(output[:4, 2], layer(x[:4, 2])[0])


@pytest.mark.parametrize("form", ["padded", "batch_first", "packed", "alone"])
def test_states_of_every_step(form: str) -> None:
    _, layer = like_torch("LSTM", bidirectional=True, batch_first=form == "batch_first")
    x: Any = torch.randn(4, 3, 4, dtype=F64)
    if form == "packed":
        x = packed(x, False)
    elif form == "alone":
        x = x[:, 0]
    output, last, states = layer(x, return_states=True)
    hidden, memory = states
    if form == "packed":
        output, lengths = nn.utils.rnn.pad_packed_sequence(output)
        for lane, length in enumerate(lengths.tolist()):
            same(hidden[0, :length, lane], output[:length, lane, :5])
            same(hidden[1, :length, lane], output[:length, lane, 5:])
            same((hidden[0, length - 1, lane], hidden[1, 0, lane]), tuple(last[0][:, lane]))
            same((memory[0, length - 1, lane], memory[1, 0, lane]), tuple(last[1][:, lane]))
        return
    same(torch.cat([hidden[0], hidden[1]], dim=-1), output)
    time = 0 if form != "batch_first" else 1
    ends = [(s[0].select(time, -1), s[1].select(time, 0)) for s in states]
    same(ends, [tuple(leaf) for leaf in last])


class Momentum(nn.Module):
    """A cell whose state nests and whose output is none of its leaves."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.mix = nn.Linear(input_size + hidden_size, hidden_size, dtype=F64)

    def initial_state(self, batch: int) -> Any:
        zeros = torch.zeros(batch, self.hidden_size, dtype=F64)
        return zeros, (zeros, zeros[:, :2])

    def output(self, state: Any) -> Tensor:
        return torch.tanh(state[0] + state[1][0])

    def forward(self, input: Tensor, state: Any) -> Any:
        position, (speed, trace) = state
        push = torch.tanh(self.mix(torch.cat([input, position], dim=1)))
        speed = 0.9 * speed + 0.1 * push
        return position + speed, (speed, 0.5 * trace + push[:, :2])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_any_cell(bidirectional: bool) -> None:
    make = lambda size: Momentum(size, 3)  # noqa: E731
    layer = bptt.nn.Recurrent(make, 4, layers=2, bidirectional=bidirectional, backend="eager")
    x = torch.randn(5, 2, 4, dtype=F64)
    output, last = layer(x)
    below = x
    for level in range(2):
        cells = layer.cells[level * (1 + bidirectional) :]
        ahead = bptt.unfold(cells[0], below, backend="eager")[0]
        if bidirectional:
            behind = bptt.unfold(cells[1], below.flip(0), backend="eager")[0].flip(0)
            ahead = torch.cat([ahead, behind], dim=-1)
        below = ahead
    same(output, below)
    assert last[1][1].shape == (2 * (1 + bidirectional), 2, 2)


def test_copies_are_drawn_anew() -> None:
    cell = bptt.cells.GRU(5, 5)
    layer = bptt.nn.Recurrent(cell, layers=2, backend="eager")
    assert layer.cells[0] is cell
    assert not torch.equal(layer.cells[1].weight_hh, cell.weight_hh)
    assert layer(torch.randn(3, 2, 5))[0].shape == (3, 2, 5)


class Embeds(nn.Module):
    """A cell that reads indices."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 3
        self.table = nn.Embedding(7, 3)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.table(input) + state)


def test_indices() -> None:
    layer = bptt.nn.Recurrent(Embeds(), batch_first=True, backend="eager")
    tokens = torch.randint(0, 7, (2, 5))
    output, last = layer(tokens)
    assert output.shape == (2, 5, 3)
    alone, last_alone = layer(tokens[1])
    torch.testing.assert_close(alone, output[1])
    torch.testing.assert_close(last_alone, last[:, 1])
    sequence = nn.utils.rnn.pack_sequence([tokens[0], tokens[1][:3]])
    found = nn.utils.rnn.pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]
    torch.testing.assert_close(found[1, :3], output[1, :3])


def test_refusals() -> None:
    gru = bptt.cells.GRU(4, 5)
    with pytest.raises(CellError, match=r"would be given 5 features, but GRU reads 4.*lambda size"):
        bptt.nn.Recurrent(gru, layers=2)
    with pytest.raises(OptionError, match="needs input_size"):
        bptt.nn.Recurrent(lambda size: bptt.cells.GRU(size, 5))
    with pytest.raises(OptionError, match="layers must be at least 1"):
        bptt.nn.Recurrent(gru, layers=0)
    with pytest.raises(OptionError, match="dropout must lie between"):
        bptt.nn.Recurrent(gru, dropout=1.5)
    with pytest.raises(CellError, match=r"must make a torch\.nn\.Module"):
        bptt.nn.Recurrent(lambda size: size, 4)  # type: ignore[arg-type, return-value]  # refused
    sizes = iter([5, 6])
    with pytest.raises(CellError, match="states of one shape"):
        bptt.nn.Recurrent(lambda size: bptt.cells.GRU(size, next(sizes)), 4, layers=2)
    layer = bptt.nn.Recurrent(gru)
    with pytest.raises(ShapeError, match=r"hx has the shape \[2, 3, 5\].*\[1, 2, 5\]"):
        layer(torch.zeros(6, 2, 4), torch.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match=r"reset has the shape \[2, 6\], expected \[6, 2\]"):
        layer(torch.zeros(6, 2, 4), reset=torch.zeros(2, 6, dtype=torch.bool))
    with pytest.raises(ShapeError, match="must be a tensor or packed sequence"):
        layer([1.0])


def test_copy_and_print() -> None:
    layer = bptt.nn.Recurrent(bptt.cells.GRU(5, 5), layers=2, dropout=0.1, backend="eager")
    twin = copy.deepcopy(layer).eval()
    x = torch.randn(3, 2, 5)
    same(twin(x), layer.eval()(x))
    assert "layers=2, dropout=0.1" in repr(layer)
    twin.load_state_dict(layer.state_dict())


def test_autocast_leaves_the_recurrence() -> None:
    layer = bptt.nn.Recurrent(bptt.cells.GRU(4, 5))
    x = torch.randn(6, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, last = layer(x.bfloat16())
    same((output, last), layer(x.bfloat16().float()), 0.0)
