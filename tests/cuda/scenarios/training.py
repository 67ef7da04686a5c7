"""`bptt.fit`, `evaluate` and `predict`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt import cells

from .shared import (
    Device,
    drawn,
    here,
    network,
    numbers,
    scenario,
    sequences,
    series,
    trained,
)


@scenario
def fit_with_options(device: Device) -> Any:
    net = network(device, learn_initial_state=True)
    seen: list[float] = []
    return [
        trained(
            net,
            series(30),
            method=bptt.Truncated(5),
            epochs=4,
            validation=0.25,
            clip=0.1,
            stop=bptt.Patience(2, restore_best=True),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
            callbacks=[lambda progress: seen.append(progress.gradient_norm)],
            seed=3,
        ),
        seen,
    ]


@scenario
def fit_with_other_optimizers(device: Device) -> Any:
    found = []
    lbfgs = lambda parameters: torch.optim.LBFGS(parameters, max_iter=3)  # noqa: E731
    for optimizer in (lbfgs, torch.optim.AdamW, torch.optim.RMSprop):
        found.append(trained(network(device), series(), optimizer=optimizer, clip_value=None))
    return found


@scenario
def fit_cross_entropy(device: Device) -> Any:
    make = lambda: bptt.Network(  # noqa: E731
        cells.Embedded(nn.Embedding(5, 3), cells.GRU(3, 4)), nn.Linear(4, 5)
    )
    net = drawn(make, device)
    assert isinstance(net, bptt.Network)
    symbols = (numbers(30).abs() * 10).long() % 5
    stream = bptt.Stream(symbols, horizon=1, lanes=2)
    return trained(net, stream, method=bptt.Truncated(6), loss="cross_entropy", clip_value=0.1)


@scenario
def fit_after_what_is_not_finite(device: Device) -> Any:
    found = []

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.where(target > 1.9, torch.inf, 1.0) * (prediction - target).square()

    for policy in ("skip", "rollback"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bptt.NonFiniteWarning)
            found.append(
                trained(
                    network(device),
                    series(lanes=2),
                    method=bptt.Truncated(5),
                    loss=loss,
                    on_nonfinite=policy,
                    nonfinite_limit=100,
                )
            )
    try:
        bptt.fit(network(device), series(), loss=loss, progress=False)
    except bptt.NonFiniteError as error:
        return [found, error.report.norms]  # type: ignore[union-attr]
    raise AssertionError("an infinite loss was taken")


@scenario
def fit_from_many_starts(device: Device) -> Any:
    net = network(device)
    history = bptt.fit(net, series(), starts=2, seed=1, epochs=2, progress=False)
    here(list(net.parameters()), device)
    assert len(history.starts) == 2
    return []  # their weights are drawn on the device


@scenario
def fit_leaves_the_generator(device: Device) -> Any:
    torch.manual_seed(11)
    expected = torch.rand(3, device=device)
    torch.manual_seed(11)
    bptt.fit(network(device), series(), epochs=1, seed=5, progress=False)
    assert torch.equal(torch.rand(3, device=device).cpu(), expected.cpu())
    return []


@scenario
def evaluate_and_predict(device: Device) -> Any:
    net = network(device)
    train, test = series(30).split(0.6)
    found = bptt.evaluate(net, test)
    predictions = here(bptt.predict(net, test), device)
    several = here(bptt.predict(net, sequences(lanes=2)), device)
    given = bptt.evaluate(net, test, state=numbers(1, 4))
    return [
        found.loss,
        here(found.state, device),
        predictions,
        several,
        given.loss,
        bptt.evaluate(net, train, "huber").loss,
    ]
