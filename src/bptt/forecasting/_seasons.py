"""The periods of a series, found in its own past."""

from __future__ import annotations

import numpy as np

from bptt.forecasting._tables import Floats

MOST = 3
"""Periods that are looked for."""

LEAST = 0.2
"""The autocorrelation below which no period is seen."""


def seasons_of(*known: Floats) -> tuple[int, ...]:
    """Periods in steps, the strongest first: peaks of the autocorrelation of the changes.

    Args:
        known: each [rows], finite: one series or several, whose autocorrelations are averaged,
            weighted by their rows. A period must fit twice into a series.
    """
    each = [one for one in map(_autocorrelation, known) if one is not None]
    if not each:
        return ()
    longest = max(len(one) for one, _ in each)
    most = max(rows for _, rows in each)
    total, weight, rows = (np.zeros(longest) for _ in range(3))
    for one, count in each:
        total[: len(one)] += count / most * one
        weight[: len(one)] += count / most
        rows[: len(one)] += count
    together = total / weight
    bound = np.maximum(LEAST, 4 / rows**0.5)
    inner = np.arange(2, len(together) - 1)
    peak = (together[inner] > together[inner - 1]) & (together[inner] >= together[inner + 1])
    peaks = inner[peak & (together[inner] > bound[inner])]
    found: list[int] = []
    for period in sorted(peaks, key=lambda p: -together[p]):
        if len(found) < MOST and all(abs(period - other) > 2 for other in found):
            found.append(int(period))
    return tuple(found)


def _autocorrelation(known: Floats) -> tuple[Floats, int] | None:
    """Of the changes of a series, up to half of its rows, and how many changes there are; None
    where it has too few or does not move."""
    changes = np.diff(known)
    rows = len(changes)
    if rows < 8 or not changes.any():
        return None
    changes = changes / np.abs(changes).max()
    changes -= changes.mean()
    spectrum = np.abs(np.fft.rfft(changes, 4 * rows)) ** 2
    together = np.fft.irfft(spectrum)[: rows // 2 + 1]
    return (together / together[0], rows) if together[0] > 0 else None
