"""The periods of a series, found in its own past."""

from __future__ import annotations

import numpy as np

from bptt.forecasting._tables import Floats

MOST = 3
"""Periods that are looked for."""

LEAST = 0.2
"""The autocorrelation below which no period is seen."""


def seasons_of(known: Floats) -> tuple[int, ...]:
    """Periods in steps, the strongest first: peaks of the autocorrelation of the changes.

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
    together = np.fft.irfft(spectrum)[: rows // 2 + 1]
    if together[0] <= 0:
        return ()
    together = together / together[0]
    bound = max(LEAST, 4 / rows**0.5)
    inner = np.arange(2, len(together) - 1)
    peak = (together[inner] > together[inner - 1]) & (together[inner] >= together[inner + 1])
    peaks = inner[peak & (together[inner] > bound)]
    found: list[int] = []
    for period in sorted(peaks, key=lambda p: -together[p]):
        if len(found) < MOST and all(abs(period - other) > 2 for other in found):
            found.append(int(period))
    return tuple(found)
