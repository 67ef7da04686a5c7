"""What forward methods carry of the past begins anew where it is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .fragile import ONLINE, Fragile, data, fit, keep, network, weights


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
