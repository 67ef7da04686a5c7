"""The model of a text, and how it lies on disk."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bptt import cells
from bptt.errors import (
    BpttError,
    DataError,
    OptionError,
    above_zero,
    at_least,
    at_most,
    is_number,
    one_of,
    reason,
)
from bptt.files import check_format
from bptt.network import Network, place_of
from bptt.runs import MODEL, RECORD, check_size, load_weights, read_run
from bptt.streams import Stream, Vocabulary
from bptt.training import POLICIES, evaluate

CELLS = ("gru", "lstm", "elman")
FORMAT = 1

LATER = frozenset({"on_nonfinite"})
"""Options that older runs lack, and whose defaults are what those did."""


@dataclass(frozen=True)
class Options:
    """How a text is learnt.

    Attributes:
        unit: ``"character"``, or ``"byte"`` of UTF-8.
        cell: ``"gru"``, ``"lstm"`` or ``"elman"``.
        hidden: units of each layer.
        layers: recurrent layers on top of each other.
        embedding: numbers that stand for a symbol.
        lanes: parts of the text that are read side by side.
        depth: steps that an error travels back, and between two updates.
        lr: learning rate of Adam.
        clip: scale gradients down to this norm.
        epochs: passes over the training part, at most.
        patience: epochs without a better validation loss after which training stops.
        validation: the share of the text before the test part to validate on.
        test: the share at its end to test on.
        seed: of the initial weights.
        on_nonfinite: ``"stop"``, ``"skip"`` or ``"rollback"``, see `bptt.fit`.

    Raises:
        OptionError: an option is unknown or out of range.
    """

    unit: str = "character"
    cell: str = "gru"
    hidden: int = 128
    layers: int = 1
    embedding: int = 32
    lanes: int = 16
    depth: int = 64
    lr: float = 5e-3
    clip: float = 1.0
    epochs: int = 20
    patience: int = 3
    validation: float = 0.05
    test: float = 0.05
    seed: int = 0
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        one_of(("character", "byte"), unit=self.unit)
        one_of(CELLS, cell=self.cell)
        one_of(POLICIES, on_nonfinite=self.on_nonfinite)
        whole = ("hidden", "layers", "embedding", "lanes", "depth", "epochs", "patience")
        at_least(1, **{name: getattr(self, name) for name in whole})
        at_most(2**20, hidden=self.hidden, embedding=self.embedding, lanes=self.lanes)
        at_most(2**10, layers=self.layers)
        at_least(0, seed=self.seed)
        at_most(2**63 - 1, seed=self.seed)
        above_zero(lr=self.lr, clip=self.clip)
        for name in ("validation", "test"):
            if not (is_number(getattr(self, name)) and 0 < getattr(self, name) < 0.5):
                raise OptionError(
                    f"{name} must be a share of the text above 0 and below 0.5, not "
                    f"{getattr(self, name)!r}."
                )


@dataclass(frozen=True)
class TextModel:
    """A network that predicts a text symbol by symbol.

    Attributes:
        network: reads indices [time, lane], gives scores [time, lane, symbol].
        vocabulary: what the indices mean.
        options: how it was trained.
    """

    network: Network
    vocabulary: Vocabulary
    options: Options

    def bits(self, stream: Stream) -> float:
        """The mean loss of a stream of text with this vocabulary, in bits per symbol."""
        return evaluate(self.network, stream, "cross_entropy").loss / math.log(2)

    def stream(self, path: str | Path) -> Stream:
        """A text file as this model reads it.

        Raises:
            DataError: it is no UTF-8 text, empty, or holds what the vocabulary does not.
        """
        return Stream.from_text(path, unit=self.options.unit, vocabulary=self.vocabulary)  # type: ignore[arg-type]  # checked

    def check_sample(self, begin: str, length: int, temperature: float) -> list[int]:
        """Refuse what `sample` refuses; else the indices of what is read first."""
        at_least(0, length=length)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise OptionError(f"temperature must be a finite number above 0, not {temperature}.")
        found: list[int] = self.vocabulary.encode(begin or self._opening()).tolist()
        return found

    @torch.no_grad()
    def sample(
        self, begin: str, length: int, temperature: float = 1.0, seed: int | None = None
    ) -> str:
        """``begin``, and ``length`` symbols drawn one after the other.

        Args:
            begin: what the model reads first; where it is empty, a line end or the first symbol.
            length: how many symbols.
            temperature: scores are divided by it: below 1 the likelier ones get likelier.
            seed: of the draws.

        Raises:
            OptionError: ``length`` or ``temperature`` is out of range.
            DataError: ``begin`` holds a character that the model does not know.
        """
        indices = self.check_sample(begin, length, temperature)
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        read, state, place = 0, None, place_of(self.network)
        self.network.eval()
        for _ in range(length):
            for index in indices[read:]:
                scores, state = self.network.step(torch.tensor([index], device=place), state)
            read = len(indices)
            shares = torch.softmax(scores[0].cpu() / temperature, dim=0)
            indices.append(int(torch.multinomial(shares, 1, generator=generator)))
        text = self.vocabulary.decode(indices)
        return text if begin else text[len(self._opening()) :]

    def _opening(self) -> str:
        symbols = self.vocabulary.symbols
        return "\n" if symbols is None or "\n" in symbols else symbols[0]

    def to_json(self) -> dict[str, Any]:
        """All that is needed to build the network again."""
        return {
            "format": FORMAT,
            "task": "text",
            "options": asdict(self.options),
            "vocabulary": self.vocabulary.symbols,
        }


def build(vocabulary: Vocabulary, options: Options) -> TextModel:
    """An untrained model."""
    kinds = {"gru": cells.GRU, "lstm": cells.LSTM, "elman": cells.Elman}
    sizes = [options.embedding, *[options.hidden] * options.layers]
    layers = [kinds[options.cell](a, b) for a, b in pairwise(sizes)]
    cell: nn.Module = layers[0] if len(layers) == 1 else cells.Stack(*layers)
    embedding = nn.Embedding(len(vocabulary), options.embedding)
    readout = nn.Linear(options.hidden, len(vocabulary))
    network = Network(cells.Embedded(embedding, cell), readout)
    return TextModel(network, vocabulary, options)


def load(folder: str | Path) -> TextModel:
    """The model of a run.

    Raises:
        DataError: a file is missing or damaged, or the run is of another task.
    """
    path = Path(folder) / RECORD
    run = read_run(folder)
    content = run.record
    if not isinstance(content, dict) or content.get("task") != "text":
        raise DataError(f"{folder} is no run of a text: fit one with `bptt fit TEXT --task text`.")
    check_format(path, content.get("format"), FORMAT)
    try:
        given = content["options"]
        known = {field.name for field in fields(Options)}
        if not known - LATER <= given.keys() <= known:
            raise ValueError("options are not those that are known")
        symbols = content["vocabulary"]
        if symbols is not None and not isinstance(symbols, str):
            raise ValueError("vocabulary is no text")
        vocabulary, options = Vocabulary(symbols), Options(**given)
    except (KeyError, TypeError, ValueError, AttributeError, BpttError) as error:
        raise DataError(f"{path} is damaged: {reason(error)}. Fit the run again.") from error
    numbers = (options.embedding + options.hidden) * len(vocabulary)
    weights = run.part(MODEL)
    check_size(Path(folder) / MODEL, len(weights), options.hidden, options.layers, numbers)
    model = build(vocabulary, options)
    load_weights(model.network, Path(folder) / MODEL, weights)
    model.network.eval()
    return model
