"""The periods of a series, found in its own past."""

from __future__ import annotations

import numpy as np

from bptt.forecasting.data._tables import Floats

MOST = 3
"""Periods that are looked for."""

LEAST = 0.2
"""The autocorrelation below which no period is seen; so much lower must it be half a period before
and after."""

CHANCE = 5.0
"""Over the root of the number of products that it is the mean of: what chance may make it."""


def seasons_of(*known: Floats) -> tuple[int, ...]:
    """Periods in steps, the strongest first: peaks of the autocorrelation of the changes.

    A multiple of a period is one of its own where the autocorrelation is higher there: the week of
    daily rhythms.

    Args:
        known: each [rows], finite: one series or several, whose autocorrelations are averaged,
            weighted by their rows. A period must fit twice into the longest.
    """
    rows = max((len(one) - 1 for one in known), default=0)
    total, products = np.zeros((2, 3 * rows // 4 + 1))
    for one in known:
        found = _products(one)
        total[: len(found)] += found
        products[: len(found)] += len(one) - 1 - np.arange(len(found))
    if not total[:1].any():
        return ()
    products = np.maximum(products, 1)
    together = total / products
    together /= together[0]
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
    kept: list[int] = []
    for period in sorted(strongest):
        parts = [other for other in kept if _is_multiple(period, other)]
        # What is not repeated makes the height of peaks uncertain, and rounding all of them.
        bounds = (together[other] + chance[period] * (1.01 - together[other]) for other in parts)
        if together[period] > max(bounds, default=0.0):
            kept.append(period)
    return tuple(sorted(kept, key=lambda period: -together[period])[:MOST])


def _products(known: Floats) -> Floats:
    """Sums of products of the changes of a series with those so many steps later, for a quarter of
    them and more; none where it has too few or does not move."""
    changes = np.diff(known)
    rows = len(changes)
    if rows < 8 or not changes.any():
        return np.zeros(0)
    changes = changes / np.abs(changes).max()
    changes -= changes.mean()
    spectrum = np.abs(np.fft.rfft(changes, 4 * rows)) ** 2
    found = np.fft.irfft(spectrum)[: 3 * rows // 4 + 1]
    return found * rows / found[0] if found[0] > 0 else np.zeros(0)


def _is_multiple(period: int, other: int) -> bool:
    """Whether a period is one of another, as far as their peaks tell."""
    return abs(period - round(period / other) * other) <= max(1, other // 4)
