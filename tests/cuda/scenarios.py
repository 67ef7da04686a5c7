"""What must work on every device, each as a function of the device that gives numbers.

The numbers are compared with those of the CPU; what cannot be compared with another device (random
numbers of the device's own) is compared within the scenario. Nothing but PyTorch, bptt and what
they need is imported.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt import cells

Device = torch.device
Scenario = Callable[[Device], Any]
SCENARIOS: dict[str, Scenario] = {}

FLOAT = torch.float64
"""So that devices agree to many digits."""

CPU = torch.device("cpu")


def scenario(function: Scenario) -> Scenario:
    """Enter it under its name."""
    SCENARIOS[function.__name__] = function
    return function


def flat(value: Any) -> list[Tensor | float]:
    """All numbers of a nested value, on the CPU."""
    if isinstance(value, Tensor):
        return [value.detach().cpu()]
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in flat(one)]
    return [] if value is None else [float(value)]


def differ(one: Any, other: Any, tolerance: float) -> str | None:
    """Where two values differ; None if they agree."""
    left, right = flat(one), flat(other)
    if len(left) != len(right):
        return f"{len(left)} numbers and {len(right)}"
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        a, b = torch.as_tensor(a, dtype=FLOAT), torch.as_tensor(b, dtype=FLOAT)
        if a.shape != b.shape:
            return f"value {index}: {list(a.shape)} and {list(b.shape)}"
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"value {index}: differs by {float((a - b).abs().max()):.3g}"
    return None


def here(value: Any, device: Device) -> Any:
    """The value, whose tensors must all lie on the device."""
    for tensor in _tensors(value):
        assert tensor.device == device, f"a tensor is on {tensor.device}, not on {device}"
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


# -- parts -------------------------------------------------------------------------------------


class Own(nn.Module):
    """A cell of one's own, with an initial state that it makes itself and an output."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size = 3
        self.into = nn.Linear(3, 4)
        self.back = nn.Linear(4, 4)
        self.start = nn.Parameter(torch.full((4,), 0.1))
        self.register_buffer("scale", torch.full((4,), 0.5))

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return self.start.expand(batch, 4), self.scale.new_zeros(batch, 4)

    def output(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0] + state[1]

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        fast, slow = state
        new = torch.tanh(self.into(input) + self.back(fast))
        return new, slow + self.scale * (new - slow)


class Noisy(nn.Module):
    """A cell that draws random numbers of the device."""

    hidden_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return nn.functional.dropout(self.cell(input, state), 0.25, self.training)


CELLS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: nn.RNNCell(3, 4),
    "gru": lambda: nn.GRUCell(3, 4),
    "lstm": lambda: nn.LSTMCell(3, 4),
    "elman": lambda: cells.Elman(3, 4),
    "leaky": lambda: cells.Leaky(3, 4, time_constant=2.0),
    "our gru": lambda: cells.GRU(3, 4),
    "our lstm": lambda: cells.LSTM(3, 4),
    "self-recurrent": lambda: cells.SelfRecurrent(3, 4),
    "stack": lambda: cells.Stack(cells.GRU(3, 4), cells.LSTM(4, 4)),
    "own": Own,
}


def drawn(make: Callable[[], nn.Module], device: Device, seed: int = 1) -> nn.Module:
    """A module with the same weights on every device."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    made = make().to(FLOAT).to(device)
    torch.set_rng_state(before)
    return made


def network(device: Device, cell: str = "our gru", **options: Any) -> bptt.Network:
    """A small network."""
    made = drawn(lambda: bptt.Network(CELLS[cell](), nn.Linear(4, 2), **options), device)
    assert isinstance(made, bptt.Network)
    return made


def numbers(*shape: int, seed: int = 7) -> Tensor:
    """Numbers of the CPU's, the same every time."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=FLOAT)


def series(steps: int = 23, **options: Any) -> bptt.Stream:
    """One series on the CPU."""
    return bptt.Stream(numbers(steps, 3), numbers(steps, 2, seed=8), **options)


def sequences(**options: Any) -> bptt.Stream:
    """Sequences of unequal length on the CPU, with masked targets."""
    lengths = (5, 9, 4, 6)
    targets = [numbers(n, 2, seed=20 + n) for n in lengths]
    masks = [torch.arange(n) % 4 != 1 for n in lengths]
    for target, mask in zip(targets, masks, strict=True):
        target[~mask] = math.nan
    inputs = [numbers(n, 3, seed=n) for n in lengths]
    return bptt.Stream(inputs, targets, mask=masks, **options)


