"""`Forecaster`: a trained network with its scaling, ready for data in their own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bptt.errors import OptionError, at_least
from bptt.forecasting._options import Options
from bptt.forecasting._scaling import Scaling
from bptt.forecasting._series import Series
from bptt.forecasting._tables import Floats
from bptt.network import Network, place_of
from bptt.streams import Stream
from bptt.training import predict


@dataclass(frozen=True)
class Forecaster:
    """A network that forecasts series in their own units.

    Attributes:
        network: reads scaled features [time, lane, feature]; `Network.step` serves live data.
        scaling: of inputs and target.
        options: what it was trained with.
        input_names: the columns that it reads.
        target_name: the column that it predicts.
        missing: how missing targets were treated, see `bptt.forecasting.select`.
    """

    network: Network
    scaling: Scaling
    options: Options
    input_names: tuple[str, ...]
    target_name: str
    missing: str = "refuse"

    def predict(self, series: Series) -> Floats:
        """Predictions [rows]: row t, made after reading rows 0 to t, is of the target at
        t + horizon."""
        features = self.scaling.features(series, self.options.simulate)
        stream = Stream(features, np.zeros(len(features)), dtype=torch.float32)
        found = predict(self.network, stream)
        assert isinstance(found, torch.Tensor)
        return self.scaling.unscale(found[:, 0].cpu().numpy().astype(np.float64))

    def stream(self, series: Series) -> Stream:
        """``series`` as the network was trained on it: scaled, missing targets uncounted."""
        target = self.scaling.scale(series.target)
        return Stream(
            self.scaling.features(series, self.options.simulate),
            target[:, None],
            horizon=self.options.ahead,
            mask=np.isfinite(target),
            dtype=torch.float32,
        )

    @torch.no_grad()
    def free_run(self, series: Series, steps: int) -> Floats:
        """Predictions [steps] fed back as the past targets, one step after another.

        Without inputs the run goes on after the last row of ``series``. With inputs it covers
        the last ``steps`` rows, whose inputs it reads and whose targets it does not.

        Raises:
            OptionError: the forecaster simulates, or its horizon is not 1, or ``steps`` is below
                1 or as many as there are rows.
        """
        self._check_free_run(series, steps)
        known = len(series) - (steps if self.input_names else 0)
        features = self.scaling.features(series.rows(known), simulate=False)
        later = self.scaling.features(series, simulate=True)[known:]
        self.network.eval()
        place = place_of(self.network)
        prediction, state = self.network(_tensor(features, place)[:, None])
        last = prediction[-1]
        found = [last]
        for t in range(steps - 1):
            inputs = _tensor(later[t : t + 1], place) if self.input_names else last.new_empty(1, 0)
            last, state = self.network.step(torch.cat([inputs, last], dim=1), state)
            found.append(last)
        return self.scaling.unscale(torch.cat(found)[:, 0].cpu().numpy().astype(np.float64))

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
                f"a free run of {steps} steps takes the last {steps} of {len(series)} rows, and "
                f"at least one known row must come before: run at most {len(series) - 1} steps."
            )


def _tensor(values: Floats, place: torch.device | None) -> torch.Tensor:
    return torch.from_numpy(values).to(place, torch.float32)
