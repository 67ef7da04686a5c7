"""The training loop: what it does with updates, when it ends, what it leaves behind."""

from __future__ import annotations

import copy
import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bptt


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(seed: int = 0, hidden: int = 6) -> bptt.Network:
    torch.manual_seed(seed)
    return bptt.Network(bptt.cells.Elman(1, hidden), nn.Linear(hidden, 1))


def waves(steps: int = 60) -> Tensor:
    time = torch.arange(steps, dtype=torch.float64)
    return torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time)


def stream(steps: int = 60, **options: object) -> bptt.Stream:
    return bptt.Stream(waves(steps), horizon=1, **options)


def sgd(net: nn.Module, rate: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), rate)


def fit(net: bptt.Network, data: bptt.Stream, **options: object) -> bptt.History:
    options.setdefault("optimizer", sgd(net))
    return bptt.fit(net, data, progress=False, **options)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class TestUpdates:
    def test_fit_is_the_plain_loop(self) -> None:
        trained, by_hand = network(), network()
        fit(trained, stream(), method=bptt.Truncated(8, 3), epochs=2, clip=0.5)
        optimizer, method = sgd(by_hand), bptt.Truncated(8, 3)
        for _ in range(2):
            for _ in method.updates(by_hand, "mse", stream()):
                nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
        torch.testing.assert_close(weights(trained), weights(by_hand))

    def test_full_and_adam_are_the_defaults(self) -> None:
        trained, by_hand = network(), network()
        bptt.fit(trained, stream(), epochs=2, progress=False)
        optimizer = torch.optim.Adam(by_hand.parameters())
        for _ in range(2):
            for _ in bptt.Full().updates(by_hand, "mse", stream()):
                optimizer.step()
                optimizer.zero_grad()
        assert torch.equal(weights(trained), weights(by_hand))

    def test_clip_bounds_the_step_and_the_history_keeps_the_norm_before(self) -> None:
        net = network()
        before = weights(net)
        history = fit(net, stream(), epochs=1, clip=1e-3, optimizer=sgd(net, 1.0))
        assert float((weights(net) - before).norm()) == pytest.approx(1e-3, rel=1e-3)
        assert history.epochs[0].gradient_norm > 0.01

    def test_lbfgs_descends_by_closures(self) -> None:
        net = network()
        optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")
        history = fit(net, stream(), epochs=6, optimizer=optimizer)
        assert history.losses[-1] < 0.1 * history.losses[0]
        assert all(b <= a for a, b in zip(history.losses, history.losses[1:], strict=False))

    def test_an_epochs_loss_is_the_sum_over_the_count(self) -> None:
        net = network()
        data = stream(50, lanes=3)
        history = fit(net, data, method=bptt.Truncated(7), epochs=1, optimizer=sgd(net, 1e-12))
        assert history.losses[0] == pytest.approx(bptt.evaluate(net, data).loss, rel=1e-9)
        assert history.epochs[0].counted == data.counted

    def test_scheduler_steps_after_every_epoch(self) -> None:
        net = network()
        optimizer = sgd(net)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        history = fit(net, stream(), epochs=3, optimizer=optimizer, scheduler=scheduler)
        assert [epoch.learning_rate for epoch in history.epochs] == [0.05, 0.025, 0.0125]

    def test_plateau_scheduler_is_given_the_validation_loss(self) -> None:
        net = network()
        optimizer = sgd(net)
        seen = []

        class Spy(torch.optim.lr_scheduler.ReduceLROnPlateau):
            def step(self, metrics: float, epoch: int | None = None) -> None:
                seen.append(metrics)

        history = fit(
            net, stream(), epochs=2, optimizer=optimizer, scheduler=Spy(optimizer), validation=0.3
        )
        assert seen == history.validations


class TestRandomness:
    def test_seed_decides_and_leaves_the_callers_generator_alone(self) -> None:
        def run(seed: int | None) -> Tensor:
            torch.manual_seed(1)
            net = bptt.Network(
                bptt.cells.Elman(1, 6), nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1))
            )
            torch.manual_seed(99)
            fit(net, stream(), epochs=2, seed=seed)
            expected = torch.Generator().manual_seed(99)
            assert torch.equal(torch.rand(3), torch.rand(3, generator=expected))
            return weights(net)

        assert torch.equal(run(5), run(5))
        assert not torch.equal(run(5), run(6))


