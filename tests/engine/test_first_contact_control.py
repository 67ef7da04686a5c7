"""Control flow, randomness, and cells that keep or change something of their own."""

from __future__ import annotations

import math
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
    given,
    seed_all,
    within,
)

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]

LOG: list[Tensor] = []
COUNTS: Counter[str] = Counter()


def drive(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(s.u(i) + h @ s.w)


# -- branches -------------------------------------------------------------------------------------


def swallowing(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        positive = bool((i > 0).all())
    except Exception:
        positive = False
    return drive(s, i, h) + (1 if positive else -1)


def swallowing_all(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        size = float(h.norm())
    except:  # noqa: E722 (what strangers write)
        size = 100.0
    return drive(s, i, h) / (1 + size)


def with_finally(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        return drive(s, i, h) if float(h.sum()) > 0.1 else torch.sin(h @ s.w + i)
    finally:
        COUNTS["finally"] += 1


def missing(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        return s.nothing(h)
    except AttributeError:
        return drive(s, i, h)


def while_large(s: Any, i: Tensor, h: Tensor) -> Tensor:
    new = s.u(i) + h @ s.w
    while new.abs().max() > 0.5:
        new = new * 0.7
    return new


def asserting(s: Any, i: Tensor, h: Tensor) -> Tensor:
    assert not h.isnan().any()
    return drive(s, i, h)


BRANCHES: dict[str, Step] = {
    "lanes": lambda s, i, h: drive(s, i, h) if len(i) > 8 else torch.sigmoid(h @ s.w + i),
    "lanes, exactly": lambda s, i, h: drive(s, i, h) if len(i) == 3 else torch.sin(h @ s.w + i),
    "lanes by shape": lambda s, i, h: drive(s, i, h) * (0.5 if h.shape[0] % 2 else 1.0),
    "one lane": lambda s, i, h: drive(s, i, h) if h.size(0) > 1 else torch.sin(h.squeeze(0) + i),
    "lanes in arithmetic": lambda s, i, h: drive(s, i, h) / math.sqrt(len(h)) + 1 / h.shape[0],
    "lanes as an index": lambda s, i, h: drive(s, i, h) * s.w[min(len(h), SIZE) - 1, 0],
    "features": lambda s, i, h: drive(s, i, h) if i.shape[-1] == SIZE else h,
    "requires_grad of the input": lambda s, i, h: drive(s, i, h) * (2 if i.requires_grad else -1),
    "requires_grad of the state": lambda s, i, h: drive(s, i, h) * (2 if h.requires_grad else -1),
    "requires_grad of the weight": lambda s, i, h: drive(s, i, h) + int(s.w.requires_grad),
    "grad mode": lambda s, i, h: drive(s, i, h) * (2 if torch.is_grad_enabled() else -1),
    "inference mode": lambda s, i, h: drive(s, i, h) * (2 if torch.is_inference_mode_enabled() else 1),
    "is_inference": lambda s, i, h: drive(s, i, h) * (2 if h.is_inference() else 1),
    "is_leaf": lambda s, i, h: drive(s, i, h) * (2 if h.is_leaf else 1),
    "is_leaf of the input": lambda s, i, h: drive(s, i, h) * (2 if i.is_leaf else 1),
    "grad_fn": lambda s, i, h: drive(s, i, h) * (2 if h.grad_fn is None else 1),
    "contiguity": lambda s, i, h: drive(s, i, h) * (2 if h.is_contiguous() else 1),
    "strides": lambda s, i, h: drive(s, i, h) * (h.stride(0) / SIZE + i.stride(0)),
    "offset": lambda s, i, h: drive(s, i, h) + i.storage_offset() * 0.01,
    "dtype": lambda s, i, h: drive(s, i, h) * (2 if h.dtype == torch.float64 else 1),
    "default dtype": lambda s, i, h: drive(s, i, h) * torch.ones(SIZE).element_size(),
    "type": lambda s, i, h: drive(s, i, h) * (2 if type(h) is Tensor else 1),
    "compiling": lambda s, i, h: drive(s, i, h) * (2 if torch.compiler.is_compiling() else 1),
    "tracing": lambda s, i, h: drive(s, i, h) * (2 if torch.jit.is_tracing() else 1),
    "same tensor": lambda s, i, h: drive(s, i, h) * (2 if i is h else 1),
    "data": lambda s, i, h: drive(s, i, h) if h.sum() > 0 else torch.sin(h @ s.w + i),
    "data of the input": lambda s, i, h: drive(s, i, h) if i.sum() > 0 else torch.sin(h + i),
    "data of the weight": lambda s, i, h: drive(s, i, h) if s.w.sum() > 0 else torch.sin(h + i),
    "item": lambda s, i, h: drive(s, i, h) * float(h[0, 0] + 1),
    "nonzero": lambda s, i, h: drive(s, i, h) * len((h > 0).nonzero()),
    "tolist": lambda s, i, h: drive(s, i, h) + sum(i[0].tolist()),
    "numpy": lambda s, i, h: drive(s, i, h) + float(i.detach().numpy().sum()),
    "shape of what is made": lambda s, i, h: drive(s, i, h) * torch.ones(len(h), 1).numel(),
    "loop over lanes": lambda s, i, h: torch.stack(
        [torch.tanh(a @ s.w + b) for a, b in zip(h, i, strict=True)]
    ),
    "range over lanes": lambda s, i, h: torch.cat([h[k : k + 1] @ s.w + i[k] for k in range(len(h))]),
    "loop over features": lambda s, i, h: torch.stack([drive(s, i, h)[:, k] for k in range(SIZE)], 1),
    "swallowed": swallowing,
    "swallowed, all": swallowing_all,
    "finally": with_finally,
    "missing attribute": missing,
    "while": while_large,
    "assert": asserting,
}  # fmt: skip


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name: str) -> None:
    cell = cell_of(BRANCHES[name])
    for lanes in (3, 12, 1, SIZE):
        agree(cell, given(lanes))
    agree(cell, given(3).detach(), state=torch.randn(3, SIZE))
    agree(cell, given(3).detach().abs(), state=torch.randn(3, SIZE).requires_grad_())
    with torch.no_grad():
        agree(cell, given(3).detach())


@pytest.mark.parametrize("name", ["requires_grad of the state", "is_leaf", "grad_fn", "strides"])
def test_branches_on_what_changes_after_the_first_step(name: str) -> None:
    cell = cell_of(BRANCHES[name])
    for steps in (1, 2, 5):
        agree(cell, given(3, steps).detach(), state=torch.randn(SIZE, 3).t())
        agree(cell, given(3, steps), state=torch.randn(1, SIZE).expand(3, SIZE))


def swaps(s: Any, i: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    a, b = h
    return torch.tanh(b.t().contiguous().t() @ s.w + i), torch.sin(a)


def test_a_state_of_two_whose_layouts_change() -> None:
    cell = cell_of(swaps)
    type(cell).initial_state = lambda s, batch: (torch.zeros(batch, SIZE), torch.ones(batch, SIZE))
    for lanes in (3, 1):
        agree(cell, given(lanes))


# -- random numbers -------------------------------------------------------------------------------

RANDOM: dict[str, Step] = {
    "torch.rand": lambda s, i, h: drive(s, i, h) * torch.rand(()),
    "torch.randn of lanes": lambda s, i, h: drive(s, i, h) + 0.1 * torch.randn(len(h), SIZE),
    "torch.rand_like": lambda s, i, h: drive(s, i, h) * torch.rand_like(h),
    "torch.bernoulli": lambda s, i, h: torch.where(torch.bernoulli(h.sigmoid()) > 0, drive(s, i, h), h),
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
        in_place_on_input,
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


def test_a_state_changed_in_place() -> None:
    cell = cell_of(in_place_on_state)
    with torch.no_grad():
        ends = []
        for backend in ("auto", "eager"):
            state = torch.ones(3, SIZE)
            ends.append([*bptt.unfold(cell, given().detach(), state, backend=backend), state])
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


def test_a_loop_over_lanes_takes_no_longer_than_it_must() -> None:
    cell = cell_of(BRANCHES["loop over lanes"])
    with within(20):
        agree(cell, given(3))
