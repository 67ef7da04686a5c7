"""A text and how to learn it, as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from bptt import runs
from bptt.text._model import Options


@dataclass(frozen=True, kw_only=True)
class Job(runs.Job):
    """To predict a text symbol by symbol.

    Attributes:
        data: the text.
        options: how to train.
    """

    task: ClassVar[str] = "text"
    data: Path
    options: Options

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """See `bptt.runs.Job`."""
        if content["data"] is None:
            raise ValueError("data is no name")
        options = runs.options_of(Options, content["options"])
        return cls(data=content["data"], options=options, every=content["every"])
