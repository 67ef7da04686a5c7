"""Which gradients a program is to give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Wanted:
    """Of each source, of the input, of anything at all, of a state."""

    sources: tuple[bool, ...]
    input: bool
    any: bool
    state: bool
