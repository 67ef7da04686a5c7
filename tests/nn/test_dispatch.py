"""What a layer keeps from call to call never shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import bptt
from bptt.nn._dispatch import dispatched_call

KINDS = ["RNN", "GRU", "LSTM"]


def same(layer: Any, inputs: torch.Tensor) -> None:
    """Outputs, states and gradients as of PyTorch's own layer with these weights."""
    plain = {"RNN_TANH": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[layer.mode]
    results = []
    for forward in (type(layer).forward, plain.forward):
        layer.zero_grad()
        given = inputs.detach().clone().requires_grad_(inputs.requires_grad)
        outputs, last = forward(layer, given)
        found = [outputs, *(last if isinstance(last, tuple) else [last])]
        if outputs.requires_grad:
            (outputs.square().sum() + found[-1].sum()).backward()
            found += [p.grad for p in layer.parameters() if p.requires_grad]
            found += [given.grad] if inputs.requires_grad else []
        results.append(found)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def usual(kind: str, **options: Any) -> tuple[Any, torch.Tensor]:
    """A layer after a call, of which the next is a usual one."""
    layer = getattr(bptt.nn, kind)(3, 4, **options).double()
    inputs = torch.randn(5, 2, 3).double()
    assert dispatched_call(layer, inputs) is None
    layer(inputs)
    assert dispatched_call(layer, inputs) is not None
    return layer, inputs


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_seen(kind: str, batch_first: bool) -> None:
    layer, inputs = usual(kind, batch_first=batch_first)
    for _ in range(2):
        same(layer, inputs)
    same(layer, inputs[:, :1])
    same(layer, inputs.clone().requires_grad_())
    with torch.no_grad():
        same(layer, inputs)
        layer.weight_hh_l0.mul_(2.0)
    same(layer, inputs)
    layer.weight_hh_l0 = nn.Parameter(torch.randn_like(layer.weight_hh_l0))
    same(layer, inputs)
    same(layer, inputs)
    layer.weight_ih_l0.requires_grad_(False)
    same(layer, inputs)
    layer.float()
    same(layer, inputs.float())
    same(layer, inputs.float())
    with pytest.raises((RuntimeError, ValueError), match=r"dtype|double|Float"):
        layer(inputs)
    with pytest.raises(RuntimeError, match="Expected 3"):
        layer(inputs.float()[..., :2])


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_are_nobodys(kind: str) -> None:
    layer, inputs = usual(kind)
    expected = layer(inputs)[0].detach().clone()
    for _ in range(2):
        outputs, last = layer(inputs)
        assert torch.equal(outputs, expected)
        with torch.no_grad():
            for tensor in (outputs, *(last if isinstance(last, tuple) else [last])):
                tensor.fill_(3.0)


def test_inference_first_and_training_after() -> None:
    layer, inputs = bptt.nn.GRU(3, 4), torch.randn(5, 2, 3)
    with torch.inference_mode():
        layer(inputs)
        layer(inputs)
    same(layer, inputs)


def test_other_calls_go_the_long_way() -> None:
    layer, inputs = usual("GRU")
    assert dispatched_call(layer, inputs[0]) is None
    assert dispatched_call(layer, inputs[:0]) is None
    assert dispatched_call(layer, nn.utils.rnn.pack_sequence([inputs[:, 0]])) is None
    with torch.autocast("cpu"):
        assert dispatched_call(layer, inputs) is None
    parametrized = usual("GRU")[0]
    nn.utils.parametrizations.weight_norm(parametrized, "weight_hh_l0")
    assert dispatched_call(parametrized, inputs) is None
    same(parametrized, inputs)
    same(parametrized, inputs)
    values = {name: p.detach() * 2 for name, p in layer.named_parameters()}
    called = torch.func.functional_call(layer, values, (inputs,))[0]
    layer.load_state_dict(values)
    torch.testing.assert_close(called, layer(inputs)[0])
    for wide in ({"num_layers": 2}, {"bidirectional": True}):
        deep = bptt.nn.GRU(3, 4, **wide).double()
        deep(inputs)
        assert dispatched_call(deep, inputs) is None