def gradients(module: nn.Module) -> list[Tensor | None]:
    """Of all parameters."""
    return [p.grad for p in module.parameters()]


def trained(net: bptt.Network, stream: bptt.Stream, **options: Any) -> Any:
    """Weights and history of a short training run."""
    history = bptt.fit(net, stream, **{"epochs": 2, "progress": False, **options})
    device = next(net.parameters()).device
    weights = here(list(net.parameters()), device)
    return [weights, [[e.loss, e.gradient_norm, e.validation] for e in history.epochs]]


# -- unfolding ---------------------------------------------------------------------------------


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


# -- gradient methods --------------------------------------------------------------------------

METHODS: dict[str, Callable[[], Any]] = {
    "full": bptt.Full,
    "full in segments": lambda: bptt.Full(segment=5),
    "full in memory": lambda: bptt.Full(memory="250kB"),
    "truncated": lambda: bptt.Truncated(5),
    "truncated, stride": lambda: bptt.Truncated(6, 2),
    "truncated, recomputed": lambda: bptt.Truncated(6, 3, context="recomputed", combine="mean"),
    "truncated, stored": lambda: bptt.Truncated(6, 2, history="stored"),
    "truncated, last": lambda: bptt.Truncated(4, 6, loss="last"),
    "stride 1": lambda: bptt.Truncated(4, 1),
    "rtrl": lambda: bptt.RTRL(stride=4),
    "uoro": lambda: bptt.UORO(stride=4),
    "evolution": lambda: bptt.EvolutionStrategies(pairs=3),
}

SGD = lambda parameters: torch.optim.SGD(parameters, 0.01)  # noqa: E731


def _methods(device: Device, make: Callable[[], bptt.Stream], **options: Any) -> Any:
    found = {}
    for name, method in METHODS.items():
        net = network(device, **options)
        found[name] = trained(net, make(), method=method(), optimizer=SGD)
    return found


@scenario
def methods_on_a_series(device: Device) -> Any:
    return _methods(device, lambda: series(lanes=3, horizon=1, burn_in=1))


@scenario
def methods_on_sequences(device: Device) -> Any:
    return _methods(device, lambda: sequences(lanes=2), learn_initial_state=True)


@scenario
def methods_on_batches(device: Device) -> Any:
    return _methods(device, lambda: sequences(batch=3, shuffle=1))


@scenario
def methods_on_data_of_the_device(device: Device) -> Any:
    return _methods(device, lambda: series(lanes=3, device=device))


@scenario
def methods_of_other_cells(device: Device) -> Any:
    found = {}
    for cell in ("lstm", "own", "stack"):
        for name in ("full in segments", "truncated, recomputed", "rtrl", "uoro"):
            net = network(device, cell, clip_state_gradient=None)
            stream = series(20, lanes=2)
            found[f"{cell}, {name}"] = trained(
                net, stream, method=METHODS[name](), optimizer=SGD, epochs=1
            )
    return found


@scenario
def sliding_window(device: Device) -> Any:
    net = network(device, clip_state_gradient=0.5)
    return trained(net, series(lanes=2, horizon=1), method=bptt.SlidingWindow(4), optimizer=SGD)


@scenario
def focused(device: Device) -> Any:
    net = network(device, "self-recurrent", learn_initial_state=True)
    return trained(net, sequences(lanes=2), method=bptt.Focused(), optimizer=SGD)


@scenario
def plans(device: Device) -> Any:
    plan = bptt.Full(memory="2MB").plan(network(device), series(400))
    assert plan.costs is not None
    assert plan.costs.on_cpu == (device == CPU)
    return [str(bptt.Full(memory="1MB").plan(network(device), series(4000))) != ""]


@scenario
def updates_by_hand(device: Device) -> Any:
    net = network(device)
    stream = series(lanes=2)
    state = numbers(2, 4, seed=5)  # from the CPU, as the data are
    found = []
    for update in bptt.Truncated(8).updates(net, "mse", stream, state):
        again = update.closure()
        assert update.inspect is not None
        seen = update.inspect()
        found.append([update.loss, again, here(update.state, device), seen.norms, seen.losses])
    return [found, gradients(net)]


# -- training ----------------------------------------------------------------------------------


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


