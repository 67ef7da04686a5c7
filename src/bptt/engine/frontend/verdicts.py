"""Why a cell cannot be captured, and until when."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import ref

from torch import nn

from bptt.engine.frontend.guards import hooks_of
from bptt.engine.unsupported import Unsupported


class Verdict(NamedTuple):
    """Why a cell cannot be captured, and whether its hooks are the reason.

    An error that was raised would keep alive what stood on its way, the cell among it.
    """

    reason: Unsupported
    hooked: bool = False

    def holds(self, cell: nn.Module) -> bool:
        """Whether it is still the reason."""
        return not self.hooked or any(hooks_of(cell))


class Refused(NamedTuple):
    """A verdict, and the calls that it is of."""

    kind: Any
    modules: list[ref[nn.Module]]
    modes: list[bool]
    verdict: Verdict

    @classmethod
    def of(cls, cell: nn.Module, kind: Any, verdict: Verdict) -> Refused:
        """A verdict of calls like this."""
        modules = list(nn.Module.modules(cell))
        modes = [module.training for module in modules]
        return cls(kind, [ref(module) for module in modules], modes, verdict)

    def holds(self, cell: nn.Module) -> bool:
        """Whether all modules are in the modes that they were in, and the reason is still one."""
        for reference, mode in zip(self.modules, self.modes, strict=True):
            module = reference()
            if module is None or module.training is not mode:
                return False
        return self.verdict.holds(cell)
