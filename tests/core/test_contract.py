"""What a loop may rely on: gradients, closures, states and order, for every gradient method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.state import leaves

from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    copied,
    data,
    descend,
    gradient_of,
    gradients,
    network,
    only,
    ragged,
    series,
    weights,
)

METHODS = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(3),
    "carried": lambda: bptt.Truncated(4, 2),
    "detached": lambda: bptt.Truncated(3),
    "gap": lambda: bptt.Truncated(2, 3, "last"),
    "all": lambda: bptt.Truncated(4, 2, "all"),
    "mean": lambda: bptt.Truncated(4, 2, combine="mean"),
    "recomputed": lambda: bptt.Truncated(4, 2, context="recomputed"),
    "stored": lambda: bptt.Truncated(4, 2, history="stored"),
    "stored mean": lambda: bptt.Truncated(4, 2, "last", history="stored", combine="mean"),
    "sliding": lambda: bptt.SlidingWindow(3),
}


def stream_for(name: str) -> bptt.Stream:
    if name == "sliding":
        return bptt.Stream(data(9, 2, 2), data(9, 2, 1), horizon=1)
    return ragged([5, 3, 6, 2], lanes=2)


every_method = pytest.mark.parametrize("name", METHODS)
kinds = pytest.mark.parametrize("kind", ["Elman", "LSTM", "OwnStart", "Nested"])


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
@kinds
def test_a_closure_evaluates_its_window_again(name: str, kind: str) -> None:
    net = network(kind, learn_initial_state=kind == "LSTM")
    for update in METHODS[name]().updates(net, "mse", stream_for(name)):
        expected = gradients(net)
        for _ in range(2):
            assert float(update.closure()) == pytest.approx(update.loss, rel=1e-14)
            assert_same(gradients(net), expected, 1e-14)
        with torch.no_grad():  # so that the next window has a context of other weights
            for p, gradient in zip(net.parameters(), expected.values(), strict=True):
                p -= 0.05 * gradient
        net.zero_grad()


@every_method
def test_a_closure_takes_the_weights_of_the_day_and_the_context_of_its_window(name: str) -> None:
    """Its gradient is the derivative of its loss, and moving the weights there and back again
    changes nothing."""
    net = network("GRU")
    updates = METHODS[name]().updates(net, "mse", stream_for(name))
    for _ in range(1 if name in ("full", "segments") else 3):
        update = next(updates)
        net.zero_grad()
    before = float(update.closure())
    with torch.no_grad():
        net.readout.bias += 0.5
    moved = float(update.closure())
    slope = float(net.readout.bias.grad)
    assert moved != pytest.approx(before, rel=1e-3)
    with torch.no_grad():
        net.readout.bias -= 0.5
    assert before == pytest.approx(float(update.closure()), rel=1e-13)
    # the loss is quadratic in the readout's bias, with curvature 2
    assert moved - before == pytest.approx(0.5 * slope - 0.25, rel=1e-9)


@every_method
def test_a_closure_works_without_a_gradient_mode_around_it(name: str) -> None:
    net = network()
    update = next(METHODS[name]().updates(net, "mse", stream_for(name)))
    expected = gradients(net)
    with torch.no_grad():
        update.closure()
    assert_same(gradients(net), expected, 1e-14)


@pytest.mark.parametrize("name", ["full", "segments"])
def test_lbfgs_takes_the_steps_that_it_takes_on_a_hand_written_closure(name: str) -> None:
    net, stream = network(), series(8)
    usual, batch = copied(net), only(stream)
    options: dict[str, Any] = {"lr": 0.5, "max_iter": 6, "line_search_fn": "strong_wolfe"}
    by_hand = torch.optim.LBFGS(usual.parameters(), **options)
    optimizer = torch.optim.LBFGS(net.parameters(), **options)

    def closure() -> Tensor:
        by_hand.zero_grad()
        loss = nn.functional.mse_loss(usual(batch.inputs)[0], batch.targets)
        loss.backward()
        return loss

    losses = []
    for _ in range(3):
        for update in METHODS[name]().updates(net, "mse", stream):
            losses.append(update.loss)
            optimizer.step(update.closure)
            optimizer.zero_grad()
        by_hand.step(closure)
        assert_same(weights(net), weights(usual), 1e-8)
    assert losses[0] > losses[1] > losses[2]


@every_method
def test_lbfgs_lowers_the_loss_of_every_methods_window(name: str) -> None:
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    for update in METHODS[name]().updates(net, "mse", stream_for(name)):
        if update.count > 1 and "mean" not in name:
            assert float(optimizer.step(update.closure)) == pytest.approx(update.loss, rel=1e-12)
            assert float(update.closure()) < update.loss
            optimizer = torch.optim.LBFGS(
                net.parameters(), max_iter=5, line_search_fn="strong_wolfe"
            )
        optimizer.zero_grad()


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


def freeze(net: bptt.Network, trained: str) -> bptt.Network:
    for parameter_name, p in net.named_parameters():
        p.requires_grad_(parameter_name.startswith(trained))
    return net


@every_method
@pytest.mark.parametrize("trained", ["cell", "readout", "learned_initial_state"])
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(name: str, trained: str) -> None:
    stream = stream_for(name)
    expected, _ = gradient_of(METHODS[name](), network(learn_initial_state=True), stream)
    net = freeze(network(learn_initial_state=True), trained)
    found, updates = gradient_of(METHODS[name](), net, stream)
    assert updates
    for parameter_name, p in net.named_parameters():
        if p.requires_grad:
            assert_same(found[parameter_name], expected[parameter_name])
        else:
            assert p.grad is None
            assert not found[parameter_name].any()


class Reservoir(nn.Module):
    """A fixed cell: its weights are buffers, only the readout learns."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("enter", data(2, 3))
        self.register_buffer("mix", 0.3 * data(3, 3, seed=4))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(input @ self.enter + state @ self.mix)


