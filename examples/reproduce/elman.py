"""Elman's temporal XOR and letter sequence.

J. L. Elman, Finding structure in time (1990). His network went one step back; here the whole
sequence, with `Truncated(1)` beside it, which is his.

python examples/reproduce/elman.py
"""

import torch
from torch import Tensor, nn

import bptt
from bptt import tasks


def train(stream: bptt.Stream, sizes: tuple[int, int], method: object, epochs: int) -> Tensor:
    """The squared error of every step's prediction, [time, feature], after training."""
    torch.manual_seed(1)
    features, hidden = sizes
    readout = nn.Sequential(nn.Linear(hidden, features), nn.Sigmoid())
    network = bptt.Network(bptt.cells.Elman(features, hidden), readout)
    bptt.fit(
        network,
        stream,
        method=method,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        epochs=epochs,
        clip=1.0,
        progress=False,
    )
    (batch,) = stream.in_order()
    predictions = bptt.predict(network, stream)
    return (predictions - batch.targets[:, 0]).square()[:-1]


def xor(triples: int, hidden: int, method: object, epochs: int) -> list[float]:
    """The mean squared error of the predictions of the first, second and third bit of a triple."""
    error = train(tasks.temporal_xor(triples), (1, hidden), method, epochs)[:, 0]
    # Row t predicts bit t + 1: rows 0, 1, 2 are of the second, third and first bit.
    second, third, first = (float(error[k::3].mean()) for k in range(3))
    return [first, second, third]


def letters(consonants: int, hidden: int, method: object, epochs: int) -> list[float]:
    """The root mean squared error over the six bits, where a consonant comes and where a vowel."""
    stream, text = tasks.letter_sequence(consonants)
    error = train(stream, (6, hidden), method, epochs).mean(dim=1)
    coming = torch.tensor([letter in "bdg" for letter in text[1:]])
    return [float(error[coming].mean().sqrt()), float(error[~coming].mean().sqrt())]


def main(
    triples: int = 1000, consonants: int = 1000, epochs: int = 200, hidden: int = 20
) -> dict[str, list[float]]:
    found = {}
    # Elman's went one step back at every step: so many more updates an epoch need fewer epochs.
    for name, method, passes in (
        ("one step back", bptt.Truncated(1), max(epochs // 40, 1)),
        ("full", bptt.Full(), epochs),
    ):
        found[f"xor, {name}"] = xor(triples, 4, method, passes)
        found[f"letters, {name}"] = letters(consonants, hidden, method, passes)
    for name, errors in found.items():
        print(f"{name:24}" + "  ".join(f"{error:.3f}" for error in errors))
    return found


if __name__ == "__main__":
    main()
