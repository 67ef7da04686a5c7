"""The periods of a series, found in its own past."""

from __future__ import annotations

import numpy as np

from bptt.forecasting._tables import Floats

MOST = 3
"""Periods that are looked for."""

LEAST = 0.2
"""The autocorrelation below which no period is seen; so much lower must it be half a period before
and after."""

CHANCE = 5.0
"""Over the root of the number of products that it is the mean of: what chance may make it."""


def seasons_of(known: Floats) -> tuple[int, ...]:
    """Periods in steps, the strongest first: peaks of the autocorrelation of the changes.

    A multiple of a period is one of its own where the autocorrelation is higher there: the week of
    daily rhythms.

    Args:
        known: [rows], finite. A period must fit into it twice.
    """
    changes = np.diff(known)
    rows = len(changes)
    if rows < 8 or not changes.any():
        return ()
    changes = changes / np.abs(changes).max()
    changes -= changes.mean()
    spectrum = np.abs(np.fft.rfft(changes, 4 * rows)) ** 2
    products = rows - np.arange(3 * rows // 4 + 1)
    together = np.fft.irfft(spectrum)[: len(products)] / products
    if together[0] <= 0:
        return ()
    together = together / together[0]
    chance = CHANCE / products**0.5

    def stands_out(period: int) -> bool:
        half = max(period // 2, 1)
        before, after = together[period - half : period], together[period + 1 : period + half + 1]
        high = together[period] > max(LEAST, chance[period])
        return bool(high and together[period] - max(before.min(), after.min()) > LEAST)

    inner = np.arange(2, rows // 2)
    peak = (together[inner] > together[inner - 1]) & (together[inner] >= together[inner + 1])
    peaks = [int(period) for period in inner[peak] if stands_out(int(period))]
    strongest: list[int] = []  # of those that lie together
    for period in sorted(peaks, key=lambda period: -together[period]):
        if all(abs(period - other) > max(2, other // 8) for other in strongest):
            strongest.append(period)
    found: list[int] = []
    for period in sorted(strongest):
        parts = [other for other in found if _is_multiple(period, other)]
        # What is not repeated makes the height of peaks uncertain, and rounding all of them.
        bounds = (together[other] + chance[period] * (1.01 - together[other]) for other in parts)
        if together[period] > max(bounds, default=0.0):
            found.append(period)
    return tuple(sorted(found, key=lambda period: -together[period])[:MOST])


def _is_multiple(period: int, other: int) -> bool:
    """Whether a period is one of another, as far as their peaks tell."""
    return abs(period - round(period / other) * other) <= max(1, other // 4)
