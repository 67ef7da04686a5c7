"""What is not finite never reaches the weights, wherever it comes from; and where it came from is
told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.training import _nonfinite

MARK = 7.0
"""An input at which the cell below breaks."""


class Fragile(nn.Module):
    """An Elman cell whose state becomes ``poison`` where its input is `MARK`, while it is armed."""

    def __init__(self, poison: float = math.nan) -> None:
        super().__init__()
        self.inner = bptt.cells.Elman(1, 4)
        self.hidden_size, self.input_size = 4, 1
        self.poison, self.armed = poison, True

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        found = self.inner(input, state)
        marked = (input == MARK) if self.armed else torch.zeros_like(input, dtype=torch.bool)
        return torch.where(marked, torch.full_like(found, self.poison), found)


def network(
    make: Callable[[], nn.Module] = lambda: bptt.cells.Elman(1, 4), **options: Any
) -> bptt.Network:
    torch.manual_seed(0)
    return bptt.Network(make(), nn.Linear(4, 1), backend="eager", **options)


def data(*marks: tuple[int, int], steps: int = 40, lanes: int = 3) -> bptt.Stream:
    """Waves on lanes, with marks at (step, lane)."""
    time = torch.arange(steps, dtype=torch.float32)[:, None] + 5 * torch.arange(lanes)
    inputs = torch.sin(0.4 * time)[..., None]
    targets = inputs.roll(-1, 0).clone()
    for step, lane in marks:
        inputs[step, lane] = MARK
    return bptt.Stream(inputs, targets)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def fit(net: bptt.Network, stream: bptt.Stream, **options: Any) -> bptt.History:
    options.setdefault("method", bptt.Truncated(6, 3))
    options.setdefault("optimizer", torch.optim.SGD(net.parameters(), 0.05, momentum=0.5))
    options.setdefault("epochs", 1)
    return bptt.fit(net, stream, progress=False, **options)


def keep(held: list[Tensor]) -> Callable[[bptt.Progress], None]:
    def callback(progress: bptt.Progress) -> None:
        held.append(weights(progress.network))

    callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
    return callback


METHODS: dict[str, Callable[[], Any]] = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(segment=7),
    "carried": lambda: bptt.Truncated(6, 3),
    "recomputed": lambda: bptt.Truncated(6, 3, context="recomputed"),
    "stored": lambda: bptt.Truncated(6, 3, history="stored"),
}
ONLINE: dict[str, Callable[[], Any]] = {
    "rtrl": lambda: bptt.RTRL(stride=3),
    "uoro": lambda: bptt.UORO(stride=3),
}


class TestReports:
    @pytest.mark.parametrize("method", METHODS | ONLINE)
    @pytest.mark.parametrize(("step", "lane"), [(0, 0), (17, 1), (39, 2)])
    def test_step_and_lane(self, step: int, lane: int, method: str) -> None:
        net, held = network(Fragile), []
        before = weights(net)
        how = (METHODS | ONLINE)[method]()
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, data((step, lane)), method=how, callbacks=[keep(held)])
        report = caught.value.report
        assert (report.what, report.step, report.lanes) == ("loss", step, (lane,))
        assert report.start <= step < report.stop
        assert report.update == len(held) + 1
        norms = report.norms
        assert norms.shape == (report.stop - report.start, 3)
        assert torch.isfinite(norms[: step - report.start]).all()
        assert torch.isnan(norms[step - report.start :, lane]).all()
        said = str(caught.value)
        assert f"lane(s) {lane} from step {step} on" in said
        assert f"{step}: nan" in said
        assert torch.equal(weights(net), held[-1] if held else before)
        assert all(p.grad is None for p in net.parameters())

    def test_norms_are_those_of_the_states(self) -> None:
        net = network(Fragile)
        stream = data((20, 1))
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, stream, method=bptt.Full())
        chunk = next(stream.in_order()).chunk(0, 40)
        _, _, states = net.unfold_states(chunk.inputs)
        expected = states.detach().double().norm(dim=2)
        assert torch.allclose(caught.value.report.norms, expected, equal_nan=True)

    def test_a_loss_that_is_not_finite_names_its_lane(self) -> None:
        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).square() + torch.where(target == MARK, math.inf, 0.0)

        targets = torch.zeros(40, 3, 1)
        targets[22, 2] = MARK
        stream = bptt.Stream(torch.zeros(40, 3, 1), targets)
        with pytest.raises(bptt.NonFiniteError, match=r"loss inf .*lane\(s\) 2 from step 22 on"):
            fit(network(), stream, loss=loss)

    @pytest.mark.parametrize("name", ["cell.weight_hh", "readout.bias"])
    def test_the_parameter(self, name: str) -> None:
        net = network()
        parameter = dict(net.named_parameters())[name]
        calls = [0]

        def poison(gradient: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] == 5:
                gradient = gradient.clone()
                gradient.view(-1)[-1] = math.nan
            return gradient

        parameter.register_hook(poison)
        held: list[Tensor] = []
        with pytest.raises(bptt.NonFiniteError, match="gradient norm nan") as caught:
            fit(net, data(), callbacks=[keep(held)])
        assert caught.value.report.parameters == (name,)
        assert caught.value.report.what == "gradient"
        assert name in str(caught.value)
        assert len(held) == 4
        assert torch.equal(weights(net), held[-1])

    def test_lanes_without_states_of_their_own_fault_are_not_named(self) -> None:
        net = network()
        net.cell.weight_hh.register_hook(lambda gradient: gradient / 0)
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, data())
        assert caught.value.report.lanes == ()
        assert caught.value.report.step is None


class Exploding(torch.optim.SGD):
    """Writes a NaN into one weight at its third step, of finite gradients."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no result, as loops need none
        super().step(closure)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][1].view(-1)[0] = self.poison


