"""`Stream.from_iterator`: the same numbers from a live source, read once and let go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.online.test_fit import assert_alike, data, network, sgd

import bptt


def pairs(steps: int) -> Iterator[tuple[Any, Any]]:
    x, y = data(steps)
    yield from zip(x, y, strict=True)


METHODS = [bptt.SlidingWindow(4), bptt.Truncated(6, 2), bptt.Truncated(3, 5), bptt.Truncated(50)]


@pytest.mark.filterwarnings("ignore:depth")
@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("ahead", [0, 30])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_it_is_the_stream_of_the_same_data(method: Any, ahead: int, backend: str) -> None:
    live, resident = network(), network()
    live.backend = backend
    source = bptt.Stream.from_iterator(
        lambda: pairs(31), paired=True, horizon=1, burn_in=2, ahead=ahead, dtype=torch.float64
    )
    options: dict[str, Any] = {"method": method, "optimizer": sgd, "epochs": 2, "progress": False}
    histories = [
        bptt.fit(live, source, **options),
        bptt.fit(resident, bptt.Stream(*data(31), horizon=1, burn_in=2), **options),
    ]
    assert_alike(live, resident, 1e-10)
    one, other = (h.epochs[-1] for h in histories)
    assert (one.updates, one.counted) == (other.updates, other.counted)
    assert one.loss == pytest.approx(other.loss, rel=1e-10)


def test_it_predicts_its_own_inputs_and_holds_few_steps() -> None:
    held = []

    def source() -> Iterator[float]:
        for t in range(4000):
            held.append(t)
            yield 0.5

    stream = bptt.Stream.from_iterator(source(), horizon=1)
    net = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1))
    batch = next(stream.batches())
    assert len(held) == 1
    for start in range(0, 3900, 10):
        assert batch.chunk(start, start + 10).steps == 10
        assert len(batch._inputs) < 60  # type: ignore[attr-defined]  # a live batch
    with pytest.raises(bptt.DataError, match="has passed"):
        batch.chunk(0, 5)
    assert net is not None


def test_updates_come_before_the_source_goes_on() -> None:
    read = 0

    def source() -> Iterator[float]:
        nonlocal read
        for t in range(60):
            read = t
            yield 0.01 * t

    net = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1))
    stream = bptt.Stream.from_iterator(source, horizon=1)
    for update in bptt.Truncated(5).updates(net, "mse", stream):
        net.zero_grad()
        assert read <= update.stop + 1


def test_several_lanes() -> None:
    stream = bptt.Stream.from_iterator(
        lambda: (torch.full((3, 2), 0.1 * t) for t in range(20)), lanes=3, horizon=1
    )
    net = bptt.Network(bptt.cells.GRU(2, 4), torch.nn.Linear(4, 2))
    history = bptt.fit(net, stream, method=bptt.Truncated(5), epochs=2, progress=False)
    assert history.epochs[0].counted == 3 * 19


@pytest.mark.parametrize(
    ("steps", "options", "error", "told"),
    [
        ([], {}, bptt.DataError, "empty"),
        ([1.0, float("nan")], {}, bptt.DataError, "step 1"),
        ([[1.0], [1.0, 2.0]], {}, bptt.ShapeError, "step 1"),
        ([1.0, 2.0], {"paired": True}, bptt.DataError, "paired=True"),
        ([1.0, 2.0], {"lanes": 2}, bptt.ShapeError, "one row for each lane"),
    ],
)
def test_bad_steps_are_named(steps: Any, options: Any, error: Any, told: str) -> None:
    net = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1))
    stream = bptt.Stream.from_iterator(steps, **{"horizon": 1, **options})
    with pytest.raises(error, match=told):
        bptt.fit(net, stream, method=bptt.Truncated(2), epochs=1, progress=False)


def test_what_needs_all_data_is_refused(tmp_path: Any) -> None:
    net = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1))
    once = bptt.Stream.from_iterator(iter([0.1] * 20), horizon=1)
    method = bptt.Truncated(4)
    with pytest.raises(bptt.DataError, match="read already"):
        bptt.fit(net, once, method=method, epochs=2, progress=False)
    live = bptt.Stream.from_iterator([0.1] * 20, horizon=1)
    with pytest.raises(bptt.DataError, match="split"):
        bptt.fit(net, live, method=method, validation=0.2, progress=False)
    with pytest.raises(bptt.DataError, match="checkpoints"):
        bptt.fit(net, live, method=method, checkpoint=tmp_path, progress=False)
    with pytest.raises(bptt.OptionError, match="horizon"):
        bptt.Stream.from_iterator([0.1])
    with pytest.raises(bptt.OptionError, match="iterable"):
        bptt.Stream.from_iterator(3, horizon=1)  # type: ignore[arg-type]  # refused
    with pytest.raises(bptt.DataError, match="end"):
        bptt.fit(net, live, method=bptt.Full(), epochs=1, progress=False)
