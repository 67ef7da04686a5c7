"""A module as a function of its parameters.

`torch.func.functional_call` leaves other weights behind in a module that is used in two places (its
tensors are swapped twice and put back in the wrong order), which a stack of one cell is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

Parameters = dict[str, Tensor]


class Substitute:
    """``module`` with other tensors in place of its trained parameters.

    Attributes:
        names: of the trained parameters, each once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        trained = {id(p): n for n, p in module.named_parameters() if p.requires_grad}
        self.names = list(trained.values())
        self._slots = [
            (part._parameters, slot, trained[id(parameter)])
            for part in module.modules()
            for slot, parameter in part._parameters.items()
            if id(parameter) in trained
        ]

    def present(self) -> Parameters:
        """The module's own parameters, as they are now."""
        own = dict(self.module.named_parameters())
        return {name: own[name] for name in self.names}

    def __call__(self, parameters: Parameters, *arguments: Any) -> Any:
        """``module(*arguments)`` with ``parameters``."""
        own = [where[slot] for where, slot, _ in self._slots]
        try:
            for where, slot, name in self._slots:
                where[slot] = parameters[name]  # type: ignore[assignment]  # for this call alone
            return self.module(*arguments)
        finally:
            for (where, slot, _), parameter in zip(self._slots, own, strict=True):
                where[slot] = parameter