class TestTheOptimizer:
    @pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
    def test_its_own_nan_never_stays_in_the_weights(self, poison: float) -> None:
        net = network()
        optimizer = Exploding(net.parameters(), 0.05)
        optimizer.poison = poison
        held: list[Tensor] = []
        with pytest.raises(bptt.NonFiniteError, match="the optimizer's step gives") as caught:
            fit(net, data(), optimizer=optimizer, callbacks=[keep(held)])
        assert caught.value.report.what == "weights"
        assert len(caught.value.report.parameters) == 1
        assert len(held) == 2
        assert torch.equal(weights(net), held[-1])

    def test_lbfgs(self) -> None:
        net = network()
        optimizer = torch.optim.LBFGS(net.parameters(), lr=1e30, max_iter=4)
        before = weights(net)
        with pytest.raises(bptt.NonFiniteError):
            fit(net, data(), method=bptt.Full(), optimizer=optimizer, epochs=9)
        assert torch.isfinite(weights(net)).all()
        assert before.shape == weights(net).shape

    def test_huge_weights_are_not_mistaken(self) -> None:
        net = network()
        with torch.no_grad():
            net.readout.bias.fill_(1e25)  # its square overflows float32
        huge = bptt.Stream(torch.zeros(12, 1, 1), torch.full((12, 1, 1), 1e25))
        fit(net, huge, loss=lambda p, t: (p / 1e25 - t / 1e25).square())

    def test_adam_without_epsilon(self) -> None:
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), eps=0.0)
        still = bptt.Stream(torch.zeros(12, 1, 1), torch.zeros(12, 1, 1))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        with pytest.raises(bptt.NonFiniteError, match="the optimizer's step"):
            fit(net, still, optimizer=optimizer)
        assert torch.equal(weights(net), torch.zeros_like(weights(net)))


