"""Random numbers, and cells that keep or change something of their own."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import bptt

from .contact import (
    SIZE,
    Base,
    Step,
    agree,
    assert_close,
    belongings,
    cell_of,
    differ,
    drive,
    given,
    seed_all,
)

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]

LOG: list[Tensor] = []
COUNTS: Counter[str] = Counter()


# -- random numbers -------------------------------------------------------------------------------

RANDOM: dict[str, Step] = {
    "torch.rand": lambda s, i, h: drive(s, i, h) * torch.rand(()),
    "torch.randn of lanes": lambda s, i, h: drive(s, i, h) + 0.1 * torch.randn(len(h), SIZE),
    "torch.rand_like": lambda s, i, h: drive(s, i, h) * torch.rand_like(h),
    "torch.bernoulli": lambda s, i, h: drive(s, i, h) * torch.bernoulli(h.sigmoid()),
    "torch.normal_": lambda s, i, h: drive(s, i, h) + torch.empty(SIZE).normal_(),
    "torch.randperm": lambda s, i, h: drive(s, i, h)[:, torch.randperm(SIZE)],
    "multinomial": lambda s, i, h: drive(s, i, h) * torch.multinomial(h.softmax(1), 1),
    "dropout": lambda s, i, h: F.dropout(drive(s, i, h), 0.5),
    "dropout of the input": lambda s, i, h: torch.tanh(F.dropout(i, 0.5) + h @ s.w),
    "dropout of the weight": lambda s, i, h: torch.tanh(i + h @ F.dropout(s.w, 0.3)),
    "rrelu": lambda s, i, h: F.rrelu(drive(s, i, h), training=True),
    "gumbel": lambda s, i, h: F.gumbel_softmax(drive(s, i, h)),
    "zoneout": lambda s, i, h: h @ s.w if random.random() < 0.5 else drive(s, i, h),
    "random.uniform": lambda s, i, h: drive(s, i, h) * random.uniform(0.5, 1),
    "random.gauss": lambda s, i, h: drive(s, i, h) * random.gauss(0, 1),
    "random.randint": lambda s, i, h: drive(s, i, h) * random.randint(1, 3),
    "random.choice": lambda s, i, h: random.choice([torch.tanh, torch.sin])(s.u(i) + h),
    "random.Random": lambda s, i, h: drive(s, i, h) * s.source.random(),
    "numpy": lambda s, i, h: drive(s, i, h) * np.random.rand(),
    "numpy's normal": lambda s, i, h: drive(s, i, h) + torch.from_numpy(np.random.randn(SIZE)),
    "numpy's generator": lambda s, i, h: drive(s, i, h) * s.numbers.random(),
    "torch's generator": lambda s, i, h: drive(s, i, h) * torch.rand(SIZE, generator=s.torch),
    "reseeded": lambda s, i, h: drive(s, i, h) * (torch.manual_seed(5), torch.rand(()))[1],
}  # fmt: skip


def drawing(step: Step) -> Any:
    cell = cell_of(step, source=random.Random(1), numbers=np.random.default_rng(1))
    cell.torch = torch.Generator().manual_seed(1)
    return cell


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("lanes", [3, 1])
def test_random_numbers(name: str, lanes: int) -> None:
    cell, twin = drawing(RANDOM[name]), drawing(RANDOM[name])
    first = agree(cell, given(lanes, 9), twin=twin)
    again = agree(cell, given(lanes, 9), twin=twin, seed=1)
    own = name in ("random.Random", "numpy's generator", "torch's generator", "reseeded")
    assert own or differ(first, again), "nothing is drawn"
    cell.eval(), twin.eval()
    agree(cell, given(lanes, 9), twin=twin)


@pytest.mark.parametrize("name", ["torch.rand", "dropout", "zoneout", "numpy"])
def test_random_numbers_in_segments_and_in_training(name: str) -> None:
    ends = []
    for backend in ("auto", "eager"):
        cell, inputs = drawing(RANDOM[name]), given(3, 12)
        seed_all(3)
        outputs, _ = bptt.checkpointed_unfold(cell, inputs, segment=4, backend=backend)
        ends.append([outputs, *torch.autograd.grad(outputs.sin().sum(), [inputs, cell.w])])
        network = bptt.Network(drawing(RANDOM[name]), nn.Linear(SIZE, SIZE), backend=backend)
        seed_all(4)
        stream = bptt.Stream(given(2, 40)[:, 0].detach(), given(2, 40)[:, 1].detach())
        options: Any = {"optimizer": lambda p: torch.optim.SGD(p, 0.05), "progress": False}
        bptt.fit(network, stream, method=bptt.Truncated(6, 3), epochs=2, **options)
        ends[-1] += [p.detach() for p in network.cell.parameters()]
    for found, expected in zip(*ends, strict=True):
        assert_close(name, found, expected)


# -- what a cell keeps ----------------------------------------------------------------------------


def logs(s: Any, i: Tensor, h: Tensor) -> Tensor:
    new = drive(s, i, h)
    s.log.append(new.detach())
    return new


def logs_numbers(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.log.append(float(h.sum()))
    return drive(s, i, h)


def fills(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.table[len(s.table)] = h
    s.recent.append(i.detach())
    return drive(s, i, h)


def counts(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.count += 1
    return drive(s, i, h) * (1 if s.count % 2 else 0.5)


def counts_unread(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.count += 1
    return drive(s, i, h)


def counts_in_class(s: Any, i: Tensor, h: Tensor) -> Tensor:
    type(s).calls += 1
    return drive(s, i, h) * (1 if type(s).calls % 2 else 0.5)


def counts_in_buffer(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.steps += 1
    return drive(s, i, h) / s.steps


def keeps(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.kept = drive(s, i, h)
    return s.kept


def keeps_and_reads(s: Any, i: Tensor, h: Tensor) -> Tensor:
    old = s.kept if s.kept is not None and s.kept.shape == h.shape else h
    s.kept = drive(s, i, h).detach()
    return s.kept * 0.5 + drive(s, i, old)


def averages(s: Any, i: Tensor, h: Tensor) -> Tensor:
    with torch.no_grad():
        s.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return drive(s, i, h - s.mean)


def new_buffer(s: Any, i: Tensor, h: Tensor) -> Tensor:
    s.mean = s.mean * 0.9 + h.detach().mean(0) * 0.1
    return drive(s, i, h - s.mean)


def new_each_call(s: Any, i: Tensor, h: Tensor) -> Tensor:
    setattr(s, f"seen_{s.count}", True)
    s.count += 1
    return drive(s, i, h)


def makes_lazily(s: Any, i: Tensor, h: Tensor) -> Tensor:
    if s.made is None:
        s.made = torch.linspace(0, 1, SIZE)
    return drive(s, i, h) * s.made


def scales_weight(s: Any, i: Tensor, h: Tensor) -> Tensor:
    with torch.no_grad():
        s.u.bias.mul_(0.9)
    return drive(s, i, h)


def in_place_on_state(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return h.mul_(0.5).add_(s.u(i))


def in_place_on_input(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return drive(s, i.detach().mul_(0.5), h)


KEEPING: dict[str, Step] = {
    step.__name__: step
    for step in (
        logs, logs_numbers, fills, counts, counts_unread, counts_in_class, counts_in_buffer, keeps,
        keeps_and_reads, averages, new_buffer, new_each_call, makes_lazily, scales_weight,
    )
}  # fmt: skip


def keeping(step: Step) -> Any:
    cell = cell_of(step, type("Fresh", (Base,), {"calls": 0}))
    cell.log, cell.table, cell.recent, cell.count, cell.kept = [], {}, deque(maxlen=3), 0, None
    cell.made = None
    cell.register_buffer("mean", torch.zeros(SIZE))
    cell.register_buffer("steps", torch.zeros(()))
    return cell


def kept_by(cell: Any) -> list[Any]:
    """The values that a cell keeps."""
    values = [
        cell.count,
        type(cell).calls,
        *cell.log,
        *cell.table.values(),
        *cell.recent,
        cell.kept,
    ]
    return [*values, cell.mean, cell.steps, cell.u.bias]


@pytest.mark.parametrize("name", KEEPING)
def test_what_a_cell_keeps(name: str) -> None:
    step = KEEPING[name]
    base = [keeping(step), keeping(step)]
    for _ in range(3):
        agree(base[0], given().detach().clone(), twin=base[1])
        with torch.no_grad():
            agree(base[0], given().detach().clone(), twin=base[1])
    for found, expected in zip(*map(kept_by, base), strict=True):
        if isinstance(expected, Tensor):
            assert_close(name, found, expected)
        else:
            assert found == expected


@pytest.mark.parametrize("step", [in_place_on_state, in_place_on_input])
def test_arguments_changed_in_place(step: Step) -> None:
    cell, ends = cell_of(step), []
    with torch.no_grad():
        for backend in ("auto", "eager"):
            inputs, state = given().detach().clone(), torch.ones(3, SIZE)
            ends.append([*bptt.unfold(cell, inputs, state, backend=backend), inputs, state])
    for found, expected in zip(*ends, strict=True):
        assert_close("in place", found, expected)


def test_nothing_is_left_in_lists_of_others() -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        new = drive(s, i, h)
        LOG.append(new.detach())
        return new

    cell, inputs = cell_of(step), given()
    expected = bptt.unfold(cell, inputs, backend="eager")[0]
    LOG.clear()
    for _ in range(2):
        bptt.unfold(cell, inputs)
    assert {type(tensor) for tensor in LOG} == {Tensor}
    assert_close("log", torch.stack(LOG), torch.cat([expected, expected]).detach())


@pytest.mark.parametrize("normalise", ["spectral_norm", "weight_norm", "orthogonal"])
def test_parametrizations(normalise: str) -> None:
    cells = []
    for _ in range(2):
        torch.manual_seed(1)
        cells.append(getattr(parametrizations, normalise)(nn.GRUCell(SIZE, SIZE), "weight_hh"))
    if normalise == "orthogonal":
        assert belongings(cells[0]) == belongings(cells[1])
    for _ in range(3):
        agree(cells[0], twin=cells[1])
