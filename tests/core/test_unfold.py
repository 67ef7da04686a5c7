"""`bptt.unfold`: PyTorch's own layers, resets, lengths, states, and derivatives of every order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import bptt
from bptt.state import leaves

from .helpers import CELLS, F64, assert_same, data, gradient_of, network, ragged, unfold

LAYERS: dict[str, tuple[Any, Any]] = {
    "Elman tanh": (nn.RNN, lambda i, h: bptt.cells.Elman(i, h, dtype=F64)),
    "Elman relu": (
        lambda i, h, dtype: nn.RNN(i, h, nonlinearity="relu", dtype=dtype),
        lambda i, h: bptt.cells.Elman(i, h, nonlinearity="relu", dtype=F64),
    ),
    "GRU": (nn.GRU, lambda i, h: bptt.cells.GRU(i, h, dtype=F64)),
    "LSTM": (nn.LSTM, lambda i, h: bptt.cells.LSTM(i, h, dtype=F64)),
}


def squared(*tensors: Tensor) -> Tensor:
    return sum((t * t * t.cos()).sum() for t in tensors)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("given", [False, True])
def test_it_equals_pytorchs_layer_with_the_same_weights(kind: str, given: bool) -> None:
    make_layer, make_cell = LAYERS[kind]
    layer, cell = make_layer(3, 4, dtype=F64), make_cell(3, 4)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in layer.state_dict().items()})
    inputs = data(6, 2, 3).requires_grad_()
    state = None
    if given:
        state = (data(2, 4, seed=3), data(2, 4, seed=4)) if kind == "LSTM" else data(2, 4, seed=3)
    with_layer = None
    if state is not None:
        with_layer = tuple(s[None] for s in state) if kind == "LSTM" else state[None]
    expected, last = layer(inputs, with_layer)
    outputs, state = unfold(cell, inputs, state)
    assert_same(outputs, expected)
    assert_same(leaves(state), [s[0] for s in (last if kind == "LSTM" else (last,))])
    sources = (inputs, *layer.parameters())
    expected_gradients = torch.autograd.grad(squared(expected, *leaves(last)), sources)
    found = torch.autograd.grad(squared(outputs, *leaves(state)), (inputs, *cell.parameters()))
    for one, other in zip(found, expected_gradients, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.RNNCell, bptt.cells.Elman),
        (nn.GRUCell, bptt.cells.GRU),
        (nn.LSTMCell, bptt.cells.LSTM),
    ],
)
def test_parameters_have_the_names_and_draws_of_pytorchs_cells(one: Any, other: Any) -> None:
    torch.manual_seed(5)
    expected = one(3, 4).state_dict()
    torch.manual_seed(5)
    found = other(3, 4).state_dict()
    assert list(found) == list(expected)
    assert_same(dict(found), dict(expected))


def test_the_leaky_integrator_follows_its_equation() -> None:
    cell = bptt.cells.Leaky(1, 3, time_constant=torch.tensor([1.0, 2.0, 4.0]), dtype=F64)
    h, x = data(2, 3), data(2, 1)
    drive = np.tanh(
        x.numpy() @ cell.weight_ih.detach().numpy().T
        + h.numpy() @ cell.weight_hh.detach().numpy().T
        + (cell.bias_ih + cell.bias_hh).detach().numpy()
    )
    rate = np.array([1.0, 0.5, 0.25])
    np.testing.assert_allclose(
        cell(x, h).detach().numpy(), (1 - rate) * h.numpy() + rate * drive, rtol=1e-12
    )


@pytest.mark.parametrize("kind", CELLS)
def test_a_run_in_pieces_is_the_run_in_one(kind: str) -> None:
    cell, inputs = CELLS[kind](2, 3), data(7, 2, 2)
    whole, last, states = unfold(cell, inputs, return_states=True)
    first, middle = unfold(cell, inputs[:4])
    second, end = unfold(cell, inputs[4:], middle)
    assert_same(torch.cat([first, second]), whole)
    assert_same(end, last)
    assert_same([leaf[3] for leaf in leaves(states)], leaves(middle))
    assert_same([leaf[-1] for leaf in leaves(states)], leaves(last))
    assert all(leaf.shape[0] == 7 for leaf in leaves(states))


@pytest.mark.parametrize("kind", CELLS)
def test_a_reset_at_every_sequences_start_is_the_sequences_run_apart(kind: str) -> None:
    net = network(kind)
    one, two, three = data(4, 1, 2), data(3, 1, 2, seed=2), data(2, 1, 2, seed=3)
    together = torch.cat([torch.cat([one, two, three]), data(9, 1, 2, seed=4)], dim=1)
    reset = torch.zeros(9, 2, dtype=torch.bool)
    reset[4, 0] = reset[7, 0] = True
    outputs, last = net.unfold(together, reset=reset)
    apart = [net.unfold(x)[0] for x in (one, two, three)]
    assert_same(outputs[:, :1], torch.cat(apart))
    assert_same(outputs[:, 1:], net.unfold(together[:, 1:])[0])
    assert_same([s[:1] for s in leaves(last)], leaves(net.unfold(three)[1]))


def test_no_gradient_crosses_a_reset_and_what_is_left_may_be_nan() -> None:
    net = network("GRU")
    inputs = data(5, 1, 2).requires_grad_()
    state = torch.full((1, 3), float("nan"), dtype=F64, requires_grad=True)
    reset = torch.zeros(5, 1, dtype=torch.bool)
    reset[0] = reset[3] = True
    outputs, _ = net.unfold(inputs, state, reset=reset)
    outputs[3:].square().sum().backward()
    assert torch.all(inputs.grad[:3] == 0.0)
    assert torch.all(inputs.grad[3:].abs().sum(dim=2) > 0.0)
    assert torch.all(state.grad == 0.0)


def test_a_reset_returns_to_the_initial_state_never_to_a_carried_one() -> None:
    cell, inputs = CELLS["Elman"](2, 3), data(3, 2, 2)
    reset = torch.zeros(3, 2, dtype=torch.bool)
    reset[1, 0] = True
    given, initial = data(2, 3, seed=5), data(2, 3, seed=6)
    _, _, states = unfold(cell, inputs, given, reset=reset, return_states=True)
    assert_same(states[1, 0], cell(inputs[1], torch.zeros(2, 3, dtype=F64))[0])
    _, _, states = unfold(cell, inputs, given, initial=initial, reset=reset, return_states=True)
    assert_same(states[0], cell(inputs[0], given))
    assert_same(states[1, 0], cell(inputs[1], initial)[0])
    assert_same(states[1, 1], cell(inputs[1], states[0])[1])


@pytest.mark.parametrize("kind", CELLS)
def test_a_ragged_batch_is_each_lane_alone_and_padding_may_be_nan(kind: str) -> None:
    net = network(kind)
    inputs, lengths = data(6, 4, 2), torch.tensor([6, 2, 0, 5])
    padded = inputs.clone()
    for lane, length in enumerate(lengths.tolist()):
        padded[length:, lane] = float("nan")
    outputs, last = net.unfold(padded, lengths=lengths)
    found = torch.autograd.grad(squared(outputs, *leaves(last)), tuple(net.cell.parameters()))
    cost = torch.zeros((), dtype=F64)
    for lane, length in enumerate(lengths.tolist()):
        alone, end = net.unfold(inputs[:length, lane : lane + 1])
        assert_same(outputs[:length, lane : lane + 1], alone)
        assert torch.all(outputs[length:, lane] == 0.0)
        assert_same([s[lane : lane + 1] for s in leaves(last)], leaves(end))
        cost = cost + squared(alone, *leaves(end))
    for one, other in zip(
        found, torch.autograd.grad(cost, tuple(net.cell.parameters())), strict=True
    ):
        assert_same(one, other)


def test_a_lane_past_its_length_is_not_reset() -> None:
    net, inputs = network(), data(4, 2, 2)
    reset = torch.zeros(4, 2, dtype=torch.bool)
    reset[3, 1] = True
    _, last = net.unfold(inputs, reset=reset, lengths=torch.tensor([4, 2]))
    assert_same(last[1], net.unfold(inputs[:2])[1][1])


def test_padded_outputs_carry_no_gradient() -> None:
    net, inputs = network(), data(4, 1, 2).requires_grad_()
    outputs, _ = net.unfold(inputs, lengths=torch.tensor([2]))
    (gradient,) = torch.autograd.grad(outputs[2:].sum(), inputs)
    assert torch.all(gradient == 0.0)


@pytest.mark.parametrize("kind", ["Elman", "LSTM", "Nested"])
def test_no_steps_give_empty_outputs_and_the_state_as_it_was(kind: str) -> None:
    net = network(kind)
    outputs, state, states = net.unfold_states(data(0, 2, 2))
    assert outputs.shape == (0, 2, 3)
    assert_same(state, net.initial_state(2))
    assert all(leaf.shape[0] == 0 for leaf in leaves(states))


@pytest.mark.parametrize("kind", CELLS)
def test_step_by_step_equals_forward_and_grows_no_graph(kind: str) -> None:
    net, inputs = network(kind, learn_initial_state=True), data(6, 2, 2)
    expected, last = net(inputs)
    state = None
    for t in range(6):
        prediction, state = net.step(inputs[t], state)
        assert not prediction.requires_grad
        assert not any(leaf.requires_grad for leaf in leaves(state))
        assert_same(prediction, expected[t].detach())
    assert_same(leaves(state), [leaf.detach() for leaf in leaves(last)])


def test_a_stack_gives_its_top_layers_output_and_feeds_each_layer_to_the_next() -> None:
    bottom, top = Halved(CELLS["GRU"](2, 4)), CELLS["LSTM"](4, 3)
    inputs = data(5, 2, 2)
    outputs, state = unfold(bptt.Stack(bottom, top), inputs)
    below, end = unfold(bottom, inputs)
    above, last = unfold(top, below)
    assert_same(outputs, above)
    assert_same(state, (end, last))


class Halved(nn.Module):
    """A cell whose output is not its state."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, cell.hidden_size

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.cell(input, state)

    def output(self, state: Tensor) -> Tensor:
        return 0.5 * state