class TestSkip:
    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    @pytest.mark.parametrize("method", ["carried", "recomputed", "stored"])
    def test_training_goes_on_and_the_lane_starts_anew(self, method: str, poison: float) -> None:
        net, held = network(lambda: Fragile(poison)), []
        with pytest.warns(bptt.NonFiniteWarning, match=r"lane\(s\) 1.*skipped"):
            history = fit(
                net,
                data((17, 1)),
                method=METHODS[method](),
                on_nonfinite="skip",
                callbacks=[keep(held)],
            )
        # Two windows hold step 17: one update each is withheld (three, where all are replayed).
        assert 1 <= history.epochs[0].withheld <= 3
        assert history.epochs[0].updates == len(held) == 13 - history.epochs[0].withheld
        assert all(torch.isfinite(one).all() for one in held)

    def test_after_the_skip_a_lane_is_as_if_it_began_there(self) -> None:
        """Carried: window i unfolds the steps 3i to 3i+5; step 17 lies in the windows 4 and 5."""
        seen: list[Any] = []
        net = network(Fragile)

        def watch(progress: bptt.Progress) -> None:
            assert progress.update is not None
            seen.append(progress.update)

        watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        still = torch.optim.SGD(net.parameters(), 0.0)
        with pytest.warns(bptt.NonFiniteWarning):
            fit(net, data((17, 1)), on_nonfinite="skip", callbacks=[watch], optimizer=still)
        after = next(update for update in seen if update.start == 18)
        chunk = next(data((17, 1)).in_order()).chunk(18, 24)
        _, alone = net.unfold(chunk.inputs)
        _, whole = net.unfold(next(data().in_order()).chunk(0, 24).inputs)
        assert torch.allclose(after.state[1], alone[1], rtol=0, atol=1e-7)
        assert torch.allclose(after.state[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-7)

    def test_the_limit(self) -> None:
        net = network(Fragile)
        marks = [(step, 0) for step in (3, 13, 23, 33)]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises(bptt.NonFiniteError, match=r"number 4 .* nonfinite_limit is 3"):
                fit(net, data(*marks), on_nonfinite="skip", nonfinite_limit=3)
        assert len([w for w in said if w.category is bptt.NonFiniteWarning]) == 3
        assert torch.isfinite(weights(net)).all()

    def test_an_optimizer_that_broke_forgets(self) -> None:
        net = network()
        optimizer = torch.optim.Adagrad(net.parameters(), 0.05)
        sums = optimizer.state[net.cell.weight_hh]["sum"]

        def break_it(progress: bptt.Progress) -> None:
            if progress.updates == 3:
                sums.fill_(-1.0)  # the next step takes its root

        break_it.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning, match="the optimizer's step"):
            history = fit(
                net, data(), optimizer=optimizer, on_nonfinite="skip", callbacks=[break_it]
            )
        assert torch.isfinite(weights(net)).all()
        assert history.epochs[0].withheld >= 1

    def test_an_optimizer_that_broke_once(self) -> None:
        net = network()
        optimizer = Exploding(net.parameters(), 0.05, momentum=0.5)
        optimizer.poison = math.nan
        with pytest.warns(bptt.NonFiniteWarning, match="the optimizer's step"):
            history = fit(net, data(), optimizer=optimizer, on_nonfinite="skip")
        assert torch.isfinite(weights(net)).all()
        assert history.epochs[0].withheld == 1

    def test_an_epoch_without_an_update(self) -> None:
        net = network(Fragile)
        before = weights(net)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(net, data((5, 0)), method=bptt.Full(), on_nonfinite="skip", epochs=3)
        assert [epoch.updates for epoch in history.epochs] == [0, 0, 0]
        assert all(math.isnan(loss) for loss in history.losses)
        assert torch.equal(weights(net), before)


