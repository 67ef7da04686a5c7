"""Passes add to what `grad` holds, and one method object serves any number of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bptt

from .contract import METHODS, every_method, kinds, stream_for
from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    descend,
    gradient_of,
    gradients,
    network,
    ragged,
    series,
)


@every_method
@kinds
def test_gradients_are_added_to_what_grad_holds(name: str, kind: str) -> None:
    net, stream = network(kind), stream_for(name)
    alone = next(METHODS[name]().updates(net, "mse", stream))
    expected = gradients(net)
    for p in net.parameters():
        p.grad = torch.full_like(p, 2.5)
    added = next(METHODS[name]().updates(net, "mse", stream))
    assert added.loss == alone.loss
    assert_same(gradients(net), {n: g + 2.5 for n, g in expected.items()}, 1e-14)


@every_method
def test_one_method_object_serves_again_and_again(name: str) -> None:
    stream, method = stream_for(name), METHODS[name]()
    expected = [s.weights for s in descend(METHODS[name](), network(), stream)]
    for _ in range(2):
        assert_same([s.weights for s in descend(method, network(), stream)], expected, 0.0)


@every_method
def test_two_passes_of_one_method_object_do_not_disturb_each_other(name: str) -> None:
    stream, method = stream_for(name), METHODS[name]()
    expected = [s.weights for s in descend(METHODS[name](), network("GRU"), stream)]
    one = descend(method, network("GRU"), stream)
    other = descend(method, network("GRU"), stream)
    for step, first, second in zip(expected, one, other, strict=True):
        assert_same(first.weights, step, 0.0)
        assert_same(second.weights, step, 0.0)


@every_method
def test_a_pass_leaves_grad_as_the_caller_left_it_between_updates(name: str) -> None:
    """Without clearing, the gradients of all updates add up."""
    net, stream = network(), stream_for(name)
    total = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for _ in METHODS[name]().updates(net, "mse", stream):
        total = {n: total[n] + g for n, g in gradients(net).items()}
        net.zero_grad()
    for _ in METHODS[name]().updates(net, "mse", stream):
        pass
    assert_same(gradients(net), total)


class Mixing(nn.Module):
    """A readout with batch statistics inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.read = nn.BatchNorm1d(3, dtype=F64), nn.Linear(3, 1, dtype=F64)

    def forward(self, outputs: Tensor) -> Tensor:
        flat = outputs.flatten(0, 1)
        return self.read(self.norm(flat)).unflatten(0, outputs.shape[:2])


@every_method
def test_a_readout_with_batch_statistics_is_refused_in_training_and_runs_in_eval(name: str) -> None:
    net, stream = Network(CELLS["Elman"](2, 3), Mixing()), stream_for(name)
    with pytest.raises(bptt.CellError, match=r"batch statistics, BatchNorm1d \(norm\).*eval"):
        METHODS[name]().updates(net, "mse", stream)
    assert all(p.grad is None for p in net.parameters())
    net.readout.norm.eval()
    assert next(METHODS[name]().updates(net, "mse", stream)).loss > 0.0


def test_callables_may_return_one_value_a_step_or_one_a_feature() -> None:
    net, stream = network(outputs=2), ragged([5, 3], outputs=2, lanes=1)
    named, _ = gradient_of(bptt.Full(), net, stream, "mse")
    for loss in (lambda p, t: (p - t) ** 2, lambda p, t: ((p - t) ** 2).mean(dim=2)):
        assert_same(gradient_of(bptt.Full(), net, stream, loss)[0], named)


def test_methods_compare_by_their_options_alone() -> None:
    one = bptt.Truncated(4, 2)
    list(one.updates(network(), "mse", series(5)))
    assert one == bptt.Truncated(4, 2) != bptt.Truncated(4)
    assert repr(bptt.Full(3)) == "Full(segment=3, memory=None)"