class TestStopping:
    def test_epochs(self) -> None:
        history = fit(network(), stream(), epochs=3)
        assert len(history) == 3
        assert "3 epochs" in history.stop_reason

    def test_target_loss(self) -> None:
        reached = fit(network(), stream(), epochs=50, stop=bptt.TargetLoss(0.3))
        assert reached.losses[-1] <= 0.3 < reached.losses[-2]
        assert "target" in reached.stop_reason

    def test_time_limit_ends_within_an_epoch(self) -> None:
        history = fit(
            network(), stream(), method=bptt.Truncated(5), stop=[bptt.TimeLimit(1e-9)], epochs=9
        )
        assert len(history) == 1
        assert history.epochs[0].updates == 1
        assert "seconds" in history.stop_reason

    def test_gradient_norm(self) -> None:
        history = fit(network(), stream(), stop=bptt.GradientNorm(1e6), epochs=9)
        assert len(history) == 1
        assert "gradient norm" in history.stop_reason

    def test_patience_counts_epochs_without_improvement(self) -> None:
        net = network()
        history = fit(
            net,
            stream(),
            validation=0.3,
            stop=bptt.Patience(3, min_delta=10.0),
            epochs=50,
        )
        assert len(history) == 3  # nothing ever improves by ten
        assert "3 epochs" in history.stop_reason

    def test_patience_can_be_used_again(self) -> None:
        patience = bptt.Patience(2, min_delta=10.0)
        lengths = [len(fit(network(), stream(), stop=patience, epochs=9)) for _ in range(2)]
        # Without validation the first epoch's loss is the first there is to improve on.
        assert lengths == [3, 3]

    def test_best_weights_come_back(self) -> None:
        net = network()
        held: list[Tensor] = []
        data = stream(80)
        judge = data.split(0.7)[1]

        def remember(progress: bptt.Progress) -> None:
            held.append(weights(progress.network))
            if progress.epoch == 6:  # from here on it only gets worse
                for group in progress.optimizer.param_groups:
                    group["lr"] = -0.2

        history = fit(
            net,
            data,
            validation=0.3,
            stop=bptt.Patience(100, restore_best=True),
            epochs=15,
            callbacks=[remember],
        )
        scores = history.validations
        assert history.best_epoch == scores.index(min(scores)) + 1 < 15
        assert history.restored
        assert torch.equal(weights(net), held[history.best_epoch - 1])
        assert bptt.evaluate(net, judge).loss == min(scores)

    def test_the_first_weights_are_a_candidate(self) -> None:
        net = network()
        before = weights(net)
        history = fit(
            net,
            stream(),
            validation=0.3,
            stop=bptt.Patience(3, restore_best=True),
            optimizer=torch.optim.SGD(net.parameters(), 0.05, maximize=True),
            epochs=5,
        )
        assert history.best_epoch == 0
        assert torch.equal(weights(net), before)


