"""Hostile files of every format, by what is wrong with them, made out of good ones."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

HUGE = 2**40

Files = dict[str, bytes]


def cut(good: bytes) -> Files:
    """The same kinds of damage for every format: ends cut off, bits flipped, NULs, other bytes."""
    flipped = {
        f"a flipped bit {at}": good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :]
        for at in range(0, len(good), max(1, len(good) // 40))
    }
    ends = {f"cut at {part}/8": good[: len(good) * part // 8] for part in range(8)}
    return {
        **ends,
        **flipped,
        "empty": b"",
        "one byte": good[:1],
        "twice": good * 2,
        "NUL bytes": bytes(5000),
        "NULs in the middle": good[: len(good) // 2] + bytes(64) + good[len(good) // 2 :],
        "not UTF-8": b"\xff\xfe\xc3(" * 500,
        "all bytes": bytes(range(256)) * 40,
    }


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), sink, **options)
    return bytes(sink.getvalue().to_pybytes())


def parquet() -> Files:
    """Files with a column ``u``, or without."""
    good = _parquet({"u": np.arange(64.0), "y": np.arange(64.0)})
    y = np.arange(4.0)
    columns: dict[str, Any] = {
        "text": ["a", "b", "c", "d"],
        "bytes that are no text": [b"\xff", b"\x00", b"", b"\xc3("],
        "lists": [[1.0], [2.0, 3.0], [], None],
        "nested lists": [[[1.0]], [[2.0], [3.0]], [], None],
        "structs": [{"u": 1.0}, {"u": 2.0}, {"u": 3.0}, None],
        "maps": pa.array([[("a", 1.0)]] * 4, pa.map_(pa.string(), pa.float64())),
        "nothing": pa.nulls(4),
        "times": pa.array([1, 2, 3, 4], pa.timestamp("ns")),
        "words of a dictionary": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
        "whole numbers beyond doubles": pa.array([2**63, 2**64 - 1, 0, 1], pa.uint64()),
        "NaN and infinity": [float("nan"), float("inf"), 1.0, 2.0],
    }
    found = {name: _parquet({"u": column, "y": y}) for name, column in columns.items()}
    double = pa.Table.from_arrays([pa.array(y)] * 3, names=["u", "u", "y"])
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(double, sink)
    found["two columns of one name"] = sink.getvalue().to_pybytes()
    found["no rows"] = _parquet({"u": np.empty(0), "y": np.empty(0)})
    found["no columns"] = _parquet({})
    found["a million rows of nothing"] = _parquet({"u": pa.nulls(10**6, pa.float64())})
    found["a footer of 4 GB"] = good[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1"
    found["a bomb of text"] = _parquet({"u": pa.array(["x" * 10**7] * 100), "y": np.arange(100.0)})
    return {**cut(good), **found}


def _npy(array: Any, pickled: bool = False) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.save(made, array, allow_pickle=pickled)
    return made.getvalue()


def npz(good: bytes) -> Files:
    """Archives of arrays in the place of a good one, which holds an array ``starts``."""
    found = {**cut(good)}

    def put(name: str, changed: dict[str, bytes | None], method: int = zipfile.ZIP_STORED) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(made, "w", method) as new:
            for member in old.namelist():
                data = changed.get(member, old.read(member))
                if data is not None:
                    new.writestr(member, data)
        found[name] = made.getvalue()

    huge = _npy(np.zeros(2, np.int64)).replace(b"(2,)", f"({HUGE},)".encode())
    for name, data in {
        "a member that is absent": None,
        "a member that is empty": b"",
        "a member that is text": b"PK" * 90,
        "pickled objects": _npy(np.array([{"a": 1}, None], dtype=object), pickled=True),
        "numbers of another kind": _npy(np.array([0.5, np.nan])),
        "texts": _npy(np.array(["a", "b"])),
        "more dimensions": _npy(np.zeros((2, 2, 2), np.int64)),
        "rows that there are not": _npy(np.array([0, 10**9], np.int64)),
        "rows below zero": _npy(np.array([-5, -1], np.int64)),
        "no rows": _npy(np.empty(0, np.int64)),
        "rows out of order": _npy(np.array([0, 40, 20], np.int64)),
        "a huge size": huge,
    }.items():
        put(name, {"starts.npy": data})
    bomb = _npy(np.zeros(2 * 10**8, np.int8)).replace(b"|i1", b"<i8").replace(b"000000,", b"0000,")
    put("a bomb", {"starts.npy": bomb}, zipfile.ZIP_DEFLATED)
    made = io.BytesIO(good)
    with warnings.catch_warnings(), zipfile.ZipFile(made, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("starts.npy", _npy(np.array([7], np.int64)))
    found["a member twice"] = made.getvalue()
    return found


def safetensors(good: bytes) -> Files:
    """Weights in the place of good ones."""
    size = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]
    first = next(name for name in header if name != "__metadata__")

    def packed(text: bytes, length: int | None = None, data: bytes = body) -> bytes:
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def changed(**about: Any) -> bytes:
        return packed(json.dumps({**header, first: {**header[first], **about}}).encode())

    begin, end = header[first]["data_offsets"]
    text = json.dumps(header).encode()
    twice = text[:-1] + b"," + json.dumps({first: header[first]}).encode()[1:]
    return {
        **cut(good),
        "a header of 2^63 bytes": packed(text, 2**63),
        "a header of 99 MB": packed(text, 99_000_000),
        "a header that is no JSON": packed(b"{" * 50_000),
        "a deep header": packed(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "a huge shape": changed(shape=[2**31, 2**31, 2**31]),
        "a shape below zero": changed(shape=[-1, 4]),
        "another dtype": changed(dtype="F64"),
        "whole numbers": changed(dtype="I32"),
        "an unknown dtype": changed(dtype="object"),
        "offsets beyond the end": changed(data_offsets=[begin, end + 10**12]),
        "offsets backwards": changed(data_offsets=[end, begin]),
        "a tensor twice": packed(twice),
        "a tensor more": packed(
            json.dumps(
                {**header, "x": {**header[first], "shape": [0], "data_offsets": [0, 0]}}
            ).encode()
        ),
        "no tensors": packed(b"{}", data=b""),
        "weights that are NaN": packed(text, data=b"\xff" * len(body)),
    }


def texts() -> Files:
    """Files of text, and of tables in text."""
    good = "u,y\n" + "".join(f"{i},{i * 0.5}\n" for i in range(200))
    table = good.encode()
    return {
        **cut(table),
        "UTF-16": good.encode("utf-16"),
        "half a character at the end": table + "ü".encode()[:1],
        "lone surrogates": table + b"\xed\xa0\x80\n",
        "characters beyond Unicode": table + b"\xf4\x90\x80\x80,1\n",
        "overlong characters": table + b"\xc0\xaf,1\n",
        "a NUL in a number": table + b"1\x002,3\n",
        "a line of 8 MB": table + b"1" * (8 << 20) + b",2\n",
        "a quote that never ends": table + b'"' + b"1,2\n" * 50_000,
        "a header of 200,000 columns": b",".join([b"u"] * 200_000) + b"\n1\n",
        "only a header": b"u,y\n",
        "only ends of lines": b"\r\n" * 2000,
        "old ends of lines": table.replace(b"\n", b"\r"),
    }
