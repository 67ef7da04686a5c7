"""An optimizer as the native loop applies it: hyperparameters, and state in its own tensors.

The tensors are those of ``optimizer.state``, changed in place; what PyTorch would make at the first
update is made here and handed over once an update has filled it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim import optimizer as torch_optimizer

from bptt.engine.online.learner import Learner

_STATES = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "rmsprop": ("square_avg", "momentum_buffer", "grad_avg"),
}
_NONE = {
    "rate": 0.0,
    "decay": 0.0,
    "momentum": 0.0,
    "dampening": 0.0,
    "beta1": 0.0,
    "beta2": 0.0,
    "epsilon": 0.0,
    "nesterov": False,
    "maximize": False,
    "decoupled": False,
    "fresh": False,
}


def why_not(optimizer: Optimizer, trained: Iterable[Tensor]) -> str | None:
    """Why the native loop cannot apply this optimizer to these parameters; None if it can."""
    name = type(optimizer).__name__
    if type(optimizer) not in (SGD, Adam, AdamW, RMSprop):
        return f"the optimizer is {name}, not SGD, Adam, AdamW or RMSprop"
    step = optimizer.__dict__.get("step")
    if step is not None and not hasattr(step, "_wrapped_by_lr_sched"):
        return f"the {name}'s step was replaced"
    hooks = (f"_optimizer_step_{when}_hooks" for when in ("pre", "post"))
    if any(optimizer.__dict__.get(h) for h in hooks) or any(for_all_optimizers()):
        return f"the {name} has hooks"
    for group in optimizer.param_groups:
        if any(group.get(flag) for flag in ("capturable", "differentiable")):
            return f"the {name} is capturable or differentiable"
        if not float(group["lr"]) <= 1e3:
            return f"the learning rate is {float(group['lr']):g}"
    held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    own = {id(p) for p in trained}
    if held != own:
        return f"the {name} holds other parameters than those of the network that are trained"
    return None


def for_all_optimizers() -> list[Any]:
    """The tables of hooks that every optimizer calls."""
    names = (f"_global_optimizer_{when}_hooks" for when in ("pre", "post"))
    return [vars(torch_optimizer)[name] for name in names if name in vars(torch_optimizer)]


def hooked(parameter: Tensor) -> bool:
    """Whether something of the user's is called with a parameter's gradient."""
    after = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return bool(parameter._backward_hooks or after)


class Slots:
    """What the core is told of an optimizer, and the tensors that it works on.

    Attributes:
        told: of every trained parameter, as `bptt._core.Learner.configure` takes it.
        waiting: state that no update has filled yet.
    """

    def __init__(self, optimizer: Optimizer, learner: Learner) -> None:
        self._optimizer = optimizer
        self.waiting: list[tuple[Tensor, str, Tensor, int]] = []
        self.told: list[dict[str, Any]] = []
        numbers = {id(t): i for i, t in enumerate(learner.tensors)}
        for group in optimizer.param_groups:
            options = _options(type(optimizer), group)
            for parameter in group["params"]:
                number = numbers.get(id(parameter))
                if number is None or number not in learner.gradients:
                    continue  # no gradient ever reaches it: PyTorch skips it as well
                self.told.append(
                    {
                        "source": number,
                        "gradient": learner.gradients[number],
                        "learned_initial": number in learner.learned_initial,
                        **options,
                        **self._state(parameter, options, group),
                    }
                )

    def _state(
        self, parameter: Tensor, options: dict[str, Any], group: dict[str, Any]
    ) -> dict[str, Any]:
        state = self._optimizer.state.get(parameter, {})
        place = len(self.told)
        kind = options["kind"]
        used = {
            "sgd": (group.get("momentum", 0) != 0,),
            "adam": (True, True, group.get("amsgrad", False)),
            "rmsprop": (True, group.get("momentum", 0) > 0, group.get("centered", False)),
        }[kind]
        found: list[Tensor | None] = []
        for name, needed in zip(_STATES[kind], used, strict=True):
            held = state.get(name) if needed else None
            if needed and held is None:
                held = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                self.waiting.append((parameter, name, held, place))
            found.append(held)
        told: dict[str, Any] = {"state": found, "count": None, "count_is_double": False}
        if kind == "sgd":
            told["fresh"] = used[0] and state.get("momentum_buffer") is None
            return told
        count = state.get("step")
        if count is None:
            count = torch.tensor(0.0, dtype=_scalar_dtype())
            self.waiting.insert(
                len(self.waiting) - sum(w[3] == place for w in self.waiting),
                (parameter, "step", count, place),
            )
        told["count"] = count
        told["count_is_double"] = count.dtype is torch.float64
        return told

    def hand_over(self, fresh: list[bool]) -> None:
        """Give the optimizer the state that updates have filled; ``fresh`` is what the core says
        of each slot."""
        left = []
        for parameter, name, tensor, place in self.waiting:
            told = self.told[place]
            used = not fresh[place] if told["kind"] == "sgd" else bool(told["count"] > 0)
            if used:
                self._optimizer.state[parameter][name] = tensor
            else:
                left.append((parameter, name, tensor, place))
        self.waiting = left


def _scalar_dtype() -> torch.dtype:
    """Of Adam's step counter, as PyTorch makes it."""
    double = torch.get_default_dtype() is torch.float64
    return torch.float64 if double else torch.float32


def _options(kind: type[Optimizer], group: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        **_NONE,
        "rate": float(group["lr"]),
        "decay": float(group["weight_decay"]),
        "maximize": bool(group.get("maximize", False)),
    }
    if kind is SGD:
        told |= {
            "kind": "sgd",
            "momentum": float(group["momentum"]),
            "dampening": float(group["dampening"]),
            "nesterov": bool(group["nesterov"]),
        }
    elif kind is RMSprop:
        told |= {
            "kind": "rmsprop",
            "momentum": float(group["momentum"]),
            "beta1": float(group["alpha"]),
            "epsilon": float(group["eps"]),
        }
    else:
        told |= {
            "kind": "adam",
            "beta1": float(group["betas"][0]),
            "beta2": float(group["betas"][1]),
            "epsilon": float(group["eps"]),
            "decoupled": kind is AdamW or bool(group.get("decoupled_weight_decay", False)),
        }
    return told
