"""Residuals and their Jacobian against `torch.func.jacrev`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bptt

from .forward import variants
from .helpers import CELLS, F64, Network, copied, data, network, only, ragged, series

STREAMS = {
    "ragged": lambda: ragged([5, 3, 6, 2], lanes=2, outputs=2),
    "horizon": lambda: bptt.Stream(data(13, 2), data(13, 2), lanes=2, horizon=2, burn_in=1),
}


def by_autograd(net: bptt.Network, stream: bptt.Stream, state: Tensor | None = None) -> Tensor:
    batch, own = only(stream), {n: p for n, p in net.named_parameters() if p.requires_grad}

    def residuals(parameters: dict[str, Tensor]) -> Tensor:
        prediction, _ = torch.func.functional_call(
            net, parameters, (batch.inputs, state), {"reset": batch.reset, "lengths": batch.lengths}
        )
        return (prediction - batch.targets)[batch.mask].flatten()

    # functional_call leaves other weights in modules that are used twice: on a copy.
    net = copied(net)
    found = torch.func.jacrev(residuals)(own)
    return torch.cat([found[n].flatten(1) for n in own], 1)


@pytest.mark.parametrize("kind", [k for k in CELLS if k not in ("RNNCell", "GRUCell", "LSTMCell")])
@pytest.mark.parametrize("name", STREAMS)
def test_the_jacobian_of_all_residuals(kind: str, name: str) -> None:
    net, stream = network(kind, outputs=2, learn_initial_state=True), STREAMS[name]()
    (update,) = bptt.Full().updates(net, "mse", stream)
    jacobian, residuals = update.problem.jacobian(), update.problem.residuals()
    torch.testing.assert_close(jacobian, by_autograd(net, stream), rtol=1e-11, atol=1e-12)
    assert float(residuals.square().mean()) == pytest.approx(update.loss, rel=1e-13)
    assert update.problem.value() == pytest.approx(update.loss, rel=1e-13)
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert not jacobian.requires_grad
    torch.testing.assert_close(2 * residuals @ jacobian / len(residuals), gradient)


@pytest.mark.parametrize("name", ["no readout", "tied", "twice", "frozen weight", "start alone"])
def test_the_jacobian_for_every_kind_of_parameter(name: str) -> None:
    net, stream = variants()[name], ragged([5, 3, 6, 2], lanes=2)
    (update,) = bptt.Full().updates(net, "mse", stream)
    expected = by_autograd(net, stream)
    torch.testing.assert_close(update.problem.jacobian(), expected, rtol=1e-11, atol=1e-12)


def test_a_given_state_is_where_the_problem_starts() -> None:
    net, stream, state = network("GRU"), series(6), data(2, 3, seed=9)
    (update,) = bptt.Full().updates(net, "mse", stream, state)
    expected = by_autograd(net, stream, state)
    torch.testing.assert_close(update.problem.jacobian(), expected, rtol=1e-11, atol=1e-12)


def test_what_has_no_residuals_is_refused() -> None:
    net, stream = Network(CELLS["Elman"](2, 3), nn.Linear(3, 2, dtype=F64)), series(6, outputs=2)
    (update,) = bptt.Full().updates(net, "mae", stream)
    with pytest.raises(bptt.OptionError, match=r"loss='mse' alone.*L-BFGS-B"):
        update.problem.residuals()
    assert next(bptt.Truncated(3).updates(net, "mse", stream)).problem is None