@pytest.mark.parametrize("name", ["full", "segments", "carried", "mean", "recomputed", "stored"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_cell_without_parameters_starts_in_the_dtype_of_its_inputs(name: str, loss: str) -> None:
    net = Network(Reservoir(), nn.Linear(3, 3, dtype=F64))
    classes = torch.tensor([0, 2, 1, 0, 1, 2, 2])
    targets = data(7, 3) if loss == "mse" else classes
    stream = bptt.Stream(data(7, 2), targets)
    total, updates = gradient_of(METHODS[name](), net, stream, loss)
    assert sum(u.count for u in updates) >= 7
    assert bool(total["readout.weight"].any())


@pytest.mark.parametrize(("combine", "share"), [("sum", 1.0), ("mean", 1.0 / 7.0)])
def test_a_parameter_used_twice_in_the_cell_is_summed_once(combine: Any, share: float) -> None:
    cell = CELLS["Elman"](2, 2)
    net, stream = Network(bptt.Stack(cell, cell), nn.Linear(2, 1, dtype=F64)), series(7)
    state, predictions, batch = net.initial_state(2), [], only(stream)
    for step in batch.inputs:
        bottom = cell(step, state[0])
        state = (bottom, cell(bottom, state[1]))
        predictions.append(net.readout(state[1]))
    nn.functional.mse_loss(torch.stack(predictions), batch.targets).backward()
    expected = gradients(net)
    net.zero_grad()
    list(bptt.Truncated(7, combine=combine).updates(net, "mse", stream))
    for name, gradient in gradients(net).items():
        assert_same(gradient, (share if name.startswith("cell") else 1.0) * expected[name])


class Borrowing(nn.Module):
    """A cell whose recurrent weights are made of a tensor that is no parameter of it."""

    hidden_size = 2

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.inner = nn.RNNCell(2, 2, dtype=F64)
        self.sources = (source,)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.inner(input, state @ self.sources[0].tanh())


@pytest.mark.filterwarnings("ignore:.*no parameter")
@pytest.mark.parametrize(("combine", "share"), [("sum", 1.0), ("mean", 1.0 / 7.0)])
def test_a_captured_tensor_takes_part(combine: Any, share: float) -> None:
    source = torch.randn(2, 2, dtype=F64, requires_grad=True)
    net, stream = Network(Borrowing(source)), series(7, outputs=2)
    list(bptt.Full().updates(net, "mse", stream))
    expected, source.grad = source.grad, None
    assert expected is not None
    assert bool(expected.all())
    net.zero_grad()
    list(bptt.Truncated(7, combine=combine).updates(net, "mse", stream))
    assert source.grad is not None
    assert_same(source.grad, share * expected)


class Dropping(nn.Module):
    """Dropout on the input; remembers how often it drew."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 3, dtype=F64)
        self.drawn: list[Tensor] = []

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        self.drawn.append(nn.functional.dropout(torch.ones(3, dtype=F64), 0.5))
        return self.cell(input, state * self.drawn[-1])


def test_a_replayed_window_draws_anew() -> None:
    net = Network(Dropping(), nn.Linear(3, 1, dtype=F64))
    stream = series(12)
    (update,) = bptt.Full().updates(net, "mse", stream)
    update.closure()
    draws = torch.stack(net.cell.drawn)
    assert not torch.equal(draws[:12], draws[12:])


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
