import signal
from functools import partial

import pytest

from bptt import Network
from bptt.training._step import Stepper

from .cases import FAST, call, write_table


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Every test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def untraced(monkeypatch):
    """What is trained twice ends alike on every executor, and eagerly nothing has to be traced; the
    fixture `runs` is as users have it."""
    for module in ("forecasting.model._network", "text._model"):
        monkeypatch.setattr(f"bptt.{module}.Network", partial(Network, backend="eager"))


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "data.csv")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Three finished runs: ``predicting``, ``simulating`` and ``sunspots``; and their table."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_table(folder / "data.csv")
    columns = (data, "--inputs", "u", "--target", "y", *FAST)
    assert call("fit", *columns, "--out", folder / "predicting").exit_code == 0
    assert call("fit", *columns, "--simulate", "--out", folder / "simulating").exit_code == 0
    assert call("fit", *FAST, "--out", folder / "sunspots").exit_code == 0
    return folder


@pytest.fixture
def broken(monkeypatch):
    """Break off at an update: by a signal, or by an error."""

    def at(update, how):
        real, seen = Stepper.apply, [0]

        def apply(*arguments):
            seen[0] += 1
            if seen[0] == update:
                if isinstance(how, BaseException):
                    raise how
                signal.raise_signal(how)
            return real(*arguments)

        monkeypatch.setattr(Stepper, "apply", apply)
        return lambda: monkeypatch.setattr(Stepper, "apply", real)

    return at