class TestValidation:
    def test_state_enters_from_what_precedes(self) -> None:
        net = network()
        data = stream(60)
        train, judge = data.split(0.5)
        whole = bptt.predict(net, data)
        assert torch.allclose(bptt.predict(net, judge), whole[train.steps :], rtol=0, atol=1e-14)
        targets = waves()[train.steps + 1 :, None]
        expected = float((whole[train.steps : -1] - targets).square().mean())
        assert bptt.evaluate(net, judge).loss == pytest.approx(expected, rel=1e-12)

    def test_a_later_part_of_a_later_part_sees_all_of_the_past(self) -> None:
        net = network()
        data = stream(60)
        later = data.split(0.5)[1]
        last = later.split(0.5)[1]
        whole = bptt.predict(net, data)
        assert torch.allclose(bptt.predict(net, last), whole[-last.steps :], rtol=0, atol=1e-15)

    def test_a_share_trains_on_the_first_part_alone(self) -> None:
        by_share, by_stream = network(), network()
        train, judge = stream(60).split(0.7)
        one = fit(by_share, stream(60), validation=0.3, epochs=3)
        two = fit(by_stream, train, validation=judge, epochs=3)
        assert torch.equal(weights(by_share), weights(by_stream))
        assert one.validations == two.validations

    def test_evaluation_changes_nothing_and_draws_nothing(self) -> None:
        net = bptt.Network(bptt.cells.Elman(1, 4), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1)))
        before = copy.deepcopy(net.state_dict())
        assert bptt.evaluate(net, stream()).loss == bptt.evaluate(net, stream()).loss
        assert net.training
        assert net.readout is not None
        assert net.readout.training
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())

    def test_long_streams_are_evaluated_in_chunks_with_the_state_carried(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bptt.training import _evaluate

        net = network()
        data = stream(50, lanes=3)
        whole = bptt.predict(net, data)
        monkeypatch.setattr(_evaluate, "STEPS_AT_ONCE", 7)
        # Products over other numbers of rows may round differently.
        assert torch.allclose(bptt.predict(net, data), whole, rtol=0, atol=1e-14)

    def test_predictions_of_ragged_sequences_come_back_as_a_list(self) -> None:
        net = network()
        parts = [waves(n)[:, None] for n in (7, 3, 11)]
        for how in ({"lanes": 2}, {"batch": 2}):
            found = bptt.predict(net, bptt.Stream(parts, horizon=1, **how))
            for part, one in zip(parts, found, strict=True):
                alone = net(part[:, None])[0][:, 0]
                assert torch.allclose(one, alone, rtol=0, atol=1e-14)


class TestCallbacks:
    def test_after_epochs_and_after_updates(self) -> None:
        seen: list[tuple[str, int]] = []

        class Often:
            every = 3

            def __call__(self, progress: bptt.Progress) -> None:
                seen.append(("update", progress.updates))

        def epoch(progress: bptt.Progress) -> None:
            seen.append(("epoch", progress.epoch))

        fit(network(), stream(40), method=bptt.Truncated(8), epochs=2, callbacks=[Often(), epoch])
        expected = [("update", 3), ("epoch", 1), ("update", 6), ("update", 9), ("epoch", 2)]
        assert seen == expected


class TestNonFinite:
    def test_the_update_is_withheld_and_its_place_named(self) -> None:
        net = network()
        held: list[Tensor] = []

        def explode(progress: bptt.Progress) -> None:
            held.append(weights(progress.network))

        explode.every = 1  # type: ignore[attr-defined]  # a function's own attribute

        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            values = (prediction - target).square()
            return values / 0 if len(held) == 3 else values

        with pytest.raises(bptt.NonFiniteError, match=r"epoch 1, update 4, steps 24 to 31"):
            fit(net, stream(), method=bptt.Truncated(8), loss=loss, callbacks=[explode])
        assert torch.equal(weights(net), held[-1])
        assert all(p.grad is None for p in net.parameters())

    def test_the_lane_is_named(self) -> None:
        net = bptt.Network(bptt.cells.Elman(1, 3, nonlinearity="relu"))
        with torch.no_grad():
            net.cell.weight_ih.fill_(1.0)
            net.cell.weight_hh.fill_(1e60)
            net.cell.bias_ih.zero_()
            net.cell.bias_hh.zero_()
        inputs = torch.zeros(12, 3, 1)
        inputs[:, 1] = 1.0
        data = bptt.Stream(inputs, torch.zeros(12, 3, 3))
        with pytest.raises(bptt.NonFiniteError, match=r"lane\(s\) 1\b"):
            fit(net, data, epochs=1)


class TestHistory:
    def test_csv(self, tmp_path: Path) -> None:
        history = fit(network(), stream(), epochs=3, validation=0.3)
        history.to_csv(tmp_path / "history.csv")
        rows = list(csv.DictReader((tmp_path / "history.csv").open()))
        assert [float(row["loss"]) for row in rows] == history.losses
        assert [float(row["validation"]) for row in rows] == history.validations
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
        assert all(math.isfinite(float(row["steps_per_second"])) for row in rows)

    def test_without_validation_the_column_is_empty(self, tmp_path: Path) -> None:
        fit(network(), stream(), epochs=1).to_csv(tmp_path / "history.csv")
        (row,) = csv.DictReader((tmp_path / "history.csv").open())
        assert row["validation"] == ""


class TestProgressBar:
    def test_it_shows_loss_norm_and_speed(self, capsys: pytest.CaptureFixture[str]) -> None:
        net = network()
        bptt.fit(net, stream(), optimizer=sgd(net), epochs=2, validation=0.3)
        shown = capsys.readouterr().err
        for part in ("epoch 1/2", "loss ", "|g| ", "steps/s"):
            assert part in shown

    def test_it_can_be_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        fit(network(), stream(), epochs=1)
        assert capsys.readouterr().err == ""


BAD = [
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"clip": 0.0}, "clip must be above 0"),
    ({"loss": "msee"}, "Did you mean 'mse'"),
    ({"validation": 1.5}, "shares above 0"),
    ({"validation": 3}, "share between 0 and 1"),
    ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)])}, "holds no parameter"),
    ({"optimizer": lambda p: torch.optim.LBFGS(p), "clip": 1.0}, "L-BFGS"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: str(value)[:24])
def test_bad_options_are_refused_before_training(options: dict[str, object], message: str) -> None:
    net = network()
    before = weights(net)
    with pytest.raises(bptt.BpttError, match=message):
        fit(net, stream(), **options)
    assert torch.equal(weights(net), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bptt.Patience(0), "at least 1"),
        (lambda: bptt.Patience(3, min_delta=-1.0), "min_delta"),
        (lambda: bptt.TargetLoss(math.nan), "finite"),
        (lambda: bptt.TimeLimit(0), "above 0"),
        (lambda: bptt.GradientNorm(-1), "above 0"),
        (lambda: bptt.Epochs(0), "at least 1"),
    ],
)
def test_bad_criteria_are_refused(make: object, message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        make()  # type: ignore[operator]  # a table of calls


def test_a_stream_without_anything_to_count_is_refused() -> None:
    data = bptt.Stream(waves(10), horizon=1, burn_in=50)
    with pytest.raises(bptt.OptionError, match="no update"):
        fit(network(), data)
