"""States are those of their step, without a graph; passes go on from a given or a learned one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bptt
from bptt.state import leaves

from .contract import METHODS, every_method, kinds, stream_for
from .helpers import assert_same, data, descend, network, only, ragged, series


@every_method
@kinds
def test_states_are_detached(name: str, kind: str) -> None:
    net, method = network(kind, learn_initial_state=kind != "OwnStart"), METHODS[name]()
    for update in method.updates(net, "mse", stream_for(name)):
        assert not any(leaf.requires_grad for leaf in leaves(update.state))
        net.zero_grad()
    assert method.state is not None
    assert not any(leaf.requires_grad for leaf in leaves(method.state))


@every_method
@kinds
def test_states_are_those_at_the_windows_end_and_after_the_last_step(name: str, kind: str) -> None:
    net, stream, method = network(kind), stream_for(name), METHODS[name]()
    batch = only(stream)
    for update in method.updates(net, "mse", stream):  # the weights are never changed
        part = batch.chunk(0, update.stop)
        expected = net.unfold(part.inputs, reset=part.reset, lengths=part.lengths)[1]
        assert_same([s.detach() for s in leaves(expected)], leaves(update.state))
        net.zero_grad()
    expected = net.unfold(batch.inputs, reset=batch.reset, lengths=batch.lengths)[1]
    assert_same([s.detach() for s in leaves(expected)], leaves(method.state))


@every_method
def test_the_graph_of_a_given_state_is_never_touched(name: str) -> None:
    net, method = network("LSTM"), METHODS[name]()
    source = data(2, 3, seed=8).requires_grad_()
    state = (source * source, torch.sin(source))
    for _ in method.updates(net, "mse", stream_for(name), state):
        net.zero_grad()
    assert source.grad is None
    sum(leaf.sum() for leaf in state).backward()  # and it can still be used
    assert_same(source.grad, (2 * source + torch.cos(source)).detach())


@pytest.mark.parametrize("method", [bptt.Truncated(3), bptt.Truncated(3, context="recomputed")])
def test_a_pass_goes_on_from_the_state_of_the_last_one(method: Any) -> None:
    inputs, targets = data(12, 2, 2), data(12, 2, 1)
    whole, halves = network("LSTM"), network("LSTM")
    expected = [s.weights for s in descend(method, whole, bptt.Stream(inputs, targets))]
    found = []
    state = None
    for low in (0, 6):
        part = bptt.Stream(inputs[low : low + 6], targets[low : low + 6])
        found += [s.weights for s in descend(method, halves, part, state=state)]
        state = method.state
    assert len(found) == len(expected) == 4
    assert_same(found[:2], expected[:2])
    if method.context == "carried":
        assert_same(found, expected)


@pytest.mark.parametrize(
    "options", [{}, {"combine": "mean"}, {"context": "recomputed"}, {"history": "stored"}]
)
def test_a_learned_initial_state_receives_gradient_at_starts_and_resets_only(
    options: dict[str, str],
) -> None:
    net = network(learn_initial_state=True)
    values = [data(7, 2), data(5, 2, seed=2)]
    targets = [data(7, 1), data(5, 1, seed=2)]
    stream = bptt.Stream(values, targets, lanes=1)  # one reset, before step 7
    reached = []
    for update in bptt.Truncated(2, **options).updates(net, "mse", stream):
        (p,) = net.learned_initial_state
        reached.append((update.start, p.grad is not None and bool((p.grad != 0).any())))
        net.zero_grad()
    assert reached == [(0, True), (2, False), (4, False), (6, True), (8, False), (10, False)]


@pytest.mark.parametrize("method", [bptt.Full(), bptt.Full(2), bptt.Truncated(3)])
def test_a_given_state_takes_the_place_of_the_learned_one(method: Any) -> None:
    net, stream = network(learn_initial_state=True), series(6)
    for _ in method.updates(net, "mse", stream, data(2, 3)):
        pass
    (p,) = net.learned_initial_state
    assert p.grad is None or not p.grad.any()


def test_a_learned_initial_state_begins_at_the_cells_own() -> None:
    net = network("Nested", learn_initial_state=True)
    assert_same(
        [leaf.detach() for leaf in leaves(net.initial_state(3))],
        leaves(net.cell.initial_state(3)),
    )
    assert len(list(net.learned_initial_state)) == 3


@pytest.mark.parametrize("method", [bptt.Full(), bptt.Full(2), bptt.Truncated(3, 2)])
def test_batches_of_whole_sequences_start_anew_and_are_numbered(method: Any) -> None:
    net, stream = network(learn_initial_state=True), ragged([5, 3, 6, 2, 4], batch=2)
    batches = list(stream.in_order())
    numbers = []
    for update in method.updates(net, "mse", stream):
        numbers.append(update.batch)
        part = batches[update.batch].chunk(0, update.stop)
        expected = net.unfold(part.inputs, lengths=part.lengths)[1]
        assert_same(update.state, expected.detach())
        net.zero_grad()
    assert sorted(set(numbers)) == [0, 1, 2]
    assert numbers == sorted(numbers)
    if isinstance(method, bptt.Full):
        assert numbers == [0, 1, 2]
    assert method.state.shape == (1, 3)
