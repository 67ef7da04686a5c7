"""`RNN`, `GRU` and `LSTM` against `torch.nn`'s, forward and backward, in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt.nn

from .helpers import gradients, needs_core, packed, pair, same, tensors, unfolded_by_engine

# The comparator: kind, bias, direction, layers, batch_first, packed; dropout with several layers.
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("GRU", {}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
]
BINARY = list(product([True, False], [False, True], [1, 2], [False, True], [False, True]))


def starts(layer: nn.Module, lanes: int) -> Any:
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    hidden = torch.randn(count, lanes, layer.proj_size or layer.hidden_size, dtype=torch.float64)
    if not isinstance(layer, nn.LSTM):
        return hidden.requires_grad_()
    memory = torch.randn(count, lanes, layer.hidden_size, dtype=torch.float64)
    return hidden.requires_grad_(), memory.requires_grad_()


@pytest.mark.parametrize(("kind", "own"), KINDS, ids=lambda v: str(v))
@pytest.mark.parametrize(("bias", "bidirectional", "layers", "batch_first", "pack"), BINARY)
def test_equals_torch(
    kind: str,
    own: dict[str, Any],
    bias: bool,
    bidirectional: bool,
    layers: int,
    batch_first: bool,
    pack: bool,
) -> None:
    options = {
        **own, "num_layers": layers, "bias": bias, "bidirectional": bidirectional,
        "batch_first": batch_first, "dropout": 0.4 if layers > 1 else 0.0, "dtype": torch.float64,
    }  # fmt: skip
    theirs, ours = pair(kind, 4, 5, **options)
    x = torch.randn(3, 6, 4, dtype=torch.float64) if batch_first else torch.randn(6, 3, 4).double()
    x.requires_grad_()
    hx = starts(theirs, 3)
    given = [x, *([hx] if isinstance(hx, Tensor) else hx)]
    found = []
    for layer in (theirs, ours):
        torch.manual_seed(7)  # the same elements are dropped
        result = layer(packed(x, batch_first) if pack else x, hx)
        found.append([result, gradients(result, [*given, *layer.parameters()])])
    same(found[0], found[1])


@needs_core
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_runs_natively(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = unfolded_by_engine(monkeypatch)
    layer = getattr(bptt.nn, kind)(4, 5, num_layers=2, bidirectional=True)
    layer(torch.randn(6, 3, 4))
    assert len(seen) == 4


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_packed_orders(kind: str, sort: bool, bidirectional: bool) -> None:
    theirs, ours = pair(kind, 4, 5, bidirectional=bidirectional, dtype=torch.float64)
    sequence = packed(torch.randn(7, 4, 4, dtype=torch.float64), False, sort)
    hx = starts(theirs, 4)
    one, other = theirs(sequence, hx), ours(sequence, hx)
    same(one, other)
    for a, b in zip(one[0][1:], other[0][1:], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_packed_of_one_length() -> None:
    theirs, ours = pair("GRU", 4, 5, bidirectional=True, dtype=torch.float64)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 5, 5]))
    same(theirs(sequence), ours(sequence))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_lane_alone(kind: str, batch_first: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    theirs, ours = pair(kind, 4, 5, **options, dtype=torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64)
    same(theirs(x), ours(x))
    hx = starts(theirs, 1)
    hx = hx[:, 0] if isinstance(hx, Tensor) else (hx[0][:, 0], hx[1][:, 0])
    same(theirs(x, hx), ours(x, hx))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_face(kind: str) -> None:
    theirs, ours = pair(kind, 4, 5, num_layers=2, bidirectional=True)
    assert isinstance(ours, getattr(nn, kind))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [[w.shape for w in ws] for ws in ours.all_weights] == [
        [w.shape for w in ws] for ws in theirs.all_weights
    ]
    ours.flatten_parameters()
    for name in ("mode", "proj_size", "dropout", "batch_first", "num_layers", "bidirectional"):
        assert getattr(ours, name) == getattr(theirs, name)
    theirs.load_state_dict(ours.state_dict())


@needs_core
def test_tracing_draws_nothing() -> None:
    """A first call, which makes a program, leaves the random numbers as any other."""
    for _ in range(2):
        torch.manual_seed(0)
        bptt.nn.LSTM(11, 13)(torch.zeros(2, 1, 11))
        drawn = torch.rand(())
        torch.manual_seed(0)
        nn.LSTM(11, 13)(torch.zeros(2, 1, 11))
        assert torch.equal(drawn, torch.rand(()))


def test_cells_are_torchs() -> None:
    for name in ("RNNCell", "GRUCell", "LSTMCell"):
        assert getattr(bptt.nn, name) is getattr(nn, name)


WRONG: list[tuple[str, Any, Any]] = [
    ("GRU", torch.zeros(3, 2, 5), None),
    ("GRU", torch.zeros(3, 2, 4), torch.zeros(1, 3, 5)),
    ("GRU", torch.zeros(3, 2, 4), torch.zeros(2, 5)),
    ("GRU", torch.zeros(3, 4), torch.zeros(1, 2, 5)),
    ("GRU", torch.zeros(2, 3, 2, 4), None),
    ("GRU", torch.zeros(0, 2, 4), None),
    ("GRU", torch.zeros(3, 2, 4, dtype=torch.float64), None),
    ("LSTM", torch.zeros(3, 2, 4), (torch.zeros(1, 2, 5), torch.zeros(1, 2, 6))),
    ("LSTM", torch.zeros(3, 2, 4), (torch.zeros(2, 5), torch.zeros(2, 5))),
    ("LSTM", torch.zeros(3, 2, 4), torch.zeros(1, 2, 5)),
    ("RNN", torch.zeros(3, 2, 4), torch.zeros(2, 2, 5)),
    ("RNN", torch.zeros(3, 2, 4, dtype=torch.int64), None),
]


@pytest.mark.parametrize(("kind", "input", "hx"), WRONG)
def test_refuses_in_torchs_words(kind: str, input: Any, hx: Any) -> None:
    theirs, ours = pair(kind, 4, 5)
    with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever PyTorch raises)
        theirs(input, hx)
    with pytest.raises(type(expected.value)) as found:
        ours(input, hx)
    assert str(found.value) == str(expected.value)


def test_outputs_may_be_changed_in_place() -> None:
    theirs, ours = pair("GRU", 4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    found = []
    for layer in (theirs, ours):
        output, last = layer(x)
        output.mul_(2.0).relu_()
        found.append([output, last, gradients((output, last), list(layer.parameters()))])
    same(found[0], found[1])


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_of_gradients(kind: str) -> None:
    layer = getattr(bptt.nn, kind)(2, 3, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: tuple(tensors(layer(x))), (x,), fast_mode=True)


@pytest.mark.parametrize("frozen", ["weight_hh_l0", "weight_ih_l0", "bias_hh_l0"])
def test_frozen_weights(frozen: str) -> None:
    theirs, ours = pair("GRU", 4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    found = []
    for layer in (theirs, ours):
        getattr(layer, frozen).requires_grad_(False)
        wanted = [p for p in layer.parameters() if p.requires_grad]
        found.append(gradients(layer(x), wanted))
        assert not layer(x)[0].detach().requires_grad
    same(found[0], found[1])


def test_without_gradients() -> None:
    theirs, ours = pair("LSTM", 4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            same(theirs(x), ours(x))
            assert not ours(x)[0].requires_grad
