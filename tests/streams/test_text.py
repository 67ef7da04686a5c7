"""Text as indices, networks that embed them, and one label for a sequence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.streams.documents import assert_same_chunks, chunks, examples, folder
from torch import nn

import bptt
from bptt.streams import _csv, _index, _text

ALPHABET = "ab\n é漢🙂"


@examples
@given(
    st.lists(st.text(ALPHABET, min_size=2, max_size=60), min_size=1, max_size=4),
    st.sampled_from(("character", "byte")),
    chunks,
)
def test_text_streams_as_it_encodes(texts: list[str], unit: str, chunk: int) -> None:
    with folder() as place:
        for number, text in enumerate(texts):
            (place / f"{number}").write_bytes(text.encode())
        paths = [place / f"{number}" for number in range(len(texts))]
        stream = bptt.Stream.from_text(
            paths, unit=unit, lanes=min(2, len(texts)), chunk=chunk, cache=place / "cache"
        )
        words = stream.vocabulary
        assert words is not None
        assert unit == "byte" or words == bptt.Vocabulary.of("".join(texts))
        assert [words.decode(words.encode(text)) for text in texts] == texts
        memory = bptt.Stream(
            [words.encode(text) for text in texts], horizon=1, lanes=min(2, len(texts))
        )
        one, other = next(stream.in_order()), next(memory.in_order())
        for start in range(0, one.length, 7):
            assert_same_chunks(one.chunk(start, start + 9), other.chunk(start, start + 9))


def test_offsets_survive_blocks_that_split_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "aé漢🙂\n" * 300
    (tmp_path / "a").write_bytes(text.encode())
    for block in (1, 5, 7, 64):
        monkeypatch.setattr(_text, "BLOCK", block)
        monkeypatch.setattr(_text, "EVERY", 11)
        stream = bptt.Stream.from_text(tmp_path / "a", lanes=3, chunk=13)
        assert stream.vocabulary is not None
        batch = next(stream.in_order())
        chunk = batch.chunk(0, batch.length)
        assert "".join(map(stream.vocabulary.decode, chunk.inputs.T)) == text


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_what_the_system_reads_in_parts_is_read_whole(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does what is larger than 2 GiB."""
    text = "aé漢🙂\n" * 30
    (tmp_path / "a").write_bytes(text.encode())
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, at: real(handle, min(size, 5), at))
    stream = bptt.Stream.from_text(tmp_path / "a", unit=unit, chunk=90)
    assert stream.vocabulary is not None
    batch = next(stream.in_order())
    chunk = batch.chunk(0, batch.length)
    assert "".join(map(stream.vocabulary.decode, chunk.inputs.T)) == text


def test_csv_offsets_survive_blocks_that_split_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{row}.5,{row // 7}" for row in range(300)]
    (tmp_path / "a.csv").write_text("x,g\n" + "\n".join(rows))
    for block in (64, 101, 5000):
        monkeypatch.setattr(_csv, "BLOCK", block)
        stream = bptt.Stream.from_files(
            tmp_path / "a.csv", inputs=["x"], horizon=1, group="g", chunk=13
        )
        batch = next(stream.in_order())
        chunk = batch.chunk(0, batch.length)
        assert chunk.inputs.flatten().tolist() == [row + 0.5 for row in range(300)]
        assert chunk.reset.flatten().nonzero().flatten().tolist() == list(range(7, 300, 7))


def test_bad_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("abcé".encode("latin-1"))
    (tmp_path / "short").write_text("abc")
    (tmp_path / "empty").write_text("")
    with pytest.raises(bptt.DataError, match="latin, character 3: 0xe9 is no UTF-8"):
        bptt.Stream.from_text(tmp_path / "latin")
    assert bptt.Stream.from_text(tmp_path / "latin", unit="byte").steps == 4
    with pytest.raises(bptt.DataError, match="empty is empty"):
        bptt.Stream.from_text([tmp_path / "short", tmp_path / "empty"])
    stream = bptt.Stream.from_text(tmp_path / "short", vocabulary=bptt.Vocabulary("ab"))
    with pytest.raises(bptt.DataError, match="short, character 2: 'c' is not in the vocabulary"):
        next(stream.batches()).chunk(0, 3)
    with pytest.raises(bptt.OptionError, match="every symbol once"):
        bptt.Vocabulary("aa")


def test_a_network_learns_the_next_character(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abcab" * 60)
    stream = bptt.Stream.from_text(tmp_path / "a", lanes=3)
    cell = bptt.cells.Embedded(nn.Embedding(3, 4), bptt.cells.LSTM(4, 8))
    network = bptt.Network(cell, nn.Linear(8, 3), backend="eager")
    optimizer = torch.optim.Adam(network.parameters(), 0.03)
    bptt.fit(
        network,
        stream,
        method=bptt.Truncated(10),
        loss="cross_entropy",
        optimizer=optimizer,
        epochs=8,
        progress=False,
    )
    assert bptt.evaluate(network, stream, "cross_entropy").loss < 0.1


def test_an_embedded_cell_is_the_cell_on_embedded_inputs() -> None:
    embedding = nn.Embedding(5, 2)
    inner = bptt.Stack(bptt.cells.LSTM(2, 3), bptt.cells.GRU(3, 4))
    cell = bptt.cells.Embedded(embedding, inner)
    indices = torch.randint(0, 5, (6, 3))
    outputs, state = bptt.unfold(cell, indices, backend="eager")
    expected, _ = bptt.unfold(inner, embedding(indices), backend="eager")
    assert torch.equal(outputs, expected)
    assert torch.equal(cell.output(state), expected[-1])
    with pytest.raises(bptt.CellError, match=r"from 5 to 5 .* it has 5 rows"):
        bptt.unfold(cell, torch.full((1, 1), 5), backend="eager")
    with pytest.raises(bptt.CellError, match="gives 2 features, but GRU reads 3"):
        bptt.cells.Embedded(embedding, bptt.cells.GRU(3, 4))


def test_one_label_at_the_end_is_a_masked_target() -> None:
    """The gradient is that of the last outputs alone."""
    lengths, labels = [5, 3, 4], [0, 1, 1]
    values = [torch.randn(n, 2) for n in lengths]
    stream = bptt.Stream(
        values,
        [torch.full((n,), label) for n, label in zip(lengths, labels, strict=True)],
        mask=[torch.arange(n) == n - 1 for n in lengths],
        batch=3,
    )
    network = bptt.Network(bptt.cells.GRU(2, 4), nn.Linear(4, 2), backend="eager")
    (update,) = bptt.Full().updates(network, "cross_entropy", stream)
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    scores = torch.cat([network(one[:, None])[0][-1] for one in values])
    loss = nn.functional.cross_entropy(scores, torch.tensor(labels))
    loss.backward()
    assert update.count == 3
    assert update.loss == pytest.approx(loss.item())
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_an_index_is_cached_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,g\n1,a\n2,b\n")
    built = []
    build = _csv._build
    monkeypatch.setattr(_csv, "_build", lambda *given: built.append(1) or build(*given))

    def steps() -> tuple[int, int]:
        stream = bptt.Stream.from_files(
            path, inputs=["x"], horizon=1, group="g", cache=tmp_path / "cache"
        )
        return stream.steps, len(built)

    assert (steps(), steps()) == ((2, 1), (2, 1))
    path.write_text("x,g\n1,a\n2,b\n3,b\n")
    assert (steps(), steps()) == ((3, 2), (3, 2))
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert steps() == (3, 3)
    monkeypatch.setattr(_index, "VERSION", 0)
    assert steps() == (3, 4)
