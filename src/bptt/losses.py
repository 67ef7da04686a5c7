"""The loss of a step: what each step and lane costs, before anything is averaged over time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from bptt.errors import CellError, OptionError, ShapeError, nearest

Loss = str | Callable[[Tensor, Tensor], Tensor]
"""A name of `NAMES`, or ``(prediction, target) -> [steps, lanes]`` or ``[steps, lanes, features]``,
unreduced."""

StepLoss = Callable[[Tensor, Tensor], Tensor]
"""``(prediction, target) -> [steps, lanes]``."""


def step_loss(loss: Loss) -> StepLoss:
    """The function [steps, lanes] behind a loss's name or a user's own function.

    ``"mse"`` is the mean over features of e² (no ½), ``"mae"`` of \\|e\\|, ``"huber"`` of Huber's
    loss with δ = 1; ``"cross_entropy"`` takes scores [steps, lanes, classes] and class indices
    [steps, lanes] (or shares [steps, lanes, classes]). A function of the user's own is averaged
    over its features, if it has them.

    Raises:
        OptionError: the name is unknown, or ``loss`` is neither a name nor callable.
    """
    if callable(loss):
        return lambda prediction, target: _own(loss, prediction, target)
    if not isinstance(loss, str):
        raise OptionError(f"loss must be a name or a function, not a {type(loss).__name__}.")
    if loss not in _ALL:
        raise OptionError(f"loss={loss!r} is unknown.{nearest(loss, list(_ALL))}")
    return _ALL[loss]


def _elementwise(function: Callable[[Tensor, Tensor], Tensor]) -> StepLoss:
    def of_step(prediction: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            raise ShapeError(
                f"targets are {target.dtype}, class indices for loss='cross_entropy'; a loss of "
                "differences needs floating targets."
            )
        if prediction.shape != target.shape:
            # Broadcasting would silently compare every prediction with every target.
            raise ShapeError(
                f"predictions have {list(prediction.shape[2:])} features per step, targets "
                f"{list(target.shape[2:])}: the readout must give what the targets hold."
            )
        return function(prediction, target).flatten(2).mean(dim=2)

    return of_step


def _cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.dim() != 3:
        raise ShapeError(
            f"cross_entropy needs scores [steps, lanes, classes], not {list(prediction.shape)}."
        )
    if target.is_floating_point():
        if target.shape != prediction.shape:
            raise ShapeError(
                "cross_entropy needs integer class indices [time], or floating shares of each "
                f"class, {list(prediction.shape)}; the targets are {list(target.shape)} of "
                f"{target.dtype}."
            )
    elif target.numel() and not 0 <= int(target.min()) <= int(target.max()) < prediction.shape[2]:
        raise ShapeError(
            f"class indices run from {int(target.min())} to {int(target.max())}, but the readout "
            f"scores {prediction.shape[2]} classes, 0 to {prediction.shape[2] - 1}."
        )
    flat = functional.cross_entropy(
        prediction.flatten(0, 1), target.flatten(0, 1), reduction="none"
    )
    return flat.reshape(prediction.shape[:2])


def _own(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    values = loss(prediction, target)
    lead = tuple(prediction.shape[:2])
    if not isinstance(values, Tensor) or values.dim() < 2 or tuple(values.shape[:2]) != lead:
        given = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise CellError(
            f"the loss returned {given}; it must return one value per step and lane, {list(lead)} "
            "(or per feature as well), unreduced: with torch's own losses, reduction='none'."
        )
    return values if values.dim() == 2 else values.flatten(2).mean(dim=2)


_ALL: dict[str, StepLoss] = {
    "mse": _elementwise(lambda p, t: (p - t).square()),
    "mae": _elementwise(lambda p, t: (p - t).abs()),
    "huber": _elementwise(lambda p, t: functional.huber_loss(p, t, reduction="none")),
    "cross_entropy": _cross_entropy,
}

NAMES = tuple(_ALL)
"""The losses that have a name."""


def cost(
    loss: StepLoss, read: Callable[[Tensor], Tensor], outputs: Tensor, targets: Tensor, mask: Tensor
) -> Tensor:
    """The summed loss of the steps that ``mask`` [time, lane] counts, a scalar.

    What is not counted is left out by selecting: it never reaches the readout or the loss, so its
    targets may be NaN.
    """
    if not bool(mask.all()):
        steps = _stretch(mask)
        if steps is not None:
            outputs, targets = outputs[steps], targets[steps]
        else:
            outputs, targets = outputs[mask].unsqueeze(1), targets[mask].unsqueeze(1)
    prediction = read(outputs)
    if not isinstance(prediction, Tensor) or prediction.shape[:2] != outputs.shape[:2]:
        given = (
            list(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
        )
        raise CellError(
            f"the readout was given {list(outputs.shape)} and returned {given}: it must treat "
            "every step and lane alone and keep these two dimensions."
        )
    return loss(prediction, targets).sum()


def _stretch(mask: Tensor) -> slice | None:
    """The steps that a mask counts, if they follow one another with all of their lanes, as before
    a horizon or after a burn-in: then nothing need be copied."""
    counted = mask.any(dim=1).nonzero()
    if not len(counted):
        return slice(0, 0)
    steps = slice(int(counted[0]), int(counted[-1]) + 1)
    return steps if bool(mask[steps].all()) else None
