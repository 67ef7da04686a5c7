"""`diagnose`: all of it at once, as one object that prints, draws and saves itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bptt import files
from bptt.diagnostics._dynamics import Dynamics, measure_dynamics
from bptt.diagnostics._landscape import Landscape
from bptt.diagnostics._method import ANCHORS as METHOD_ANCHORS
from bptt.diagnostics._method import method_reach, named
from bptt.diagnostics._optima import Optima, measure_optima
from bptt.diagnostics._plain import plain
from bptt.diagnostics._reach import Reach, measure_reach
from bptt.diagnostics._saved import HTML, JSON, PARTS, check_place, names, owned
from bptt.diagnostics._surface import STEPS, Surface, measure_surface
from bptt.diagnostics._trajectory import portions, record
from bptt.errors import OptionError, at_least, one_of
from bptt.gradients import GradientMethod
from bptt.gradients._update import check_stream
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable, evaluating
from bptt.segments import undrawn
from bptt.streams import Stream


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; ``print(diagnosis)`` says it in words.

    Attributes:
        cell: the name of the cell's class, or what it is part of.
        steps: how many steps were looked at.
        reach, dynamics, surface, optima: the parts, None where they were not asked for.
        model: the SHA-256 sum of the file with the weights that were looked at, if there is one.
    """

    cell: str
    steps: int
    reach: Reach | None = None
    dynamics: Dynamics | None = None
    surface: Surface | None = None
    optima: Optima | None = None
    model: str | None = None

    def verdicts(self) -> dict[str, str]:
        """One sentence or two of each part."""
        parts = {
            "reach": self.reach,
            "dynamics": self.dynamics,
            "surface": self.surface,
            "optima": self.optima,
        }
        return {name: part.verdict() for name, part in parts.items() if part is not None}

    def __str__(self) -> str:
        """The verdicts."""
        lines = [f"{self.cell} over {self.steps} steps"]
        lines += [f"{name}: {text}" for name, text in self.verdicts().items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All numbers and verdicts, as what JSON holds; NaN and infinity are None."""
        parts = {name: plain(getattr(self, name)) for name in self.verdicts()}
        for name, text in self.verdicts().items():
            parts[name]["verdict"] = text
        of = {} if self.model is None else {"model": self.model}
        return {"cell": self.cell, "steps": self.steps, **of, **parts}

    def save(
        self, folder: str | Path, written: Callable[[Path], object] | None = None
    ) -> list[Path]:
        """Write ``diagnosis.json``, a picture of each part, and ``diagnosis.html``, one page with
        all of them that needs nothing else.

        Args:
            folder: made if it is absent; files of an earlier diagnosis are replaced, others stay.
            written: called with ``diagnosis.json`` once it is there, before all else is drawn.

        Returns:
            The files written.

        Raises:
            BpttError: matplotlib is not installed.
            OptionError: a file of these names is there that belongs to no diagnosis.
            CheckpointError: another process writes a diagnosis there.
        """
        folder = Path(folder)
        content = self.to_json()
        check_place(folder, self.verdicts())
        files.make_folder(folder)
        with files.Hold(folder):
            check_place(folder, self.verdicts())  # another one may have been written meanwhile
            return self._write(folder, content, written)

    def _write(
        self,
        folder: Path,
        content: dict[str, Any],
        written: Callable[[Path], object] | None,
    ) -> list[Path]:
        from bptt.diagnostics._page import page, sections_of
        from bptt.diagnostics._pictures import draw

        for name in owned(folder) - names(self.verdicts()):
            files.remove(folder / name)  # while the numbers that name it are there
        text = json.dumps(content, indent=1, allow_nan=False)
        files.write_text(folder / JSON, text + "\n")
        if written is not None:
            written(folder / JSON)
        pictures = draw(self, folder)
        for name in names(self.verdicts()) - {JSON, HTML, *(path.name for path in pictures)}:
            files.remove(folder / name)  # of the diagnosis before this one
        title = f"Diagnosis of {self.cell} over {self.steps} steps"
        whole = page(title, sections_of(content, folder))
        files.write_text(folder / HTML, whole)
        return [folder / JSON, *pictures, folder / HTML]


def diagnose(
    network: Network,
    stream: Stream,
    *,
    loss: Loss = "mse",
    parts: Sequence[str] = PARTS,
    steps: int = 10_000,
    anchors: int = 256,
    lags: int | None = None,
    depth: int | None = None,
    tolerance: float = 0.01,
    share: float = 0.01,
    exponents: int | None = None,
    points: int = 101,
    grid: int = 21,
    method: GradientMethod | None = None,
    starts: Sequence[Any] | None = None,
    seed: int = 0,
) -> Diagnosis:
    """See what the gradient reaches, whether the dynamics are chaotic, and how rough the loss is.

    Args:
        network: in evaluation mode while it is looked at; its weights are not changed.
        stream: the user's own data.
        loss: as the gradient methods take it.
        parts: which of ``"reach"``, ``"dynamics"`` and ``"surface"``.
        steps: how many steps of the stream are looked at, those of all lanes together; the
            surface takes at most 2000 of them.
        anchors: reach: how many counted steps, spread over the data, are followed back.
        lags: reach: how many steps back at most; default: to where the data or the gradient end.
        depth: reach: a depth of truncation to judge.
        tolerance: reach: the relative bias that a recommended depth may have.
        share: reach: the share of its start below which a gradient counts as vanished.
        exponents: dynamics: how many Lyapunov exponents; default: all, of states wider than 128
            the leading 32.
        points: surface: points along a line.
        grid: surface: points along a side of a plane.
        method: reach: a gradient method whose own reach is measured as well, along the first
            sequence: what its passes bring back, lag by lag.
        starts: optima: the end losses of many starts, or `bptt.fit`'s ``history.starts``.
        seed: of the random directions.

    Returns:
        The diagnosis.

    Raises:
        OptionError: an option is out of range, or a depth lies beyond the data.
        DataError: nothing counts, or the sequences are too short.
        CellError: the network cannot be trained, or not be copied.
    """
    check_trainable(network)
    check_stream(stream)
    step = step_loss(loss)
    if isinstance(parts, str):
        parts = (parts,)
    for part in parts:
        one_of(PARTS, part=part)
    at_least(1, steps=steps, anchors=anchors)
    at_least(3, points=points, grid=grid)
    for name, value in (("tolerance", tolerance), ("share", share)):
        if not 0 < value < 1:
            raise OptionError(f"{name} must lie between 0 and 1, not {value}.")
    found = Diagnosis(type(network.cell).__name__, 0)
    if starts is not None:
        found = replace(found, optima=measure_optima(starts))
    with evaluating(network), undrawn():
        given = portions(network, stream, steps)
        trajectory = record(network, given)
        found = replace(found, steps=len(trajectory))
        if "reach" in parts:
            reach = measure_reach(
                network,
                trajectory,
                step,
                anchors=anchors,
                lags=lags,
                depth=depth,
                tolerance=tolerance,
                share=share,
            )
            if method is not None:
                norms = method_reach(network, given[0], method, loss, min(anchors, METHOD_ANCHORS))
                mean = norms.nanmean(dim=1).numpy()
                reach = replace(reach, method=named(method), by_method=mean)
            found = replace(found, reach=reach)
        if "dynamics" in parts:
            dynamics = measure_dynamics(
                network.cell, trajectory, exponents=exponents, samples=anchors
            )
            found = replace(found, dynamics=dynamics)
        if "surface" in parts:
            landscape = Landscape.of(network, portions(network, stream, min(steps, STEPS)), step)
            surface = measure_surface(landscape, points=points, grid=grid, seed=seed)
            found = replace(found, surface=surface)
    return found
