"""The tasks of the literature: what they ask is in the data, and guessing costs what is said."""

from __future__ import annotations

import pytest
import torch

import bptt
from bptt import tasks

from .helpers import only


def test_adding_tells_the_sum_of_the_two_marked_numbers_last() -> None:
    batch = only(tasks.adding(20, 4000, seed=1))
    numbers, marks = batch.inputs[..., 0], batch.inputs[..., 1]
    assert bool((marks.sum(0) == 2).all())
    assert bool((marks[:10].sum(0) == 1).all())
    torch.testing.assert_close(batch.targets[-1, :, 0], (numbers * marks).sum(0))
    assert batch.mask.sum(0).tolist() == [1] * 4000
    assert bool(batch.mask[-1].all())
    guess = (batch.targets[-1, :, 0] - 1.0).square().mean()
    assert float(guess) == pytest.approx(1 / 6, rel=0.05)


def test_copying_asks_for_the_same_symbols_after_the_delay() -> None:
    batch = only(tasks.copying(12, 50, seed=1))
    said = batch.inputs.argmax(2)
    assert said.shape == (32, 50)
    assert bool((said[:10] < 8).all())
    assert bool((said[21] == 9).all())
    assert bool((torch.cat([said[10:21], said[22:]]) == 8).all())
    assert torch.equal(batch.targets[-10:], said[:10])
    assert bool((batch.targets[:-10] == 8).all())


def test_temporal_order_is_told_by_which_symbol_came_first_and_second() -> None:
    batch = only(tasks.temporal_order(50, 300, seed=1))
    said = batch.inputs.argmax(2)
    for lane in range(300):
        places = (said[:, lane] < 2).nonzero()[:, 0].tolist()
        assert len(places) == 2
        assert 5 <= places[0] <= 10
        assert 20 <= places[1] <= 25
        first, second = said[places, lane].tolist()
        assert int(batch.targets[-1, lane]) == 2 * first + second
    assert sorted(set(batch.targets[-1].tolist())) == [0, 1, 2, 3]


def test_every_third_bit_is_the_exclusive_or_of_the_two_before_it() -> None:
    batch = only(tasks.temporal_xor(50, seed=1))
    bits = batch.inputs[:, 0, 0].int().reshape(50, 3)
    assert torch.equal(bits[:, 2], bits[:, 0] ^ bits[:, 1])
    assert len({tuple(row) for row in bits.tolist()}) == 4


def test_the_letters_follow_from_their_consonants() -> None:
    stream, text = tasks.letter_sequence(30, seed=1)
    assert stream.steps == len(text)
    rest = text
    for syllable in ("ba", "dii", "guuu"):
        rest = rest.replace(syllable, "")
    assert rest == ""
    batch = only(stream)
    assert batch.inputs[0, 0].tolist() == list(map(float, tasks.LETTERS[text[0]]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tasks.adding(1, 4),
        lambda: tasks.copying(0, 4),
        lambda: tasks.temporal_order(9, 4),
        lambda: tasks.temporal_xor(0),
        lambda: tasks.letter_sequence(0),
    ],
)
def test_sizes_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(bptt.OptionError):
        make()  # type: ignore[operator]  # a table of calls
