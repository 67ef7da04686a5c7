"""`Forecaster`: a linear model and a trained network, ready for data in their own units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bptt.errors import OptionError, at_least
from bptt.forecasting.data._numbers import ago, hold
from bptt.forecasting.data._scaling import Scaling
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import Split
from bptt.forecasting.data._tables import Ages, Floats
from bptt.forecasting.data._units import Units
from bptt.forecasting.linear._linear import Linear
from bptt.forecasting.model._options import Options
from bptt.network import Network, place_of
from bptt.state import State
from bptt.streams import Stream
from bptt.training import predict


@dataclass(frozen=True)
class Reader:
    """What the network reads.

    Attributes:
        scaling: of inputs and target.
        linear: whose predictions are among it.
        horizon: of the predictions.
        seasons: the targets so many steps before the one to predict are, in prediction.
        simulate: whether no past targets are, nor what the linear model predicts.
    """

    scaling: Scaling
    linear: Linear
    horizon: int
    seasons: tuple[int, ...]
    simulate: bool

    def __call__(self, inputs: Floats, target: Floats, age: Ages | None = None) -> Floats:
        """Features [rows, features], scaled, from ``inputs`` [rows, columns], scaled, and
        ``target`` [rows] in the units of its series; row t reads nothing later than row t, and with
        ``age`` [rows] nothing of another series."""
        if self.simulate:
            return inputs
        age = np.arange(len(target)) if age is None else age
        held = self.scaling.scale(hold(target, self.linear.center, age))
        back = [season * -(-self.horizon // season) for season in self.seasons]
        found = [held[:, None], *(held[ago(age, n - self.horizon)][:, None] for n in back)]
        base = self.scaling.scale(self.linear(inputs, target, age))
        return np.column_stack([inputs, *found, base])

    @property
    def back(self) -> int:
        """How many rows it looks back, the present one among them."""
        return max(self.linear.order, *(n + 1 for n in self.seasons), self.horizon + 1)


@dataclass(frozen=True)
class Forecaster:
    """A linear model, and a network that adds to it.

    Attributes:
        network: reads the features of ``reader``; its prediction is of what the linear model
            leaves, in units of ``gain``.
        reader: makes them; it has the scaling and the linear model.
        gain: what a unit of the network's prediction is, in the units of the series; 0 where the
            network did not help.
        options: what it was trained with.
        input_names: the columns that it reads.
        target_name: the column that it predicts.
        missing: how missing targets were treated, see `bptt.forecasting.select`.
        spread: what a unit of the network's targets was while it was trained.
        time_name, group_name: the columns of times and of groups, if any.
        trained: what it was trained on, see `bptt.forecasting.seen`; empty where that is not known.
        units: of the target, in which each series is read; those of ``gain`` and ``spread``.
    """

    network: Network
    reader: Reader
    gain: float
    options: Options
    input_names: tuple[str, ...]
    target_name: str
    missing: str = "refuse"
    spread: float = 1.0
    time_name: str | None = None
    group_name: str | None = None
    trained: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    units: Units = field(default_factory=Units)

    @property
    def name(self) -> str:
        """Of the model, for tables."""
        return self.reader.linear.name + (f" + {self.options.cell}" if self.gain else "")

    def predict(self, series: Series) -> Floats:
        """Predictions [rows]: row t, made after reading the rows of its series up to t, is of the
        target at t + horizon."""
        return self.units.restored(self.predict_own(self.units.own(series)), series)

    def predict_own(self, series: Series) -> Floats:
        """`predict`, of a target in its units and in them."""
        reader = self.reader
        inputs = reader.scaling.inputs(series)
        found = reader.linear(inputs, series.target, series.age)
        if self.gain:
            features = reader(inputs, series.target, series.age)
            # Series by series: what else is in the table does not even change a rounding.
            for span in series.spans:
                steps = features[span]
                stream = Stream(steps, np.zeros(len(steps)), dtype=torch.float32)
                added = predict(self.network, stream)
                assert isinstance(added, torch.Tensor)
                more = self.gain * added[:, 0].cpu().numpy().astype(np.float64)
                found[span] = self._added(found[span], more)
        return found

    def _added(self, linear: Floats, more: Floats) -> Floats:
        """Both together; a simulation stays near what was seen, and where the network is not a
        number the linear model stands alone."""
        found = linear + np.where(np.isfinite(more), more, 0.0)
        return self.reader.linear.bounded(found) if self.options.simulate else found

    def stream(self, series: Series) -> Stream:
        """``series`` as what the network learns: what the linear model leaves, in simulation the
        target less its training mean, where a target is known."""
        features, left = self._pairs(self.units.own(series))
        if len(series.begins) == 1:
            return self._stream(features, left)
        spans = series.spans
        return self._stream([features[span] for span in spans], [left[span] for span in spans])

    def parts(self, series: Series, split: Split) -> tuple[Stream, Stream]:
        """The training and the validation part of `stream`. Of several series, each begins in the
        initial state, and the validation part goes over the training part first."""
        features, left = self._pairs(self.units.own(series))
        spans = [span for span, rows in zip(series.spans, split.training, strict=True) if rows]
        if len(spans) == 1:
            (span,) = spans
            train, known, total = split.training[0], split.known[0], span.stop - span.start
            whole = self._stream(features[span], left[span], self.options.lanes)
            later = [(known - train) / total] if known < total else []
            training, validation, *_ = whole.split(train / total, *later)
            return training, validation
        trained = np.where(split.trains, left, np.nan)
        judged = np.where(split.validation, left, np.nan)
        found = []
        for rows, goals in ((split.training, trained), (split.known, judged)):
            cut = [slice(span.start, span.start + n) for span, n in zip(spans, rows, strict=False)]
            steps, ends = [features[one] for one in cut], [goals[one] for one in cut]
            found.append(self._stream(steps, ends, self.options.lanes))
        return found[0], found[1]

    def _pairs(self, series: Series) -> tuple[Floats, Floats]:
        """The features [rows, features] of a target in its units, and what the linear model leaves
        [rows], in units of ``spread``."""
        reader = self.reader
        inputs = reader.scaling.inputs(series)
        if reader.simulate:
            base = np.full(len(series), reader.scaling.target_mean)
        else:
            base = reader.linear(inputs, series.target, series.age)
        left = series.left_by(base, self.options.ahead)
        return reader(inputs, series.target, series.age), left / self.spread

    def _stream(self, features: Any, left: Any, lanes: int = 1) -> Stream:
        one = isinstance(left, np.ndarray)
        return Stream(
            features,
            left[:, None] if one else [goals[:, None] for goals in left],
            lanes=lanes,
            horizon=self.options.ahead,
            mask=np.isfinite(left) if one else list(map(np.isfinite, left)),
            dtype=torch.float32,
        )

    def live(self, series: Series) -> Live:
        """A forecaster that reads on, row by row, after the rows of ``series``.

        Raises:
            OptionError: those are several series.
        """
        self._check_one(series)
        return Live(self, series)

    def free_run(self, series: Series, steps: int) -> Floats:
        """Predictions [steps] fed back as the past targets, one step after another.

        Without inputs the run goes on after the last row of ``series``. With inputs it covers
        the last ``steps`` rows, whose inputs it reads and whose targets it does not.

        Raises:
            OptionError: the forecaster simulates, or its horizon is not 1, or ``steps`` is below
                1 or as many as there are rows, or those are several series.
        """
        self._check_one(series)
        self._check_free_run(series, steps)
        known = len(series) - (steps if self.input_names else 0)
        live = self.live(series.rows(known))
        found = [live.prediction]
        for t in range(known, known + steps - 1):
            inputs = series.inputs[t] if self.input_names else np.empty(0)
            found.append(live.read(inputs, found[-1]))
        return np.array(found)

    def _check_one(self, series: Series) -> None:
        if len(series.begins) > 1:
            raise OptionError(
                f"there are {len(series.begins)} series, and only one can be read on: take them "
                "one by one, series.each()."
            )

    def _check_free_run(self, series: Series, steps: int) -> None:
        at_least(1, free_run=steps)
        if self.options.simulate:
            raise OptionError(
                "a simulation reads no past targets, so there is nothing to feed back: predict "
                "without --free-run."
            )
        if self.options.ahead != 1:
            raise OptionError(
                f"a free run feeds each prediction back as the next target, which needs horizon 1, "
                f"not {self.options.ahead}."
            )
        if self.input_names and steps >= len(series):
            raise OptionError(
                f"{f'series {series.labels[0]!r}: ' if series.labels[0] else ''}a free run of "
                f"{steps} steps takes the last {steps} of {len(series)} rows, and "
                f"at least one known row must come before: run at most {len(series) - 1} steps."
            )


class Live:
    """A forecaster that reads one row after another, in the time of one step each.

    Args:
        forecaster: the forecaster.
        series: the rows that are known already.

    """

    def __init__(self, forecaster: Forecaster, series: Series) -> None:
        self.forecaster = forecaster
        self._zero, self._size = forecaster.units.one(series)
        series = forecaster.units.own(series)
        reader = forecaster.reader
        inputs = reader.scaling.inputs(series)
        self._inputs = inputs[-reader.back :]
        self._target = hold(series.target, reader.linear.center)[-reader.back :]
        self._state: State | None = None
        self._own = float(reader.linear(inputs, series.target)[-1])
        if forecaster.gain:
            self._add(reader(inputs, series.target))

    @property
    def prediction(self) -> float:
        """Of the target ``horizon`` rows after the last one that was read."""
        return self._own * self._size + self._zero

    def read(self, inputs: Floats, target: float) -> float:
        """The new prediction, after a row: ``inputs`` [columns] and the target (NaN: it is
        missing), in the data's units."""
        reader, back = self.forecaster.reader, self.forecaster.reader.back
        row = reader.scaling.scaled_inputs(inputs[None])
        self._inputs = np.concatenate([self._inputs, row])[-back:]
        own = (target - self._zero) / self._size
        known = own if np.isfinite(target) else self._target[-1]
        self._target = np.append(self._target, known)[-back:]
        self._own = float(reader.linear(self._inputs, self._target)[-1])
        if self.forecaster.gain:
            self._add(reader(self._inputs, self._target)[-1:])
        return self.prediction

    @torch.no_grad()
    def _add(self, features: Floats) -> None:
        network = self.forecaster.network
        network.eval()
        given = torch.from_numpy(features).to(place_of(network), torch.float32)
        added, self._state = network(given[:, None], self._state)
        more = self.forecaster.gain * float(added[-1, 0, 0])
        self._own = float(self.forecaster._added(np.array(self._own), np.array(more)))
