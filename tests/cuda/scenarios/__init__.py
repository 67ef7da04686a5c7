"""What must work on every device: `SCENARIOS` by name, and `differ` for what they give."""

from . import forward, methods, saving, streaming, tools, training
from .shared import SCENARIOS, differ

__all__ = ["SCENARIOS", "differ", "forward", "methods", "saving", "streaming", "tools", "training"]
