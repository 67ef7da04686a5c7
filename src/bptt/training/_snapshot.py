"""All that the rest of a run depends on: taken from a run into a checkpoint, and given back."""

from __future__ import annotations

import platform
import random
import warnings
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import BpttError, CheckpointError, DataError, OptionError
from bptt.gradients import Update
from bptt.optimize import Solver
from bptt.segments import accelerator, accelerator_draws, set_accelerator_draws
from bptt.training._history import Epoch
from bptt.training._tally import Tally

if TYPE_CHECKING:
    from bptt.training._loop import Loop


def check_savable(loop: Loop) -> None:
    """Refuse parts that cannot be saved, before any work.

    Raises:
        OptionError: a part has no ``state_dict`` and ``load_state_dict``.
    """
    for name, part in (("gradient method", loop.method), ("scheduler", loop.scheduler)):
        if part is not None and not _savable(part):
            raise OptionError(
                f"the {name} {type(part).__name__} has no state_dict and load_state_dict, so that "
                "training with it cannot be saved: give it both, or leave checkpoint= out."
            )
    optimizer = loop.stepper.optimizer
    if isinstance(optimizer, Solver) and not optimizer.method.savable:
        raise OptionError(
            f"{type(optimizer.method).__name__} remembers more than can be saved: leave "
            "checkpoint= out, or choose another optimizer."
        )


def take(loop: Loop) -> dict[str, Any]:
    """Everything of a run between two updates, or between two epochs."""
    progress, best = loop.progress, loop.best
    return {
        "options": _options(loop),
        "data": loop.fingerprint,
        "versions": versions(),
        "network": _weights(loop.network),
        "optimizer": loop.stepper.optimizer.state_dict(),
        "scheduler": None if loop.scheduler is None else loop.scheduler.state_dict(),
        "method": loop.method.state_dict(),  # type: ignore[attr-defined]  # check_savable
        "stream": loop.train.state_dict(),
        "random": random_state(),
        "recovery": loop.recovery.state_dict(),
        "criteria": [criterion.state_dict() for criterion in loop.criteria],
        "callbacks": [_state(callback) for callback in loop.callbacks],
        # Why a run ended is found out again: it may go on with other limits.
        "history": {
            "epochs": [list(astuple(epoch)) for epoch in loop.history.epochs],
            "initial_validation": loop.history.initial_validation,
        },
        "progress": {
            "epoch": progress.epoch,
            "updates": progress.updates,
            "elapsed": progress.elapsed,
            "gradient_norm": progress.gradient_norm,
            "update": _plain(progress.update),
        },
        "tally": None if loop.tally is None else asdict(loop.tally),
        "best": {"loss": best.loss, "epoch": best.epoch, "weights": best.weights},
    }


def about(loop: Loop) -> dict[str, Any]:
    """Where a run stands, for those who look at a checkpoint."""
    progress = loop.progress
    return {"bptt": versions()["bptt"], "epoch": progress.epoch, "updates": progress.updates}


def give(loop: Loop, state: dict[str, Any], force: bool) -> None:
    """Put a run where ``state`` was taken.

    Args:
        loop: made with the same options, over the same data.
        state: from `take`.
        force: take changed data.

    Raises:
        OptionError: the run has other options.
        DataError: the data are others, and ``force`` is not given.
        CheckpointError: the state does not fit the run.
    """
    try:
        _check(loop, state, force)
        _load(loop, state)
    except BpttError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise CheckpointError(
            f"the checkpoint does not fit this run: {type(error).__name__}: {error}."
        ) from error


def versions() -> dict[str, str]:
    """Of what decides the bits."""
    from bptt import __version__

    return {
        "bptt": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def random_state() -> dict[str, Any]:
    """Of PyTorch's, Python's and NumPy's generators."""
    kind, words, *place = np.random.get_state()
    version, numbers, spare = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "accelerator": accelerator(),
        "cuda": accelerator_draws(),  # or of another kind: older checkpoints know this name
        "python": [version, torch.tensor(numbers), spare],
        "numpy": [kind, torch.tensor(np.asarray(words, dtype=np.int64)), *place],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state.get("accelerator", "cuda") == accelerator():
        set_accelerator_draws(state["cuda"])
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers.tolist()), spare))
    kind, words, *place = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *place))


def _options(loop: Loop) -> dict[str, Any]:
    """What must be the same in the run that goes on, by the names that users give."""
    stepper = loop.stepper
    loss = loop.loss
    return {
        "loss": loss if isinstance(loss, str) else getattr(loss, "__qualname__", "a function"),
        "optimizer": type(stepper.optimizer).__name__,
        **_made_with(stepper.optimizer),
        "scheduler": None if loop.scheduler is None else type(loop.scheduler).__name__,
        "seed": loop.seed,
        "start": None if loop.saver is None else loop.saver.checkpoint.start,
        "clip": stepper.clip,
        "clip_value": stepper.clip_value,
        "clip_state_gradient": loop.network.clip_state_gradient,
        "validation": loop.judge is not None,
        "stop": [type(criterion).__name__ for criterion in loop.criteria],
    }