@scenario
def streams_on_other_devices(device: Device) -> Any:
    """The network decides where the work is done, and data go to it from wherever they are."""
    found = []
    for place in (CPU, device):
        for of_network in (CPU, device):
            net = network(of_network)
            stream = series(lanes=2, device=place)
            found.append(trained(net, stream, method=bptt.Truncated(5), validation=series(9)))
    return found


@scenario
def streams_of_mixed_tensors(device: Device) -> Any:
    stream = bptt.Stream(numbers(20, 3).to(device), numbers(20, 2), mask=torch.ones(20) > 0)
    return trained(network(device), stream)


@scenario
def stream_from_iterator(device: Device) -> Any:
    rows, goals = numbers(16, 3), numbers(16, 2, seed=8)
    found = []
    for place in (CPU, device):
        for option in (None, device):
            pairs = partial(_pairs, rows.to(place), goals.to(place))
            stream = bptt.Stream.from_iterator(pairs, paired=True, dtype=FLOAT, device=option)
            found.append(trained(network(device), stream, method=bptt.Truncated(4, 2)))
    return found


def _pairs(rows: Tensor, goals: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Steps of which the last ones have no target."""
    return zip(rows, [*goals[:10], *[None] * (len(rows) - 10)], strict=True)


@scenario
def stream_from_files(device: Device) -> Any:
    import numpy as np

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, torch.cat([numbers(90, 3), numbers(90, 2, seed=8)], 1).numpy())
        for place in (None, device):
            stream = bptt.Stream.from_files(
                path,
                inputs=[0, 1, 2],
                targets=[3, 4],
                horizon=1,
                lanes=2,
                dtype=FLOAT,
                device=place,
                chunk=16,
            )
            for method in (bptt.Truncated(24, 12), bptt.Full(segment=17)):
                found.append(trained(network(device), stream, method=method, epochs=1))
            plan = bptt.Full(memory="4MB").plan(network(device), stream)
            assert plan.costs is not None
    return found


# -- going on ----------------------------------------------------------------------------------


def _resumed(device: Device, then: Device, method: Callable[[], Any], **options: Any) -> Any:
    """Three epochs, of which the last two are made by a run that goes on."""
    with tempfile.TemporaryDirectory() as folder:
        first = network(device, **options)
        shared: dict[str, Any] = {"checkpoint": folder, "clip": 1.0, "validation": 0.2, "seed": 2}
        trained(first, series(30), method=method(), epochs=1, **shared)
        second = network(then, **options)
        return trained(second, series(30), method=method(), epochs=3, resume=True, **shared)


@scenario
def resume(device: Device) -> Any:
    found = {}
    for name in ("full", "truncated, stride", "truncated, stored", "rtrl"):
        whole = trained(
            network(device),
            series(30),
            method=METHODS[name](),
            epochs=3,
            clip=1.0,
            validation=0.2,
            seed=2,
        )
        broken = _resumed(device, device, METHODS[name])
        assert differ(whole, broken, 1e-9) is None, f"{name}: {differ(whole, broken, 1e-9)}"
        found[name] = broken
    return found


@scenario
def resume_elsewhere(device: Device) -> Any:
    """A checkpoint of a GPU is taken up on the CPU, and the other way round."""
    return [
        _resumed(device, CPU, METHODS["truncated, stride"]),
        _resumed(CPU, device, METHODS["truncated, stride"]),
    ]


class _Enough(bptt.StoppingCriterion):
    """Ends a run in the middle of an epoch, as a kill would."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def after_update(self, progress: bptt.Progress) -> str | None:
        return "enough" if progress.updates == self.updates else None


@scenario
def resume_within_an_epoch(device: Device) -> Any:
    """With random numbers of the device's own: its generator is saved and put back."""

    def run(folder: str | None, limit: int, again: bool) -> Any:
        net = drawn(lambda: bptt.Network(Noisy(), nn.Linear(4, 2)), device)
        assert isinstance(net, bptt.Network)
        return trained(
            net,
            series(26),
            method=bptt.Truncated(6, 3, context="recomputed"),
            epochs=2,
            seed=4,
            stop=_Enough(limit),
            checkpoint=None if folder is None else bptt.Checkpoint(folder, every=3),
            resume=again,
        )

    with tempfile.TemporaryDirectory() as folder:
        run(folder, 11, False)
        broken, whole = run(folder, 10**6, True), run(None, 10**6, False)
    assert differ(whole, broken, 1e-9) is None, differ(whole, broken, 1e-9)
    return []


# -- online ------------------------------------------------------------------------------------


@scenario
def online(device: Device) -> Any:
    found = []
    rows, goals = numbers(14, 3), numbers(14, 2, seed=8)
    for options in ({}, {"context": "recomputed"}, {"history": "stored"}):
        for place, horizon in ((CPU, 0), (device, 2)):
            net = network(device)
            learner = bptt.Online(
                net, bptt.Truncated(5, 2, **options), optimizer=SGD, horizon=horizon
            )
            for t in range(8):
                found.append(here(learner.step(rows[t].to(place), goals[t].to(place)), device))
            saved = learner.state_dict()
            other = bptt.Online(
                network(device), bptt.Truncated(5, 2, **options), optimizer=SGD, horizon=horizon
            )
            other.load_state_dict(saved)
            for t in range(8, 14):
                ours, theirs = (one.step(rows[t], goals[t]) for one in (learner, other))
                assert torch.allclose(ours, theirs, rtol=1e-9)
            found.append(list(net.parameters()))
            assert learner.reason is None or device != CPU or "history" in options
    return found


@scenario
def online_lanes_and_numbers(device: Device) -> Any:
    learner = bptt.Online(network(device), bptt.SlidingWindow(4), optimizer=SGD, lanes=2)
    found = [learner.step(numbers(2, 3, seed=t), numbers(2, 2, seed=t)) for t in range(12)]
    import numpy as np

    single = bptt.Online(network(device), bptt.Truncated(3), optimizer=SGD)
    found += [single.step([0.1, 0.2, t / 10], np.asarray([0.5, t / 10])) for t in range(9)]
    return here(found, device)


# -- looking -----------------------------------------------------------------------------------


@scenario
def diagnose(device: Device) -> Any:
    found = []
    for stream in (series(48, lanes=2), sequences(lanes=2), series(44).split(0.5)[1]):
        parts = ("reach", "dynamics", "surface") if stream.steps > 40 else ("reach",)
        net = network(device, learn_initial_state=True)
        seen = bptt.diagnose(
            net,
            stream,
            parts=parts,
            anchors=4,
            points=3,
            grid=3,
            method=bptt.Truncated(4) if stream.steps > 40 else None,
        )
        assert str(seen)
        assert seen.reach is not None
        found.append([torch.as_tensor(seen.reach.mean), seen.reach.fallen or 0])
        if seen.dynamics is not None:
            found.append(torch.as_tensor(seen.dynamics.exponents.copy()))
    return found


@scenario
def compare(device: Device) -> Any:
    result = bptt.compare(
        network(device),
        series(20, lanes=2, horizon=1),
        ("full", "truncated", "sliding-window", "rtrl", "uoro"),
        budget=100,
        starts=1,
        depth=4,
        progress=False,
    )
    assert str(result)
    return []  # the starts are drawn on the device


@scenario
def solvers(device: Device) -> Any:
    try:
        import cma  # noqa: F401
        import scipy  # noqa: F401
    except ImportError:
        return []
    optimize = bptt.optimize
    found = []
    for optimizer in (
        optimize.SciPy("L-BFGS-B", iterations=3),
        optimize.SciPy("trust-ncg", iterations=2),
        optimize.LeastSquares("trf", evaluations=3),
    ):
        found.append(trained(network(device, "elman"), series(30), optimizer=optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cmaes = optimize.CMAES(seed=1, population=4)
        trained(network(device, "elman"), series(), optimizer=cmaes)
    return found


@scenario
def warned_once(device: Device) -> Any:
    """The Python loop is slow on a GPU: said once, and nowhere on the CPU."""
    from bptt import unfold as module  # noqa: F401

    warned = _first_warnings(device)
    expected = 0 if device == CPU else 1
    assert len(warned) == expected, warned
    assert all(str(device) in text for text in warned)
    return []


def _first_warnings(device: Device) -> list[str]:
    import importlib

    told = importlib.import_module("bptt.unfold")
    told._SLOW.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for name in ("gru", "our gru", "own"):
            cell = drawn(CELLS[name], device)
            for _ in range(2):
                bptt.unfold(cell, numbers(6, 5, 3).to(device))
            bptt.unfold(cell, numbers(6, 5, 3).to(device), backend="eager")
        layer = drawn(lambda: bptt.nn.GRU(3, 4), device)
        layer(numbers(6, 5, 3).to(device))
    return [str(w.message) for w in found if "Python loop" in str(w.message)]
