"""The loop in autograd: subsets of gradients, odd sizes, strides, gradients of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import cells
from bptt.engine import Plan, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import native
from bptt.reuse import Reuse, reusing
from bptt.state import leaves, map_state

from .oracle import Case, assert_same, case, results
from .zoo import ZOO, LayerNormGRU


def unfold(given: Case, executor: str, **changes: Any) -> Any:
    """Outputs, last state and states by one executor."""
    options: dict[str, Any] = {
        "initial": given.initial,
        "reset": given.reset,
        "lengths": given.lengths,
        "return_states": False,
        "clip": given.clip,
    }
    options |= changes
    if executor == "eager":
        return eager.run(given.cell, given.inputs, given.state, **options)
    plan = plan_for(given.cell, given.inputs, given.state, given.initial, kernel=executor)
    assert isinstance(plan, Plan), str(plan)
    return native.run(given.cell, given.inputs, given.state, plan=plan, **options)


@pytest.mark.parametrize("name", ["rnn", "own lstm", "layer-normalised gru", "stack"])
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_do(kernel: str, name: str, steps: int, batch: int) -> None:
    given = case(ZOO[name](3, 5), 3, steps, batch)
    assert_same(results(given, kernel), results(given, "eager"), 0.0)


@pytest.mark.parametrize("only", ["input", "state", "weight_hh", "bias_ih", "none"])
def test_subsets_of_gradients(kernel: str, only: str) -> None:
    given = case(cells.GRU(3, 5), 3, 6, 2)
    given.cell.requires_grad_(False)
    given.inputs = given.inputs.detach().requires_grad_(only == "input")
    given.state = given.state.detach().requires_grad_(only == "state")
    given.initial = given.initial.detach()
    if only not in ("input", "state", "none"):
        getattr(given.cell, only).requires_grad_(True)
    asked = {"input": given.inputs, "state": given.state}.get(only)
    found, expected = unfold(given, kernel)[0], unfold(given, "eager")[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.requires_grad == expected.requires_grad == (only != "none")
    if only != "none":
        asked = getattr(given.cell, only) if asked is None else asked
        got = torch.autograd.grad(found.square().sum(), asked)
        want = torch.autograd.grad(expected.square().sum(), asked)
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_a_gradient_asked_for_one_tensor_alone(kernel: str) -> None:
    given = case(cells.LSTM(3, 5), 3, 6, 2)
    for asked in (given.inputs, given.cell.weight_hh, leaves(given.state)[1]):
        grads = [
            torch.autograd.grad(unfold(given, e)[0].square().sum(), asked)
            for e in (kernel, "eager")
        ]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-11, atol=1e-12)


def test_only_the_last_state_counts(kernel: str) -> None:
    given = case(cells.LSTM(3, 5), 3, 6, 2)
    asked = [given.inputs, *given.cell.parameters(), *leaves(given.state)]
    grads = [
        torch.autograd.grad(leaves(unfold(given, e)[1])[1].square().sum(), asked)
        for e in (kernel, "eager")
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "how", ["transposed", "sliced", "expanded", "batch of one", "strided gradient"]
)
def test_strides(kernel: str, how: str) -> None:
    given = case(cells.GRU(3, 5), 3, 6, 1 if how == "batch of one" else 4)
    data = given.inputs.detach()
    if how == "transposed":
        given.inputs = data.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
        given.state = given.state.detach().t().contiguous().t().requires_grad_()
    elif how == "sliced":
        given.inputs = torch.cat([data, data], 2)[::1, :, ::2].requires_grad_()
    elif how == "expanded":
        given.inputs = data[:1].expand(6, 4, 3).requires_grad_()
        given.state = given.initial = given.state.detach()[:1].expand(4, 5).requires_grad_()
    outputs = {e: unfold(given, e)[0] for e in (kernel, "eager")}
    weight = torch.randn(outputs["eager"].shape, dtype=torch.float64)
    if how == "strided gradient":
        weight = torch.randn(5, 4, 6, dtype=torch.float64).permute(2, 1, 0)
    asked = [given.inputs, given.state, *given.cell.parameters()]
    grads = [torch.autograd.grad(o, asked, weight) for o in outputs.values()]
    torch.testing.assert_close(outputs[kernel], outputs["eager"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-11, atol=1e-12)


def test_without_gradients_nothing_is_kept(kernel: str) -> None:
    given = case(cells.GRU(3, 5), 3, 6, 2)
    expected = unfold(given, "eager")[0]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            outputs, last, _ = unfold(given, kernel)
        assert not outputs.requires_grad
        assert outputs.grad_fn is None
        torch.testing.assert_close(outputs, expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(last, outputs[-1], rtol=0, atol=0)


def test_the_last_state_is_a_tensor_of_its_own(kernel: str) -> None:
    outputs, last, _ = unfold(case(cells.GRU(3, 5), 3, 6, 2), kernel)
    assert last.untyped_storage().data_ptr() != outputs.untyped_storage().data_ptr()
    assert last.untyped_storage().nbytes() == last.nbytes


def relu(outputs: Tensor, states: Any) -> Tensor:
    return torch.relu_(outputs)


def a_step(outputs: Tensor, states: Any) -> Tensor:
    outputs.transpose(0, 1)[0].mul_(-3.0)
    return outputs


def unseen(outputs: Tensor, states: Any) -> Tensor:
    with torch.no_grad():
        outputs.fill_(7.0)
    return outputs


def every_state(outputs: Tensor, states: Any) -> Tensor:
    squares = [leaf.square_().sum() for leaf in leaves(states)]
    return outputs * torch.stack(squares).sum()


@pytest.mark.parametrize("change", [relu, a_step, unseen, every_state])
@pytest.mark.parametrize("name", ["rnn", "own lstm", "layer-normalised gru", "stack"])
@pytest.mark.parametrize("options", [{}, {"reset": True, "lengths": True, "clip": 0.1}])
def test_outputs_may_be_changed_in_place(
    kernel: str, name: str, change: Any, options: dict[str, Any]
) -> None:
    """They are the states that the gradient needs, in the same memory."""
    every = change is every_state
    given = case(ZOO[name](3, 5), 3, 6, 2, given=not every, **options)
    tensors = [*given.cell.parameters(), given.inputs]
    found = []
    for executor in (kernel, "eager"):
        outputs, _, states = unfold(given, executor, return_states=every)
        total = change(outputs, states).cos().sum()
        twice = [torch.autograd.grad(total, tensors, retain_graph=True) for _ in range(2)]
        assert all(map(torch.equal, *twice))
        found.append(twice[0])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_outputs_changed_in_place_by_a_model() -> None:
    """A ReLU of the usual kind behind a cell trains as it would over plain operators."""
    cell, readout = cells.GRU(3, 5).double(), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2))
    readout.double()
    inputs, found = torch.randn(7, 2, 3).double(), []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend)  # type: ignore[call-overload]  # of any overload
        loss = readout(outputs).square().sum()
        found.append(torch.autograd.grad(loss, [*cell.parameters(), *readout.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_nothing_keeps_what_hooks_take_away() -> None:
    """Where PyTorch stores what is saved elsewhere, the loop holds none of it."""
    memory, cell = Reuse(), cells.Elman(3, 5)
    with reusing(memory), torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda kept: kept):
        outputs, _ = bptt.unfold(cell, torch.randn(6, 2, 3))
        total, place = outputs.square().sum(), outputs.data_ptr()
        del outputs
        with torch.no_grad():
            assert bptt.unfold(cell, torch.randn(6, 2, 3))[0].data_ptr() == place
    total.backward()


def test_a_graph_is_freed_after_backward(kernel: str) -> None:
    loss = unfold(case(cells.Elman(3, 5), 3, 6, 2), kernel)[0].sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("name", ["rnn", "own gru", "own lstm"])
@pytest.mark.parametrize("special", [False, True], ids=["plain", "reset, lengths"])
def test_gradients_of_gradients(kernel: str, name: str, special: bool) -> None:
    given = case(ZOO[name](2, 3), 2, 4, 2, reset=special, lengths=special)
    asked = [given.inputs, *leaves(given.state), *given.cell.parameters()]

    def second(executor: str) -> list[Tensor]:
        outputs, last, _ = unfold(given, executor)
        loss = outputs.square().sum() + sum(leaf.pow(3).sum() for leaf in leaves(last))
        first = torch.autograd.grad(loss, asked, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in first), asked)
        return [*first, *again]

    for got, want in zip(second(kernel), second("eager"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, LayerNormGRU])
def test_gradcheck(make: Any) -> None:
    given = case(make(2, 3), 2, 3, 2, reset=True)

    def function(inputs: Tensor, state: Tensor, *parameters: Tensor) -> Tensor:
        given.inputs, given.state = inputs, state
        return unfold(given, "native")[0]

    tensors = (given.inputs, given.state, *given.cell.parameters())
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.usefixtures("core")
def test_the_number_of_threads_changes_nothing() -> None:
    given = case(cells.GRU(5, 19), 5, 20, 13, reset=True)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(unfold(given, "native")[0].detach().clone())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_cell_with_an_output_of_its_own(kernel: str) -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = cells.LSTM(3, 5), nn.Linear(5, 2)

        def initial_state(self, batch: int) -> Any:
            return self.inner.initial_state(batch)

        def output(self, state: Any) -> Tensor:
            return torch.tanh(self.out(state[1])) / 2

        def forward(self, input: Tensor, state: Any) -> Any:
            return self.inner(input, state)

    given = case(Projected(), 3, 6, 4, reset=True, lengths=True)
    assert_same(results(given, kernel), results(given, "eager"), 1e-11)


def test_padding_that_is_not_finite_spoils_nothing(kernel: str) -> None:
    given = case(cells.GRU(3, 5), 3, 6, 3, lengths=True, given=False)
    given.state = given.initial = map_state(Tensor.detach, given.state)
    found = results(given, kernel)
    assert all(torch.isfinite(t).all() for t in found.values())


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_first_call_inside_a_checkpoint(reentrant: bool) -> None:
    """Tracing happens there, and must not be counted among what the checkpoint saves."""
    cell = bptt.cells.GRU(3, 5, dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)

    def outputs(inputs: Tensor) -> Tensor:
        return bptt.unfold(cell, inputs)[0]

    torch.utils.checkpoint.checkpoint(outputs, x, use_reentrant=reentrant).sum().backward()
    found = [x.grad, *[p.grad for p in cell.parameters()]]
    x.grad = None
    cell.zero_grad()
    bptt.unfold(cell, x, backend="eager")[0].sum().backward()
    for one, other in zip(found, [x.grad, *[p.grad for p in cell.parameters()]], strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_counters_of_operators_see_the_steps() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    cell = bptt.cells.Elman(3, 5)
    with FlopCounterMode(display=False) as counter:
        bptt.unfold(cell, torch.randn(4, 2, 3))
    assert counter.get_total_flops() == 4 * 2 * 2 * (3 * 5 + 5 * 5)
