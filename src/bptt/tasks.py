"""Synthetic tasks of the literature, as streams: what is to be remembered, and for how long."""

from __future__ import annotations

import torch
from torch import Tensor

from bptt.errors import OptionError, at_least
from bptt.streams import Stream


def adding(length: int, count: int, seed: int = 0, dtype: torch.dtype | None = None) -> Stream:
    """The adding problem: the sum of the two marked numbers, told after the last step.

    Each step has a number, uniform in [0, 1], and a mark: one in each half of the sequence is 1,
    the others are 0. To predict 1 always costs the variance of the sum, 1/6 = 0.1667.

    Args:
        length: steps of every sequence, at least 2.
        count: sequences, side by side as lanes.
        seed: of the draws.
        dtype: of inputs and targets.

    Returns:
        Inputs [length, count, 2], targets [length, count, 1], of which the last step's counts.

    Source: S. Hochreiter and J. Schmidhuber, Neural Computation 9 (1997), experiment 4, in the form
    of M. Arjovsky, A. Shah and Y. Bengio, Unitary evolution recurrent neural networks (2016).
    """
    at_least(2, length=length)
    at_least(1, count=count)
    draws = torch.Generator().manual_seed(seed)
    numbers = torch.rand(length, count, generator=draws, dtype=dtype)
    half = length // 2
    first = torch.randint(0, half, (count,), generator=draws)
    second = torch.randint(half, length, (count,), generator=draws)
    marks, lanes = torch.zeros_like(numbers), torch.arange(count)
    marks[first, lanes] = marks[second, lanes] = 1.0
    targets = torch.zeros(length, count, 1, dtype=numbers.dtype)
    targets[-1, :, 0] = numbers[first, lanes] + numbers[second, lanes]
    return Stream(torch.stack([numbers, marks], 2), targets, mask=_last(length, count))


SYMBOLS = 8
"""Of the copy problem; then come the blank and the sign to begin."""


def copying(delay: int, count: int, seed: int = 0, symbols: int = 10) -> Stream:
    """The copying problem: ten of eight symbols, a delay, then the same ten in their order.

    Inputs are one-hot of ten: 0 to 7 the symbols, 8 the blank, 9 the sign to begin, which stands
    one step before the first symbol is to be told. Targets are blank but for the last ``symbols``
    steps. To know the blanks and guess the rest costs symbols · ln 8 / (delay + 2 · symbols) a
    step.

    Args:
        delay: steps between the last symbol and the first to be told, at least 1.
        count: sequences, side by side as lanes.
        seed: of the draws.
        symbols: how many are to be remembered.

    Returns:
        One-hot inputs [delay + 2 · symbols, count, 10], class indices [.., count].

    Source: Hochreiter and Schmidhuber (1997); this form by Arjovsky, Shah and Bengio (2016).
    """
    at_least(1, delay=delay, count=count, symbols=symbols)
    draws = torch.Generator().manual_seed(seed)
    said = torch.randint(0, SYMBOLS, (symbols, count), generator=draws)
    inputs = torch.full((delay + 2 * symbols, count), SYMBOLS)
    inputs[:symbols] = said
    inputs[symbols + delay - 1] = SYMBOLS + 1
    targets = torch.full_like(inputs, SYMBOLS)
    targets[-symbols:] = said
    return Stream(_one_hot(inputs, SYMBOLS + 2), targets)


def temporal_order(length: int, count: int, seed: int = 0) -> Stream:
    """The temporal order problem: which of two symbols came first, and which second.

    Six symbols: 0 and 1 matter, 2 to 5 distract. One that matters stands in the steps from
    ⌊length/10⌋ to ⌊2·length/10⌋, one in those from ⌊4·length/10⌋ to ⌊5·length/10⌋. The class, of
    four, is told after the last step.

    Args:
        length: steps of every sequence, at least 10.
        count: sequences, side by side as lanes.
        seed: of the draws.

    Returns:
        One-hot inputs [length, count, 6], class indices [length, count], the last one counting.

    Source: Hochreiter and Schmidhuber (1997), experiment 6a; positions as in R. Pascanu, T. Mikolov
    and Y. Bengio, On the difficulty of training recurrent neural networks (2013).
    """
    at_least(1, count=count)
    if length < 10:
        raise OptionError(f"temporal_order needs at least 10 steps, not {length}.")
    draws = torch.Generator().manual_seed(seed)
    inputs, lanes = torch.randint(2, 6, (length, count), generator=draws), torch.arange(count)
    kinds = torch.randint(0, 2, (2, count), generator=draws)
    for kind, (low, high) in zip(kinds, ((1, 2), (4, 5)), strict=True):
        start, stop = low * length // 10, high * length // 10
        inputs[torch.randint(start, stop + 1, (count,), generator=draws), lanes] = kind
    targets = torch.zeros(length, count, dtype=torch.long)
    targets[-1] = 2 * kinds[0] + kinds[1]
    return Stream(_one_hot(inputs, 6), targets, mask=_last(length, count))


def temporal_xor(triples: int, seed: int = 0) -> Stream:
    """Elman's temporal XOR: bits in threes, the third the exclusive or of the two before it, to be
    predicted one step ahead. Only every third bit can be.

    Args:
        triples: how many.
        seed: of the draws.

    Returns:
        One series [3 · triples, 1], predicting itself one step ahead.

    Source: J. L. Elman, Finding structure in time, Cognitive Science 14 (1990), 3000 bits.
    """
    at_least(1, triples=triples)
    draws = torch.Generator().manual_seed(seed)
    pairs = torch.randint(0, 2, (triples, 2), generator=draws)
    bits = torch.cat([pairs, pairs.sum(1, keepdim=True) % 2], 1).flatten()
    return Stream(bits[:, None].to(torch.get_default_dtype()), horizon=1)


LETTERS = {
    #        consonant vowel interrupted high back voiced
    "b": (1, 0, 1, 0, 0, 1),
    "d": (1, 0, 1, 1, 0, 1),
    "g": (1, 0, 1, 0, 1, 1),
    "a": (0, 1, 0, 0, 1, 1),
    "i": (0, 1, 0, 1, 0, 1),
    "u": (0, 1, 0, 1, 1, 1),
}
"""Elman's vectors, table 1: consonant, vowel, interrupted, high, back, voiced."""

SYLLABLES = {"b": "ba", "d": "dii", "g": "guuu"}


def letter_sequence(consonants: int, seed: int = 0) -> tuple[Stream, str]:
    """Elman's letter sequence: consonants at random, each followed by vowels that it determines: b
    by a, d by ii, g by uuu; six bits a letter, to be predicted one step ahead.

    Args:
        consonants: how many syllables.
        seed: of the draws.

    Returns:
        One series [letters, 6], predicting itself one step ahead; and its letters.

    Source: Elman (1990), 1000 consonants.
    """
    at_least(1, consonants=consonants)
    draws = torch.Generator().manual_seed(seed)
    chosen = torch.randint(0, 3, (consonants,), generator=draws).tolist()
    text = "".join(SYLLABLES["bdg"[i]] for i in chosen)
    vectors = torch.tensor([LETTERS[letter] for letter in text], dtype=torch.get_default_dtype())
    return Stream(vectors, horizon=1), text


def _last(length: int, count: int) -> Tensor:
    mask = torch.zeros(length, count, dtype=torch.bool)
    mask[-1] = True
    return mask


def _one_hot(indices: Tensor, size: int) -> Tensor:
    return torch.nn.functional.one_hot(indices, size).to(torch.get_default_dtype())
