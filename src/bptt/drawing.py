"""What all pictures have in common: a canvas, names that are shown as they are, a way to a file."""

from __future__ import annotations

import io
import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bptt import _ending
from bptt.errors import BpttError
from bptt.files import printable, why, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pictures = dict[str, Callable[[Path], None]]
"""What there is to be drawn, by the names of the files, each with what draws it."""

_PLACE = "MPLCONFIGDIR"
"""Where matplotlib keeps its settings; it names a folder for one process there if it must."""

LONGEST = 60
"""Characters of a name; a longer one leaves no room for the picture."""


def canvas(width: float, height: float) -> Figure:
    """An empty figure, so many inches wide and high.

    Raises:
        BpttError: matplotlib is not installed.
    """
    named = os.environ.get(_PLACE)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BpttError("the pictures need matplotlib: pip install 'bptt[cli]'.") from error
    made = os.environ.get(_PLACE)
    if named is None and made is not None:  # there is no home: its folder lasts as long as we do
        _ending.before.append(partial(shutil.rmtree, made, ignore_errors=True))
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> None:
    """Light lines, and no frame above and to the right."""
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def label(name: str) -> str:
    """A name of the user's as a picture shows it: matplotlib takes what stands between two ``$``
    for a formula, and fails where it is none."""
    shown = printable(name)
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
    return shown.replace("$", r"\$")


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a PNG file, whole or not at all."""
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, made.getvalue())


def apart(folder: Path, pictures: Pictures) -> list[Path]:
    """Draw what can be drawn, and tell in a warning what cannot: no picture is worth the numbers
    that it shows.

    Returns:
        The files written.
    """
    written = []
    for name, paint in pictures.items():
        try:
            paint(folder / name)
            written.append(folder / name)
        except Exception as error:  # whatever a picture dies of
            reason = why(error) if isinstance(error, OSError) else str(error).partition("\n")[0]
            warnings.warn(
                f"{name} was not drawn ({type(error).__name__}: {reason:.200}); all else is "
                "written.",
                stacklevel=3,
            )
    return written
