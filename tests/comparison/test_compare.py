"""Comparisons: the same starts, one budget, honest counts, and tables that say what was found."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bptt
from bptt._counting import counting
from bptt.comparison import METHODS, Comparison, Rival, Run
from bptt.comparison._meter import Budget
from bptt.training._native import Pass

F64 = torch.float64
COUNTED = "800"


def stream(**options: Any) -> bptt.Stream:
    steps = torch.arange(40, dtype=F64)
    return bptt.Stream(torch.sin(0.4 * steps), horizon=1, **options)


def network(hidden: int = 3) -> bptt.Network:
    cell = bptt.cells.Elman(1, hidden, dtype=F64)
    # Every run would be traced anew, which costs more than so short a run.
    return bptt.Network(cell, nn.Linear(hidden, 1, dtype=F64), backend="eager")


def compare(methods: Any, **options: Any) -> Comparison:
    options = {"budget": COUNTED, "starts": 2, "depth": 10, "progress": False, **options}
    return bptt.compare(options.pop("network", network()), stream(), methods, **options)


@pytest.mark.parametrize("method", ["truncated", "sliding-window"])
def test_updates_in_whole_stretches_are_counted(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretches: list[int] = []
    made = Pass._stretch

    def noted(self: Pass, *given: Any) -> Any:
        stretches.append(1)
        return made(self, *given)

    monkeypatch.setattr(Pass, "_stretch", noted)
    cell = bptt.cells.Elman(1, 3, dtype=F64)
    net = bptt.Network(cell, nn.Linear(3, 1, dtype=F64))
    (run,) = compare([method], network=net, starts=1, budget="400").runs
    assert run.note == "budget spent"
    assert 400 <= run.evaluations[-1] <= 400 + 40
    assert stretches


def test_of_many_quick_updates_few_are_looked_at() -> None:
    """Else the core would be called for each."""
    net = bptt.Network(bptt.cells.Elman(1, 3, dtype=F64), nn.Linear(3, 1, dtype=F64))
    (run,) = compare(["sliding-window"], network=net, starts=1, budget="200000").runs
    assert 200_000 <= run.evaluations[-1] <= 200_000 + 40
    assert len(run.losses) < 1000  # of some 20,000 updates


def test_counters_are_told_of_all_steps_in_their_own_thread() -> None:
    class Kept:
        steps = 0

        def spend(self, steps: int) -> None:
            self.steps += steps

        def left(self) -> tuple[float, float]:
            return math.inf, math.inf

    outer, inner = Kept(), Kept()
    net = network()
    with counting(outer):
        net(torch.zeros(5, 2, 1, dtype=F64))
        with counting(inner):
            net.unfold_states(torch.zeros(3, 2, 1, dtype=F64))
            net.step(torch.zeros(2, 1, dtype=F64))
            other = threading.Thread(target=net.unfold, args=(torch.zeros(9, 1, 1, dtype=F64),))
            other.start()
            other.join()
    net(torch.zeros(5, 2, 1, dtype=F64))
    assert (outer.steps, inner.steps) == (10 + 6 + 2, 6 + 2)


def test_every_named_method_trains_and_stops_at_its_budget() -> None:
    cell = bptt.cells.SelfRecurrent(1, 3, dtype=F64)
    net = bptt.Network(cell, nn.Linear(3, 1, dtype=F64), backend="eager")
    before = [p.detach().clone() for p in net.parameters()]
    found = compare(METHODS, network=net, starts=1, budget="400")
    assert found.methods == list(METHODS)
    for run in found.runs:
        assert run.note == "budget spent"
        assert run.evaluations[-1] <= 400 + 40
        assert run.evaluations[0] == 0
        assert run.evaluations == sorted(run.evaluations)
        assert run.losses == sorted(run.losses, reverse=True)
        assert run.losses[-1] < run.losses[0] or run.method in ("evolution", "uoro", "cma-es")
    torch.testing.assert_close(list(net.parameters()), before, rtol=0.0, atol=0.0)


def test_all_methods_start_from_the_same_weights_and_starts_differ() -> None:
    found = compare(["full", "cma-es", "l-bfgs"])
    first = {(run.method, run.start): run.losses[0] for run in found.runs}
    assert first["full", 0] == first["cma-es", 0] == first["l-bfgs", 0]
    assert first["full", 1] == first["cma-es", 1] != first["full", 0]


def test_counts_and_losses_are_the_same_every_time() -> None:
    one, other = compare(["full", "evolution"]), compare(["full", "evolution"])
    for a, b in zip(one.runs, other.runs, strict=True):
        assert a.evaluations[-1] == b.evaluations[-1]
        assert a.losses[-1] == b.losses[-1]


def test_full_evaluates_each_step_once_a_gradient() -> None:
    (run,) = compare(["full"], starts=1, budget=40 * 7).runs
    assert run.evaluations[-1] == 40 * 7
    # seven gradients, and as many updates as came of them
    net = network()
    torch.manual_seed(0)
    for module in (net.cell, net.readout):
        module.reset_parameters()
    optimizer = lambda p: torch.optim.Adam(p, lr=0.01)  # noqa: E731
    bptt.fit(net, stream(), epochs=7, optimizer=optimizer, clip=1.0, progress=False)
    assert run.losses[-1] == pytest.approx(bptt.evaluate(net, stream()).loss, rel=1e-9)


def test_time_is_a_budget_too() -> None:
    found = compare(["full", "cma-es"], starts=1, budget="0.2s")
    for run in found.runs:
        assert run.note == "budget spent"
        assert run.seconds[-1] >= 0.2


def known() -> Comparison:
    """Two methods, three starts, written down by hand."""
    runs = []
    for start, shift in enumerate((0, 2, 4)):
        runs.append(Run("full", start, [0.0, 1.0 + shift], [0, 100 + shift], [1.0, 0.1]))
        last = 0.15 if start < 2 else 0.9
        runs.append(Run("slow", start, [0.0, 10.0 + shift], [0, 500], [1.0, last]))
    return Comparison(runs, Budget(seconds=20.0), None, "by hand", "mse")


def test_the_table_has_medians_spread_target_and_ratios() -> None:
    found = known()
    assert found.target == pytest.approx(1.0 + 0.9 * (0.1 - 1.0))
    full, slow = found.table()
    assert (full.loss, full.low, full.high, full.reached) == (0.1, 0.1, 0.1, 3)
    assert (full.seconds, full.evaluations) == (3.0, 102.0)
    assert (full.times_seconds, full.times_evaluations) == (1.0, 1.0)
    assert (slow.loss, slow.low, slow.high, slow.reached) == (0.15, 0.15, 0.9, 2)
    assert (slow.seconds, slow.times_seconds) == (12.0, 4.0)
    assert slow.times_evaluations == pytest.approx(500 / 102)
    text = str(found)
    assert "by hand: 3 start(s), 20 s each; target mse 0.19" in text
    assert "2/3" in text


def test_a_method_that_falls_short_more_often_than_not_has_no_time() -> None:
    found = known()
    found.runs[3].losses[-1] = 0.8
    slow = found.table()[1]
    assert slow.reached == 1
    assert math.isinf(slow.seconds)
    assert "–" in str(found)


def test_json_and_picture_hold_what_was_found(tmp_path: Path) -> None:
    found = compare(["full", "truncated", "evolution"], name="sine")
    found.to_json(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["reference"] == "full"
    assert content["budget"] == {"seconds": None, "evaluations": 800}
    assert [row["method"] for row in content["table"]] == ["full", "truncated", "evolution"]
    assert content["runs"][0]["losses"] == found.runs[0].losses
    found.figure(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    grid = [0.0, 400.0, 800.0]
    low, middle, high = found.band("full", "evaluations", grid)
    assert (low <= middle).all()
    assert (middle <= high).all()


def test_a_rival_of_ones_own() -> None:
    own = Rival("sgd", bptt.Truncated(5), lambda p: torch.optim.SGD(p, lr=0.05))
    found = compare([own, "full"])
    assert found.methods == ["sgd", "full"]
    assert all(run.losses[-1] < run.losses[0] for run in found.of("sgd"))


def test_a_run_that_diverges_is_told_and_the_others_go_on() -> None:
    wild = Rival("wild", bptt.Full(), lambda p: torch.optim.SGD(p, lr=1e200))
    found = compare([wild, "full"], starts=1)
    assert [run.note for run in found.runs] == ["diverged", "budget spent"]


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (["ful"], {}, "method 'ful' is unknown. Did you mean 'full'"),
        ([], {}, "no method is given"),
        (["full", "full"], {}, "method 'full' is given 2 times"),
        (["truncated"], {"depth": 41}, r"depth 41 reaches beyond the 40 steps.*take 'full'"),
        (["least-squares"], {"loss": "mae"}, "minimises squared errors.*take 'l-bfgs'"),
        (
            ["levenberg-marquardt"],
            {"network": network(8)},
            "39 for 97: take 'least-squares' or 'l-bfgs'",
        ),
        (["full"], {"budget": "0s"}, "a budget is a time"),
        (["full"], {"budget": "soon"}, "a budget is a time"),
        (["full"], {"budget": "1.5"}, "a budget is a time"),
        (["full"], {"starts": 0}, "starts must be at least 1"),
        (["full"], {"target": -1.0}, "target must be a loss above 0"),
        (["full"], {"rate": 0.0}, "rate must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    methods: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        compare(methods, **options)


def test_focused_backpropagation_of_other_cells_is_refused_before_any_work() -> None:
    with pytest.raises(bptt.CellError, match="see one another"):
        compare(["full", "focused"])


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", Budget(seconds=60.0)),
        ("2min", Budget(seconds=120.0)),
        (0.5, Budget(seconds=0.5)),
        ("1e6", Budget(evaluations=10**6)),
        (500, Budget(evaluations=500)),
    ],
)
def test_budgets_are_read(text: Any, budget: Budget) -> None:
    assert Budget.of(text) == budget
