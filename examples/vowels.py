"""Sequence classification: who speaks? Recordings of unequal length, one label at the end of each.

The set is JapaneseVowels (M. Kudo, J. Toyama and M. Shimbo, 1999): nine speakers say two vowels, 12
numbers a step, 7 to 29 steps. It comes with the package aeon (pip install aeon); without it a
synthetic set of the same form takes its place.

    python examples/vowels.py
"""

import torch
from torch import Tensor

import bptt

Recordings = tuple[list[Tensor], list[int]]
"""Sequences [time, feature] and the class of each."""


def vowels() -> tuple[Recordings, Recordings]:
    """JapaneseVowels, to learn from and to be tested on.

    Raises:
        ImportError: aeon is not installed.
    """
    from aeon.datasets import load_japanese_vowels

    parts = []
    for split in ("train", "test"):
        values, labels = load_japanese_vowels(split=split)
        sequences = [torch.tensor(one.T, dtype=torch.float32) for one in values]
        parts.append((sequences, [int(label) - 1 for label in labels]))
    return parts[0], parts[1]


def synthetic(count: int) -> Recordings:
    """Three classes that differ in the order of two pulses, and in how many there are."""
    sequences, labels = [], []
    for index in range(count):
        label = index % 3
        length = int(torch.randint(7, 30, ()))
        values = 0.1 * torch.randn(length, 2)
        first, second = sorted(torch.randperm(length)[:2].tolist())
        values[first, label % 2] += 1
        values[second, 1 if label == 2 else 1 - label] += 1
        sequences.append(values)
        labels.append(label)
    return sequences, labels


def stream(recordings: Recordings, **options: int) -> bptt.Stream:
    """Every step has its sequence's label for a target; the last step alone counts."""
    sequences, labels = recordings
    targets = [torch.full((len(s),), k) for s, k in zip(sequences, labels, strict=True)]
    last = [torch.arange(len(s)) == len(s) - 1 for s in sequences]
    return bptt.Stream(sequences, targets, mask=last, **options)


def main(made_up: bool = False, count: int = 300, epochs: int = 40) -> float:
    torch.manual_seed(0)
    try:
        train, test = vowels() if not made_up else (synthetic(count), synthetic(count))
    except ImportError:
        print("aeon is not installed (pip install aeon): a synthetic set takes its place")
        train, test = synthetic(count), synthetic(count)
    features, classes = train[0][0].shape[1], max(train[1]) + 1
    network = bptt.Network(bptt.cells.LSTM(features, 32), torch.nn.Linear(32, classes))
    bptt.fit(
        network,
        stream(train, batch=30, shuffle=0),
        loss="cross_entropy",
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-2),
        epochs=epochs,
        clip=1.0,
        seed=0,
    )
    scores = bptt.predict(network, stream(test, batch=100))
    wrong = [int(s[-1].argmax()) != label for s, label in zip(scores, test[1], strict=True)]
    error = sum(wrong) / len(wrong)
    print(f"{error:.1%} of {len(wrong)} test sequences misjudged, {classes} classes")
    return error


if __name__ == "__main__":
    main()