def _made_with(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """What an optimizer was made with; schedulers leave that as it is."""
    plain = (type(None), bool, int, float, str, tuple, Tensor)
    made = {name: v for name, v in optimizer.defaults.items() if isinstance(v, plain)}
    return {f"the optimizer's {name}": repr(value) for name, value in made.items()}


def _check(loop: Loop, state: dict[str, Any], force: bool) -> None:
    for name, here in _options(loop).items():
        saved = state["options"].get(name, here)  # another PyTorch may know more of an optimizer's
        if saved != here:
            raise OptionError(
                f"the run was saved with {name}={saved!r}, this one has {here!r}: go on with the "
                "same options, or begin a new run in another folder."
            )
    if state["data"] != loop.fingerprint and not force:
        changed = [
            part
            for part in {**loop.fingerprint, **state["data"]}
            if state["data"].get(part) != loop.fingerprint.get(part)
        ]
        raise DataError(
            f"the {' and '.join(changed)} data changed since the checkpoint: what follows would "
            "not be the run that was begun. Bring the old data back, or take the new ones with "
            "resume='force' (on the command line --force)."
        )
    others = {name: old for name, old in state["versions"].items() if versions().get(name) != old}
    if others:
        old = ", ".join(f"{name} {version}" for name, version in others.items())
        warnings.warn(
            f"the run was saved under {old}; here it may go on with other roundings.", stacklevel=6
        )
    wanted, found = _weights(loop.network), state["network"]
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [_shape(weights.get(name)) for weights in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the checkpoint does not fit the network: {name} is {shapes[0]} in it and "
                f"{shapes[1]} in the network."
            )


def _load(loop: Loop, state: dict[str, Any]) -> None:
    device = next(loop.network.parameters()).device
    loop.method.load_state_dict(_moved(state["method"], device))  # type: ignore[attr-defined]  # check_savable
    loop.train.load_state_dict(state["stream"])
    _set_weights(loop.network, state["network"])
    loop.stepper.optimizer.load_state_dict(state["optimizer"])
    if loop.scheduler is not None:
        loop.scheduler.load_state_dict(state["scheduler"])
    loop.recovery.load_state_dict(state["recovery"])
    for criterion, saved in zip(loop.criteria, state["criteria"], strict=True):
        criterion.load_state_dict(saved)
    for callback, saved in zip(loop.callbacks, state["callbacks"], strict=False):
        if _savable(callback) and saved is not None:
            callback.load_state_dict(saved)  # type: ignore[attr-defined]  # looked for just now
    loop.history.epochs[:] = [_epoch(one) for one in state["history"]["epochs"]]
    loop.history.initial_validation = state["history"]["initial_validation"]
    progress = _whole_progress(state)
    loop.progress.update = _update(_moved(progress["update"], device))
    loop.progress.epoch, loop.progress.updates = int(progress["epoch"]), int(progress["updates"])
    loop.progress.elapsed = float(progress["elapsed"])
    loop.progress.gradient_norm = float(progress["gradient_norm"])
    loop.tally = None if state["tally"] is None else Tally(**_numbers(state["tally"]))
    best = state["best"]
    loop.best.loss, loop.best.epoch, loop.best.weights = (
        best["loss"],
        best["epoch"],
        best["weights"],
    )
    set_random_state(state["random"])


def _weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that ``state_dict`` leaves out."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


@torch.no_grad()
def _set_weights(network: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    for name, tensor in _weights(network).items():
        tensor.copy_(weights[name])


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if not isinstance(value, (int, float)):
            raise TypeError(f"{name} is {value!r:.80}, no number")
    return values


def _whole_progress(state: dict[str, Any]) -> dict[str, Any]:
    """Where the run stood, if that agrees with its history: else it might never end."""
    progress: dict[str, Any] = state["progress"]
    epochs = len(state["history"]["epochs"]) + (state["tally"] is not None)
    if progress["epoch"] != epochs or not progress["updates"] >= 0 <= progress["elapsed"]:
        raise ValueError(
            f"epoch {progress['epoch']!r:.80} after {progress['updates']!r:.80} updates and "
            f"{progress['elapsed']!r:.80} seconds is not where {epochs} epoch(s) lead"
        )
    return progress


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype)[6:]}{list(tensor.shape)}"


def _epoch(values: list[Any]) -> Epoch:
    epoch = Epoch(*values)
    plain = {name: value for name, value in asdict(epoch).items() if name != "validation"}
    _numbers(plain if epoch.validation is None else {**plain, "validation": epoch.validation})
    return epoch


def _moved(value: Any, device: torch.device) -> Any:
    """The same with its tensors on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(one, device) for one in value)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return value


def _plain(update: Update | None) -> dict[str, Any] | None:
    if update is None:
        return None
    names = ("loss", "count", "start", "stop", "batch", "state")
    return {name: getattr(update, name) for name in names}


def _update(plain: dict[str, Any] | None) -> Update | None:
    return None if plain is None else Update(**plain, closure=_gone)


def _gone() -> Tensor:
    raise BpttError("this update was made before training was resumed: its window is gone.")


def _state(part: Any) -> Any:
    return part.state_dict() if _savable(part) else None


def _savable(part: object) -> bool:
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
