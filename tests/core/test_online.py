"""What a loop may rely on with every forward method: closures, states and going on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import bptt

from .forward import STREAMS, self_recurrent
from .helpers import assert_same, copied, data, descend, gradient_of, gradients, series


@pytest.mark.parametrize("method", [bptt.RTRL(2), bptt.UORO(2), bptt.Focused(2)])
def test_a_given_state_starts_the_pass_and_gets_no_gradient(method: Any) -> None:
    net, stream, state = self_recurrent(learn_initial_state=True), series(7), data(2, 3, seed=9)
    expected, _ = gradient_of(bptt.Full(), net, stream, state=state)
    found, _ = gradient_of(method, net, stream, state=state)
    if not isinstance(method, bptt.UORO):
        assert_same(found, expected)
    assert not bool(found["learned_initial_state.0"].any())
    full = bptt.Full()
    list(full.updates(net, "mse", stream, state))
    assert_same(method.state, full.state)


METHODS = {
    "rtrl": lambda: bptt.RTRL(2),
    "uoro": lambda: bptt.UORO(2, seed=4),
    "focused": lambda: bptt.Focused(2),
}
every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_closures_evaluate_their_stretch_again_and_grad_is_added_to(name: str) -> None:
    net = self_recurrent()
    for update in METHODS[name]().updates(net, "mse", STREAMS["ragged"]()):
        expected = gradients(net)
        for p in net.parameters():
            p.grad = torch.full_like(p, 2.5)
        with torch.no_grad():
            assert float(update.closure()) == pytest.approx(update.loss, rel=1e-13)
        assert_same(gradients(net), expected)
        with torch.no_grad():
            for p, gradient in zip(net.parameters(), expected.values(), strict=True):
                p -= 0.05 * gradient
        net.zero_grad()


@every_method
def test_online_passes_learn_and_leave_the_state_after_the_last_step(name: str) -> None:
    net, method = self_recurrent(), METHODS[name]()
    stream = bptt.Stream(data(40, 1, 2), data(40, 1, 2)[:, :, :1].roll(1, 0), burn_in=1)
    losses = [
        sum(s.update.loss * s.update.count for s in descend(method, net, stream, rate=0.02))
        for _ in range(15)
    ]
    assert min(losses) < 0.7 * losses[0]
    assert method.state is not None
    assert not method.state.requires_grad


@every_method
@pytest.mark.parametrize("after", [1, 4])
def test_a_pass_is_taken_up_where_it_was_interrupted(name: str, after: int) -> None:
    whole = self_recurrent()
    expected = [s.weights for s in descend(METHODS[name](), whole, STREAMS["ragged"]())]
    net, stream, method = self_recurrent(), STREAMS["ragged"](), METHODS[name]()
    steps = descend(method, net, stream)
    found = [next(steps).weights for _ in range(after)]
    saved, where = method.state_dict(), stream.state_dict()
    tensors = saved.pop("tensors")
    saved = {**json.loads(json.dumps(saved)), "tensors": tensors}
    again, other, resumed = copied(net), METHODS[name](), STREAMS["ragged"]()
    steps.close()
    other.load_state_dict(saved)
    resumed.load_state_dict(where)
    found += [s.weights for s in descend(other, again, resumed)]
    assert_same(found, expected, 0.0)


@every_method
def test_a_network_of_which_only_the_readout_learns(name: str) -> None:
    net, stream = self_recurrent(), STREAMS["ragged"]()
    for p in net.cell.parameters():
        p.requires_grad_(False)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    assert_same(gradient_of(METHODS[name](), net, stream)[0], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bptt.RTRL(0), "stride must be at least 1, not 0"),
        (lambda: bptt.UORO(2.5), "stride must be a whole number"),
        (lambda: bptt.Focused(-1), "stride must be at least 1"),
        (lambda: bptt.RTRL(memory=0), "memory must be at least 1"),
        (lambda: bptt.UORO(seed=-1), "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        make()