SMOOTH = [kind for kind in CELLS if kind != "Elman relu"]


def as_function(net: bptt.Network, **options: Any) -> tuple[Any, list[Tensor]]:
    """Outputs and last state as a function of inputs and every parameter."""
    names = [name for name, _ in net.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in net.parameters()]

    def function(inputs: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, flat, strict=True))
        outputs, last = functional_call(net, given, (inputs,), options)
        return outputs, *leaves(last)

    return function, values


@pytest.mark.parametrize("kind", CELLS)
def test_gradcheck_with_resets_lengths_and_a_learned_initial_state(kind: str) -> None:
    net = network(kind, learn_initial_state=True)
    reset = torch.zeros(5, 2, dtype=torch.bool)
    reset[3, 0] = True
    function, values = as_function(net, reset=reset, lengths=torch.tensor([5, 4]))
    inputs = data(5, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(function, (inputs, *values), fast_mode=True)


@pytest.mark.parametrize("kind", SMOOTH)
def test_gradgradcheck(kind: str) -> None:
    net = network(kind, learn_initial_state=True)
    reset = torch.zeros(3, 2, dtype=torch.bool)
    reset[2, 0] = True
    function, values = as_function(net, reset=reset, lengths=torch.tensor([3, 2]))
    inputs = data(3, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(function, (inputs, *values), fast_mode=True)


def clipped_by_hand(net: bptt.Network, inputs: np.ndarray, seeds: np.ndarray, clip: float) -> Any:
    """Backpropagation through an Elman cell for one lane, from the gradient ``seeds`` of every
    output: what each step was given is clipped before the step before it receives it."""
    w = {name: p.detach().numpy() for name, p in net.cell.named_parameters()}
    states = [np.zeros(len(w["bias_hh"]))]
    for a in inputs:
        drive = w["weight_ih"] @ a + w["bias_ih"] + w["weight_hh"] @ states[-1] + w["bias_hh"]
        states.append(np.tanh(drive))
    total = {name: np.zeros_like(value) for name, value in w.items()}
    back = np.zeros_like(states[0])
    for t in reversed(range(len(inputs))):
        dz = (back + seeds[t]) * (1.0 - states[t + 1] ** 2)
        total["weight_ih"] += np.outer(dz, inputs[t])
        total["weight_hh"] += np.outer(dz, states[t])
        total["bias_ih"] += dz
        total["bias_hh"] += dz
        back = np.clip(w["weight_hh"].T @ dz, -clip, clip)
    return total, back


@pytest.mark.parametrize("clip", [0.05, 0.3, 100.0])
def test_clipping_the_state_gradient_follows_the_hand_written_backward_pass(clip: float) -> None:
    net = network(clip_state_gradient=clip)
    inputs, seeds = data(8, 1, 2), data(8, 1, 3, seed=3)
    initial = torch.zeros(1, 3, dtype=F64, requires_grad=True)
    outputs, _ = net.unfold(inputs, initial)
    outputs.backward(seeds)
    expected, entry = clipped_by_hand(net, inputs[:, 0].numpy(), seeds[:, 0].numpy(), clip)
    for name, p in net.cell.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), expected[name], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(initial.grad[0].numpy(), entry, rtol=1e-12, atol=1e-13)
    unclipped, _ = clipped_by_hand(net, inputs[:, 0].numpy(), seeds[:, 0].numpy(), 1e9)
    same = np.allclose(expected["weight_hh"], unclipped["weight_hh"])
    assert same == (clip == 100.0)


@pytest.mark.parametrize("clip", [0.02, 0.2])
@pytest.mark.parametrize("kind", ["Elman", "LSTM"])
def test_clipping_is_the_same_in_segments(kind: str, clip: float) -> None:
    net = network(kind, learn_initial_state=True, clip_state_gradient=clip)
    stream = ragged([6, 3, 5], lanes=2)
    whole, _ = gradient_of(bptt.Full(), net, stream)
    for segment in (1, 2, 3, 4):
        assert_same(gradient_of(bptt.Full(segment), net, stream)[0], whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_and_float64_keep_their_dtype(dtype: torch.dtype) -> None:
    net = network("LSTM").to(dtype)
    outputs, state = net.unfold(data(3, 1, 2).to(dtype))
    assert outputs.dtype == dtype
    assert all(leaf.dtype == dtype for leaf in leaves(state))