class TestForwardMethods:
    """What they carry of the past is not finite either, and must not go on."""

    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    @pytest.mark.parametrize("policy", ["skip", "rollback"])
    @pytest.mark.parametrize("method", ONLINE)
    def test_training_goes_on(self, method: str, policy: str, poison: float) -> None:
        net, held = network(lambda: Fragile(poison)), []
        with pytest.warns(bptt.NonFiniteWarning, match=r"lane\(s\) 1 from step 17 on"):
            history = fit(
                net,
                data((17, 1)),
                method=ONLINE[method](),
                on_nonfinite=policy,
                callbacks=[keep(held)],
            )
        assert history.epochs[0].withheld == 1
        assert history.epochs[0].updates == len(held) == 13
        assert all(torch.isfinite(one).all() for one in held)

    def test_the_lane_begins_anew_and_the_others_know_their_past(self) -> None:
        """With the weights held, RTRL's gradient after the skip is that of full backpropagation
        from where each lane began."""
        found: dict[int, Tensor] = {}
        net = network(Fragile)

        def watch(update: bptt.Update, network: bptt.Network) -> None:
            found[update.start] = torch.cat([p.grad.flatten() for p in network.parameters()])

        stream = data((17, 1), steps=24)
        seeing(fit, watch, net, stream, method=bptt.RTRL(stride=3), on_nonfinite="skip")
        net.cell.armed = False
        chunk = next(data(steps=24).in_order()).chunk(0, 24)
        inputs, targets = chunk.inputs, chunk.targets
        total = torch.zeros(())
        for lane in range(3):
            start = 18 if lane == 1 else 0
            outputs, _ = net.unfold(inputs[start:, lane : lane + 1])
            wrong = net.read(outputs[-3:]) - targets[-3:, lane : lane + 1]
            total = total + wrong.square().sum() / 9
        net.zero_grad()
        total.backward()
        expected = torch.cat([p.grad.flatten() for p in net.parameters()])
        assert torch.allclose(found[21], expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("method", ONLINE)
    def test_an_influence_that_overflowed_begins_anew(self, method: str) -> None:
        """The states stay finite: the influence grows by the weights' norm at every step."""
        net, starts = network(Growing), []

        def watch(progress: bptt.Progress) -> None:
            assert progress.update is not None
            starts.append(progress.update.start)

        watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning, match="gradient norm"):
            history = fit(
                net,
                bptt.Stream(torch.zeros(80, 1, 1), torch.ones(80, 1, 1)),
                method=ONLINE[method](),
                on_nonfinite="skip",
                nonfinite_limit=20,
                optimizer=torch.optim.SGD(net.parameters(), 0.0),
                callbacks=[watch],
            )
        assert 2 <= history.epochs[0].withheld <= 16
        assert max(starts) > 60  # long after the first overflow

    @pytest.mark.parametrize("policy", ["skip", "rollback"])
    @pytest.mark.parametrize("method", ONLINE)
    def test_broken_after_it_and_mended(self, method: str, policy: str, tmp_path: Path) -> None:
        def run(folder: str, **options: Any) -> Tensor:
            net = network(Fragile)
            saving = bptt.Checkpoint(tmp_path / folder, every=1, share=math.inf)
            fit(
                net,
                data((17, 1)),
                method=ONLINE[method](),
                on_nonfinite=policy,
                checkpoint=saving,
                **options,
            )
            return weights(net)

        def die(progress: bptt.Progress) -> None:
            if progress.updates == 7:
                raise ZeroDivisionError

        die.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning):
            whole = run("whole")
        with pytest.warns(bptt.NonFiniteWarning), pytest.raises(ZeroDivisionError):
            run("broken", callbacks=[die])
        assert torch.equal(run("broken", resume=True), whole)


