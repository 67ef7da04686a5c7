"""What happens at an update that is not finite: where it is told, and how training goes on."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bptt.errors import NonFiniteError, at_least, one_of
from bptt.gradients import GradientMethod, Update
from bptt.gradients._resume import mended
from bptt.gradients._window import Inspection
from bptt.network import Network
from bptt.state import leaves
from bptt.training._history import Progress

POLICIES = ("stop", "skip", "rollback")

EVERY = 100
"""Updates between two copies that a rollback may return to."""


MEND = "A smaller learning rate, clip=1.0, or scaled data usually mend it."


class NonFiniteWarning(RuntimeWarning):
    """An update that was not finite was withheld, and training goes on."""


@dataclass(frozen=True)
class NonFiniteReport:
    """An update that was not finite.

    Attributes:
        what: ``"loss"``, ``"gradient"``, or ``"weights"`` where the optimizer itself would have
            made them so.
        epoch, update: the numbers that it would have had, from 1.
        start, stop, batch: the window, as of `bptt.Update`.
        loss, gradient_norm: the norm is before clipping.
        parameters: the names of those whose gradient (or new value) is not finite.
        lanes: those with a state or a loss that is not finite.
        step: the first step of the window with one, or None.
        norms: float64 [time, lane], the Euclidean norm of the state after each step of the
            window; None where the method cannot tell.
    """

    what: Literal["loss", "gradient", "weights"]
    epoch: int
    update: int
    start: int
    stop: int
    batch: int
    loss: float
    gradient_norm: float
    parameters: tuple[str, ...]
    lanes: tuple[int, ...]
    step: int | None
    norms: Tensor | None = field(repr=False, compare=False)

    def __str__(self) -> str:
        what = {
            "loss": f"loss {self.loss}",
            "gradient": f"gradient norm {self.gradient_norm}",
            "weights": "the optimizer's step gives weights that are not finite",
        }[self.what]
        told = (
            f"{what} in epoch {self.epoch}, update {self.update}, steps {self.start} to "
            f"{self.stop - 1} of batch {self.batch}"
        )
        if self.lanes:
            told += f", lane(s) {_some(self.lanes)}"
            if self.step is not None:
                told += f" from step {self.step} on"
        if self.parameters:
            told += f"; not finite: {_some(self.parameters)}"
        return f"{told}. {_along(self)}The update was withheld. {MEND}"


def report(
    what: Literal["loss", "gradient", "weights"],
    update: Update,
    norm: float,
    parameters: tuple[str, ...],
    progress: Progress,
) -> NonFiniteReport:
    """Look at the window of a withheld update again, with the weights that it had."""
    seen = None if update.inspect is None else update.inspect()
    lanes, step = _places(update, seen)
    return NonFiniteReport(
        what,
        progress.epoch,
        progress.updates + 1,
        update.start,
        update.stop,
        update.batch,
        update.loss,
        norm,
        parameters,
        lanes,
        step,
        None if seen is None else seen.norms.cpu(),
    )


def _places(update: Update, seen: Inspection | None) -> tuple[tuple[int, ...], int | None]:
    """The lanes where something is not finite, and the first step."""
    if seen is not None:
        bad = ~(torch.isfinite(seen.norms) & torch.isfinite(seen.losses))
        if bool(bad.any()):
            lanes = bad.any(dim=0).nonzero().flatten().tolist()
            return tuple(lanes), update.start + int(bad.any(dim=1).nonzero()[0])
    bad = torch.stack([(~torch.isfinite(x.flatten(1))).any(dim=1) for x in leaves(update.state)])
    return tuple(bad.any(dim=0).nonzero().flatten().tolist()), None


def _along(report: NonFiniteReport) -> str:
    """The state's norm at a few steps of the window, of the worst lane."""
    if report.norms is None or not report.norms.numel():
        return ""
    order = torch.nan_to_num(report.norms, nan=torch.inf, posinf=torch.inf)
    lane = report.lanes[0] if report.lanes else int(order.max(dim=0).values.argmax())
    steps = len(order)
    last = steps - 1 if report.step is None else report.step - report.start
    shown = sorted({round(last * i / 4) for i in range(5)})
    along = ", ".join(f"{report.start + t}: {report.norms[t, lane]:.3g}" for t in shown)
    return f"Norm of the state by step, lane {lane}: {along}. "


