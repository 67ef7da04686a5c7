"""A character-level language model, streamed from a text file of any size.

Without a file it reads the help texts that come with Python. A file, and its index, are never in
memory as a whole:

    python examples/character_model.py book.txt
"""

import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import torch

import bptt


def sample(network: bptt.Network, words: bptt.Vocabulary, begin: str, length: int) -> str:
    """``begin``, and ``length`` characters drawn one after the other from the predictions."""
    state, indices = None, words.encode(begin).tolist()
    for position in range(len(begin) + length - 1):
        scores, state = network.step(torch.tensor([indices[position]]), state)
        if position + 1 == len(indices):
            indices.append(int(torch.multinomial(torch.softmax(scores[0], dim=0), 1)))
    return words.decode(indices)


def train(path: Path, epochs: int, hidden: int) -> float:
    stream = bptt.Stream.from_text(path, lanes=16)
    words = stream.vocabulary
    assert words is not None
    learn, test = stream.split(0.9)
    embedding = torch.nn.Embedding(len(words), 16)
    cell = bptt.cells.Embedded(embedding, bptt.cells.GRU(16, hidden))
    network = bptt.Network(cell, torch.nn.Linear(hidden, len(words)))
    bptt.fit(
        network,
        learn,
        method=bptt.Truncated(50),
        loss="cross_entropy",
        optimizer=torch.optim.Adam(network.parameters(), lr=5e-3),
        epochs=epochs,
        clip=1.0,
        seed=0,
    )
    # The test part is entered by a pass over all that precedes it, so that the state is right.
    loss = bptt.evaluate(network, test, "cross_entropy").loss
    print(f"{loss:.3f} nats a character on the last tenth of the text, {len(words)} characters")
    print(sample(network, words, "The ", 200))
    return loss


def main(
    path: str | None = None, characters: int = 200_000, epochs: int = 4, hidden: int = 128
) -> float:
    torch.manual_seed(0)
    if path is not None:
        return train(Path(path), epochs, hidden)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "topics.txt"
        text.write_text("\n".join(topics.values())[:characters], encoding="utf-8")
        return train(text, epochs, hidden)


if __name__ == "__main__":
    main(*sys.argv[1:2])
