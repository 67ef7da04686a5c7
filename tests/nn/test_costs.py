"""Which kernel runs a call of a layer: decided by sizes and the instruction set alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn.utils.rnn import pack_padded_sequence

import bptt
from bptt import _core
from bptt.nn import _costs

from .helpers import needs_core, unfolded_by_engine

LARGE = 512
SMALLER = LARGE // 2

pytestmark = needs_core
needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def test_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa, wanted in (("avx512", [1, 2, 4]), ("avx2", [1])):
        monkeypatch.setattr(_core, "isa", lambda isa=isa: isa)
        assert [n for n in (1, 2, 4, 8, 16, 64) if _costs._few(LARGE, n)] == wanted, isa
    assert [n for n in (1, 2, 8, 32, 64) if _costs._few(2 * LARGE, n)] == [1, 8, 32]


def test_without_onednn_the_engine_runs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    layer = nn.LSTM(4, LARGE)
    assert "PyTorch's kernel" not in str(bptt.accelerate(layer))
    seen = unfolded_by_engine(monkeypatch)
    layer(torch.randn(3, 1, 4))
    assert seen
    assert "PyTorch's kernel" not in str(bptt.accelerate(nn.LSTM(4, LARGE).double()))


@needs_onednn
@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 4)], ids=["batched", "unbatched"])
def test_one_lane_of_a_large_lstm_is_pytorchs(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = nn.LSTM(4, LARGE), torch.randn(shape)
    expected = layer(x)
    assert "PyTorch's kernel runs some calls with few lanes" in str(bptt.accelerate(layer))
    seen = unfolded_by_engine(monkeypatch)
    outputs, (hidden, cells) = layer(x)
    assert not seen
    assert torch.equal(outputs, expected[0])
    assert torch.equal(hidden, expected[1][0])
    assert torch.equal(cells, expected[1][1])


@needs_onednn
def test_what_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    one, many = torch.randn(3, 1, 4), torch.randn(3, 64, 4)
    seen = unfolded_by_engine(monkeypatch)
    for layer, x in (
        (bptt.nn.LSTM(4, SMALLER), one),
        (bptt.nn.GRU(4, LARGE), one),
        (bptt.nn.RNN(4, LARGE), one),
        (bptt.nn.LSTM(4, LARGE, proj_size=2), one),
        (bptt.nn.LSTM(4, LARGE), many),
        (bptt.nn.LSTM(4, LARGE), pack_padded_sequence(one, torch.tensor([3]))),
        (bptt.nn.LSTM(4, LARGE).double(), one.double()),
    ):
        for _ in range(2):  # the first call, and the usual one
            seen.clear()
            layer(x)
            assert seen, layer
    with torch.backends.mkldnn.flags(enabled=False):
        seen.clear()
        bptt.nn.LSTM(4, LARGE)(one)
        assert seen


@needs_onednn
def test_a_lane_more_or_less_changes_kernels_back_and_forth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, seen = bptt.nn.LSTM(4, LARGE), unfolded_by_engine(monkeypatch)
    for lanes, by_engine in ((64, True), (1, False), (64, True), (1, False)):
        seen.clear()
        layer(torch.randn(3, lanes, 4))
        assert bool(seen) is by_engine


@needs_onednn
def test_transforms_and_second_derivatives() -> None:
    """What PyTorch's kernel cannot do: `vmap` goes around it, a second derivative without it."""
    layer, x = bptt.nn.LSTM(2, LARGE), torch.randn(2, 3, 1, 2)
    found = vmap(lambda one: layer(one)[0], randomness="same")(x)
    torch.testing.assert_close(found[0], layer(x[0])[0], rtol=1e-4, atol=1e-5)
    given = x[0].requires_grad_()
    with torch.backends.mkldnn.flags(enabled=False):
        (first,) = torch.autograd.grad(layer(given)[0].square().sum(), given, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), given)
    assert second.abs().sum() > 0