def _some(names: tuple[Any, ...]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(str, names[:4])) + more


Copy = dict[str, Any]


@dataclass
class Recovery:
    """How training goes on after an update was withheld.

    Args:
        policy: ``"stop"``; ``"skip"`` it: lanes whose state is not finite return to the initial
            state; or ``"rollback"``: weights and optimizer return to where they stood `EVERY` to
            twice as many updates before (or at the beginning), the learning rate is halved, all
            lanes return to the initial state, and the pass goes on with the next window.
        limit: withheld updates of a run beyond which training stops.

    Raises:
        OptionError: an option is unknown or out of range.
    """

    policy: str
    limit: int
    network: Network
    optimizer: torch.optim.Optimizer
    scheduler: Any = None
    withheld: int = 0
    _copies: list[Copy] = field(default_factory=list)
    _first: dict[Tensor, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        one_of(POLICIES, on_nonfinite=self.policy)
        at_least(1, nonfinite_limit=self.limit)
        if self.policy != "stop":
            self._first = {p: copy.deepcopy(s) for p, s in self.optimizer.state.items()}

    def begin(self) -> None:
        """Training begins: here is where a first rollback returns to."""
        if self.policy == "rollback" and not self._copies:
            self._copies = [self._copy()]

    def note(self, updates: int) -> None:
        """So many updates are made."""
        if self.policy == "rollback" and updates % EVERY == 0:
            self._copies = [self._copies[-1], self._copy()]

    def handle(self, error: NonFiniteError, method: GradientMethod) -> None:
        """Go on after a withheld update, by the policy.

        Raises:
            NonFiniteError: the policy is to stop, or there were too many.
        """
        if self.policy == "stop":
            raise error
        self.withheld += 1
        if self.withheld > self.limit:
            message = (
                f"{error} It is number {self.withheld} that was withheld in this run, and "
                f"nonfinite_limit is {self.limit}."
            )
            last = NonFiniteError(message)
            last.report = error.report
            raise last from error
        if self.policy == "rollback":
            self._return()
        else:
            self._cleanse()
        self._mend(method)
        how = "skipped" if self.policy == "skip" else "rolled back, the learning rate halved"
        warnings.warn(f"{error} ({how})", NonFiniteWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"withheld": self.withheld, "copies": self._copies}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``saved`` was taken."""
        self.withheld = saved["withheld"]
        if self.policy == "rollback":
            self._copies = saved["copies"]

    def _copy(self) -> Copy:
        weights = {name: value.detach().clone() for name, value in _all(self.network).items()}
        return {"weights": weights, "optimizer": copy.deepcopy(self.optimizer.state_dict())}

    @torch.no_grad()
    def _return(self) -> None:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        older = self._copies[0]
        self._copies = [older]
        for name, value in _all(self.network).items():
            value.copy_(older["weights"][name])
        self.optimizer.load_state_dict(copy.deepcopy(older["optimizer"]))
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate / 2
            if "initial_lr" in group:
                group["initial_lr"] /= 2
        if hasattr(self.scheduler, "base_lrs"):
            self.scheduler.base_lrs = [rate / 2 for rate in self.scheduler.base_lrs]

    def _cleanse(self) -> None:
        """What the optimizer remembers of a parameter begins anew where it is not finite."""
        for parameter, state in list(self.optimizer.state.items()):
            if not _finite(state):
                self.optimizer.state[parameter] = copy.deepcopy(self._first.get(parameter, {}))

    def _mend(self, method: GradientMethod) -> None:
        if not (hasattr(method, "state_dict") and hasattr(method, "load_state_dict")):
            return
        saved = method.state_dict()
        if not isinstance(saved, dict) or saved.get("pass") is None:
            return
        like = next(self.network.parameters())
        method.load_state_dict(
            mended(
                saved,
                lambda lanes: self.network.initial_state(lanes, like=like),
                every=self.policy == "rollback",
            )
        )


def _all(network: Network) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or value - value == 0
