from functools import partial
from pathlib import Path

import pytest

from bptt import Network
from bptt.forecasting import Options, plan, read_table, select, train

from .cases import FAST, driven

FURNACE = Path(__file__).resolve().parents[2] / "../shared/data/gas-furnace.csv"


@pytest.fixture(scope="session", autouse=True)
def untraced():
    """What is trained in little time need not be traced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bptt.forecasting.model._network.Network", partial(Network, backend="eager"))
        yield


@pytest.fixture(scope="session")
def fitted(untraced):
    """A quickly trained prediction and its series."""
    series = driven()
    return train(plan(series, Options(**FAST)), progress=False)


@pytest.fixture(scope="session")
def furnace():
    if not FURNACE.exists():
        pytest.skip(f"the gas furnace data are not at {FURNACE}")
    return select(read_table(FURNACE), ("InputGasRate",), "CO2")
