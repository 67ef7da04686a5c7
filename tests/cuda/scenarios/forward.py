"""Unfolding, layers and what replaces them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt import cells

from .shared import (
    CELLS,
    CPU,
    Device,
    Noisy,
    _tensors,
    differ,
    drawn,
    gradients,
    here,
    network,
    numbers,
    scenario,
)


def _unfolded(device: Device, name: str, **options: Any) -> Any:
    cell = drawn(CELLS[name], device)
    inputs = numbers(6, 5, 3).to(device).requires_grad_()
    found = here(bptt.unfold(cell, inputs, **options), device)
    total = sum(tensor.square().sum() for tensor in _tensors(found))
    assert isinstance(total, Tensor)
    total.backward()
    return [found, inputs.grad, gradients(cell)]


@scenario
def unfold(device: Device) -> Any:
    return {name: _unfolded(device, name) for name in CELLS}


@scenario
def unfold_with_everything(device: Device) -> Any:
    reset = torch.zeros(6, 5, dtype=torch.bool)
    reset[2, 1] = reset[4] = True
    lengths = torch.tensor([6, 4, 0, 5, 6])
    found = []
    for place in (CPU, device):  # masks may come from the CPU, where data are prepared
        state = numbers(5, 4, seed=3).to(device).requires_grad_()
        initial = numbers(5, 4, seed=4).to(device).requires_grad_()
        options = {
            "state": state,
            "initial": initial,
            "reset": reset.to(place),
            "lengths": lengths.to(place),
            "return_states": True,
            "clip_state_gradient": 0.1,
        }
        found.append([_unfolded(device, "gru", **options), state.grad, initial.grad])
    return found


@scenario
def unfold_no_steps(device: Device) -> Any:
    cell = drawn(CELLS["own"], device)
    return here(bptt.unfold(cell, numbers(0, 5, 3).to(device), return_states=True), device)


@scenario
def unfold_indices(device: Device) -> Any:
    make = lambda: cells.Embedded(nn.Embedding(7, 3), cells.LSTM(3, 4))  # noqa: E731
    cell = drawn(make, device)
    indices = (torch.arange(12).reshape(4, 3) % 7).to(device)
    outputs, last = here(bptt.unfold(cell, indices), device)
    outputs.sum().backward()
    return [outputs, last, gradients(cell)]


@scenario
def elsewhere_is_refused(device: Device) -> Any:
    cell = drawn(CELLS["gru"], device)
    for inputs, state in (
        (numbers(6, 5, 3), None),
        (numbers(6, 5, 3).to(device), numbers(5, 4)),
    ):
        if device != CPU:
            said = _refusal(lambda: bptt.unfold(cell, inputs, state))  # noqa: B023
            assert str(device) in said
            assert "cpu" in said
    return []


def _refusal(run: Callable[[], Any]) -> str:
    """What is said of shapes or devices that do not fit."""
    try:
        run()
    except bptt.ShapeError as error:
        return str(error)
    raise AssertionError("tensors of two devices were taken")


@scenario
def checkpointed_unfold(device: Device) -> Any:
    found = []
    for options in ({"segment": 4}, {"memory": "5MB"}, {}):
        for name in ("gru", "our lstm", "own"):
            cell = drawn(CELLS[name], device)
            inputs = numbers(23, 5, 3).to(device).requires_grad_()
            lengths = torch.tensor([23, 4, 0, 17, 8])
            outputs, last = bptt.checkpointed_unfold(cell, inputs, lengths=lengths, **options)
            total = outputs.square().sum() + sum(t.sum() for t in _tensors(last))
            total.backward()
            found.append([here(outputs, device), here(last, device), inputs.grad, gradients(cell)])
    return found


@scenario
def segments_draw_again(device: Device) -> Any:
    """A segment that is run again draws what it drew, from the device's generator, too."""
    found = []
    for unfold in (
        lambda cell, inputs: bptt.unfold(cell, inputs),
        lambda cell, inputs: bptt.checkpointed_unfold(cell, inputs, segment=4),
    ):
        cell = drawn(Noisy, device)
        torch.manual_seed(5)
        inputs = numbers(15, 5, 3).to(device).requires_grad_()
        outputs, _ = unfold(cell, inputs)
        after = torch.rand(3, device=device)
        outputs.square().sum().backward()
        found.append([outputs, inputs.grad, gradients(cell), after, torch.rand(3, device=device)])
    assert differ(found[0], found[1], 1e-9) is None, differ(found[0], found[1], 1e-9)
    return []


@scenario
def step(device: Device) -> Any:
    net = network(device, "our lstm")
    first, state = net.step(numbers(5, 3).to(device))
    return here([first, net.step(numbers(5, 3, seed=2).to(device), state)], device)


# -- layers ------------------------------------------------------------------------------------


def _layer_run(layer: nn.Module, inputs: Any, device: Device) -> Any:
    output, last = layer(inputs)
    data = output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output
    here([data, last], device)
    (data.square().sum() + sum(t.sum() for t in _tensors(last))).backward()
    found = [data.detach().clone(), last, gradients(layer)]
    layer.zero_grad()
    return found


@scenario
def layers(device: Device) -> Any:
    makes: list[Callable[[], nn.Module]] = [
        lambda: bptt.nn.RNN(3, 4, 2, bidirectional=True),
        lambda: bptt.nn.GRU(3, 4, 2),
        lambda: bptt.nn.LSTM(3, 4, 2, bidirectional=True),
        lambda: bptt.nn.LSTM(3, 4, proj_size=2),
        lambda: bptt.nn.Recurrent(cells.GRU(3, 4), layers=1, bidirectional=True),
        lambda: bptt.nn.Recurrent(lambda size: cells.LSTM(size, 4), 3, layers=2),
    ]
    found = []
    for make in makes:
        layer = drawn(make, device)
        found.append(_layer_run(layer, numbers(6, 5, 3).to(device), device))
        packed = nn.utils.rnn.pack_padded_sequence(
            numbers(6, 5, 3).to(device), torch.tensor([4, 6, 1, 5, 3]), enforce_sorted=False
        )
        found.append(_layer_run(layer, packed, device))
    return found


@scenario
def recurrent_with_resets(device: Device) -> Any:
    layer = drawn(
        lambda: bptt.nn.Recurrent(cells.GRU(3, 4), bidirectional=True, batch_first=True), device
    )
    reset = torch.zeros(5, 6, dtype=torch.bool)
    reset[1, 3] = reset[4, 1] = True
    found = []
    for place in (CPU, device):
        found.append(layer(numbers(5, 6, 3).to(device), reset=reset.to(place), return_states=True))
    packed = nn.utils.rnn.pack_padded_sequence(
        numbers(6, 5, 3).to(device), torch.tensor([4, 6, 1, 5, 3]), enforce_sorted=False
    )
    output, last = layer(packed, reset=reset.t().to(device))
    return [here(found, device), output.data, last]


@scenario
def accelerated(device: Device) -> Any:
    model = drawn(lambda: nn.Sequential(nn.LSTM(3, 4, num_layers=2)), device)
    report = bptt.accelerate(model)
    assert str(report)
    found = _layer_run(model, numbers(6, 5, 3).to(device), device)
    bptt.decelerate(model)
    return [found, _layer_run(model, numbers(6, 5, 3).to(device), device)]
