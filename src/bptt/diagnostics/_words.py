"""Numbers as verdicts say them."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """``0.998`` as ``"99.8%"``; never rounded up to a whole that it is not."""
    if not math.isfinite(share):
        return "no number"
    value = 100 * share
    for digits in (3, 4, 5, 6):
        text = f"{value:.{digits}g}"
        if float(text) not in (0.0, 100.0) or value in (0.0, 100.0):
            return f"{text}%"
    return f"{value:.0f}%" if abs(value) < 1 else "nearly 100%"


def steps_of(count: int) -> str:
    """``"1 step"``, ``"12 steps"``."""
    return f"{count} step{'s' * (count != 1)}"


def signed(value: float) -> str:
    """``"−0.03"``, with a minus sign as printed."""
    if not math.isfinite(value):
        return "−∞" if value < 0 else "+∞"
    return f"{value:+.3g}".replace("-", "−")