class Growing(nn.Module):
    """The state stays at zero; what it owes to the past grows a thousandfold at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size, self.input_size = 4, 1
        self.weight = nn.Parameter(torch.full((4,), 1000.0))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.weight * state + self.bias + 0.0 * input


def seeing(
    fit: Callable[..., Any], see: Callable[..., None], net: bptt.Network, *args: Any, **options: Any
) -> None:
    """Fit with weights held, and see every update before its gradient is cleared."""

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no result, as loops need none
            see(current[0], net)

    current: list[Any] = []
    method = options.pop("method")

    class Seen:
        state = None
        state_dict, load_state_dict = method.state_dict, method.load_state_dict

        def updates(self, *given: Any) -> Any:
            for update in method.updates(*given):
                current[:] = [update]
                yield update

    with pytest.warns(bptt.NonFiniteWarning):
        fit(net, *args, method=Seen(), optimizer=Watched(net.parameters(), 0.0), **options)


class TestRollback:
    def test_to_the_beginning_at_half_the_rate(self) -> None:
        net, held = network(Fragile), []
        before = weights(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        rates: list[float] = []

        def watch(progress: bptt.Progress) -> None:
            rates.append(progress.optimizer.param_groups[0]["lr"])

        watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning, match="rolled back, the learning rate halved"):
            fit(
                net,
                data((14, 1), steps=24),
                method=bptt.Truncated(6),
                optimizer=optimizer,
                on_nonfinite="rollback",
                callbacks=[keep(held), watch],
            )
        assert rates == [0.05, 0.05, 0.025]
        # The last window alone, from the beginning of the run and of the lanes.
        alone = network(Fragile)
        assert torch.equal(weights(alone), before)
        cut = next(data((14, 1), steps=24).in_order()).chunk(18, 24)
        fit(
            alone,
            bptt.Stream(cut.inputs, cut.targets),
            method=bptt.Truncated(6),
            optimizer=torch.optim.SGD(alone.parameters(), 0.025, momentum=0.9),
        )
        assert torch.allclose(weights(net), weights(alone), rtol=0, atol=1e-7)

    def test_it_returns_so_many_updates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_nonfinite, "EVERY", 4)
        net, held = network(Fragile), []
        stream = data((36, 1), steps=60)
        with pytest.warns(bptt.NonFiniteWarning):
            fit(
                net,
                stream,
                method=bptt.Truncated(3),
                optimizer=torch.optim.SGD(net.parameters(), 0.05),
                on_nonfinite="rollback",
                callbacks=[keep(held)],
            )
        # Twelve updates were made; copies were kept after 8 and 12, and the older one is taken.
        alone = network(Fragile)
        with torch.no_grad():
            position = 0
            for parameter in alone.parameters():
                count = parameter.numel()
                parameter.copy_(held[7][position : position + count].view_as(parameter))
                position += count
        cut = next(stream.in_order()).chunk(39, 42)
        fit(
            alone,
            bptt.Stream(cut.inputs, cut.targets),
            method=bptt.Truncated(3),
            optimizer=torch.optim.SGD(alone.parameters(), 0.025),
        )
        assert torch.allclose(held[12], weights(alone), rtol=0, atol=1e-7)

    def test_the_scheduler_goes_on_from_half(self) -> None:
        net = network(Fragile)
        optimizer = torch.optim.SGD(net.parameters(), 0.08)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(
                net,
                data((14, 1)),
                method=bptt.Truncated(10),
                optimizer=optimizer,
                scheduler=scheduler,
                on_nonfinite="rollback",
                epochs=3,
            )
        assert [epoch.learning_rate for epoch in history.epochs] == [0.08, 0.02, 0.005]

    def test_a_rate_too_high_is_found(self) -> None:
        """What stops with one learning rate goes through with less and less of it."""
        torch.manual_seed(0)
        stream = bptt.Stream(100 * torch.randn(300, 1, 1), 100 * torch.randn(300, 1, 1))

        def make() -> tuple[bptt.Network, Any]:
            net = network(lambda: bptt.cells.Elman(1, 4, nonlinearity="relu"))
            return net, torch.optim.SGD(net.parameters(), 1e-2)

        net, optimizer = make()
        with pytest.raises(bptt.NonFiniteError):
            fit(net, stream, optimizer=optimizer, epochs=3)
        net, optimizer = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bptt.NonFiniteWarning)
            options = {"on_nonfinite": "rollback", "nonfinite_limit": 60}
            history = fit(net, stream, optimizer=optimizer, epochs=3, **options)
        assert history.stop_reason == "3 epochs done"
        assert torch.isfinite(weights(net)).all()


class TestResuming:
    @pytest.mark.parametrize("policy", ["skip", "rollback"])
    @pytest.mark.parametrize("method", ["carried", "recomputed", "stored"])
    def test_broken_and_mended_it_is_as_never_broken(
        self, method: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_nonfinite, "EVERY", 4)

        class Died(Exception):
            pass

        def run(die: int | None = None, **more: Any) -> tuple[Tensor, Any]:
            net = network(Fragile)

            def callback(progress: bptt.Progress) -> None:
                if progress.updates == die:
                    raise Died

            callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
            history = fit(
                net,
                data((17, 1), (31, 0)),
                method=METHODS[method](),
                epochs=2,
                on_nonfinite=policy,
                nonfinite_limit=50,
                callbacks=[callback],
                optimizer=torch.optim.Adam(net.parameters(), 0.01),
                **more,
            )
            epochs = [(e.loss, e.withheld, e.updates, e.learning_rate) for e in history.epochs]
            return weights(net), epochs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bptt.NonFiniteWarning)
            expected, epochs = run()
            assert sum(e[1] for e in epochs) > 2
            for die in (2, 5, 9):
                saving = bptt.Checkpoint(tmp_path / f"{die}", every=1, share=math.inf)
                with pytest.raises(Died):
                    run(die, checkpoint=saving)
                found, again = run(checkpoint=saving, resume=True)
                assert torch.equal(found, expected)
                assert again == epochs

    def test_a_run_that_stopped_goes_on_with_another_policy(self, tmp_path: Path) -> None:
        stream = data((17, 1))
        with pytest.raises(bptt.NonFiniteError):
            fit(network(Fragile), stream, checkpoint=tmp_path)
        net = network(Fragile)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(net, stream, checkpoint=tmp_path, resume=True, on_nonfinite="skip")
        assert history.epochs[0].withheld


class TestClipping:
    def test_by_value_every_number_is_bounded(self) -> None:
        net = network()
        before = weights(net)
        optimizer = torch.optim.SGD(net.parameters(), 1.0)
        fit(net, data(), method=bptt.Full(), clip_value=1e-3, optimizer=optimizer)
        moved = (weights(net) - before).abs()
        assert float(moved.max()) <= 1e-3 * (1 + 1e-3)
        assert int((moved > 0.9e-3).sum()) > 1

    def test_an_infinite_gradient_is_not_clipped_but_withheld(self) -> None:
        net = network()
        net.cell.weight_hh.register_hook(lambda gradient: gradient / 0)
        before = weights(net)
        with pytest.raises(bptt.NonFiniteError):
            fit(net, data(), clip_value=1.0)
        assert torch.equal(weights(net), before)

    def test_the_history_has_the_norm_before(self) -> None:
        plain, clipped = network(), network()
        none = torch.optim.SGD(plain.parameters(), 0.0)
        also = torch.optim.SGD(clipped.parameters(), 0.0)
        one = fit(plain, data(), optimizer=none)
        two = fit(clipped, data(), optimizer=also, clip_value=1e-4)
        assert one.epochs[0].gradient_norm == two.epochs[0].gradient_norm

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"clip": 1.0, "clip_value": 1.0}, "not both"),
            ({"clip_value": 0.0}, "clip_value must be above 0"),
            ({"clip_value": math.nan}, "clip_value must be above 0"),
            ({"clip_value": 1.0, "optimizer": torch.optim.LBFGS}, "clip_value does not go with"),
            ({"on_nonfinite": "ignore"}, "on_nonfinite='ignore' is unknown"),
            ({"nonfinite_limit": 0}, "nonfinite_limit must be at least 1"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(bptt.OptionError, match=message):
            fit(network(), data(), **options)


def test_gradients_that_no_optimizer_holds_do_not_pile_up() -> None:
    """The norm is that of one update, also where the optimizer trains but a part."""
    net = network()
    norms = []

    def watch(progress: bptt.Progress) -> None:
        norms.append(progress.gradient_norm)

    watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
    still = torch.optim.SGD(net.readout.parameters(), 0.0)
    fit(net, data(), method=bptt.Full(), optimizer=still, epochs=3, callbacks=[watch])
    assert norms[0] == norms[1] == norms[2]
