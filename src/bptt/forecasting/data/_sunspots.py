"""The series that the package carries: yearly sunspot numbers, 1700 to 2008.

Public domain; from the National Geophysical Data Center of the United States, as statsmodels
ships them (``statsmodels.datasets.sunspots``).
"""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np

from bptt.forecasting.data._series import Series

NAME = "yearly sunspot numbers"


def sunspots() -> Series:
    """The yearly mean sunspot numbers 1700–2008, 309 rows without inputs."""
    text = (files("bptt.forecasting.data") / "sunspots.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return Series(
        inputs=np.empty((len(rows), 0)),
        target=np.array([float(row["sunspots"]) for row in rows]),
        input_names=(),
        target_name="sunspots",
        source=NAME,
        axis=np.array([float(row["year"]) for row in rows]),
        axis_name="year",
    )
