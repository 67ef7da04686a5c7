"""Hostile files out of good ones: every decision is read from a string of bytes.

So one and the same function serves seeded cases, Hypothesis and a coverage-guided fuzzer.
"""

from __future__ import annotations

import copy
import json
import struct
from typing import Any, TypeVar

T = TypeVar("T")


class Draw:
    """Decisions read from ``data``; when it is used up, the first choice each time."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, below: int) -> int:
        size = 1 if below <= 256 else 4
        taken = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(taken, "little") % below if below > 0 else 0

    def choice(self, choices: Any) -> Any:
        return choices[self.number(len(choices))]

    def flag(self) -> bool:
        return self.number(2) == 1

    def bytes(self, most: int) -> bytes:
        size = self.number(most + 1)
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken


WORDS = [
    bytes(8),
    b"\xff" * 8,
    b"\xff" * 4,
    struct.pack("<q", 2**63 - 1),
    struct.pack("<q", 100_000_001),
    struct.pack("<i", -1),
    b"\x00",
    b"\r\n",
    b",",
    b'"',
    b'"\n"',
    b";\t",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"1e999",
    b"nan",
    b"-",
    b"9" * 400,
    b"x" * 200_000,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"../../../../etc/passwd",
]

DEEP = "\x01deep\x01"
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    2**31,
    2**62,
    2**63,
    -(2**63),
    10**300,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "../../../../etc/passwd",
    "/etc/passwd",
    "a" * 100_000,
    "\ud800",
    [],
    {},
    [0] * 10_000,
    [2**31, 2**31, 2**31],
    [-1],
    {"$": "tensor", "value": "../x"},
    {"$": "tuple", "value": None},
    {"$": "dictionary", "value": [[[], 1]]},
    {"$": "counter", "value": [["a", "b"]]},
    DEEP,
]


def damaged(draw: Draw, data: bytes) -> bytes:
    """Bits flipped, ends cut off, stretches removed, doubled or overwritten."""
    for _ in range(1 + draw.number(4)):
        at = draw.number(len(data) + 1)
        kind = draw.number(7)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw.number(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at + 1 + draw.number(64) :]
        elif kind == 3:
            data = (
                data[:at] + data[at : at + 1 + draw.number(64)] * (2 + draw.number(3)) + data[at:]
            )
        elif kind == 4:
            word = draw.choice(WORDS)
            data = data[:at] + word + data[at + (len(word) if draw.flag() else 0) :]
        elif kind == 5:
            data = data[:at] + draw.bytes(16) + data[at:]
        else:
            data = draw.choice(WORDS)[:8] + data[8:]
    return data


def spoiled(draw: Draw, content: Any) -> Any:
    """A JSON value with something in it removed, renamed or replaced."""
    content = json.loads(json.dumps(content))
    for _ in range(1 + draw.number(3)):
        content = _spoil(draw, content)
    return content


def _spoil(draw: Draw, content: Any) -> Any:
    keys: list[Any] = []
    if isinstance(content, dict):
        keys = list(content)
    elif isinstance(content, list):
        keys = list(range(len(content)))
    if not keys or draw.number(6) == 1:
        return copy.deepcopy(draw.choice(VALUES))
    key = draw.choice(keys)
    kind = draw.number(8)
    if kind == 1:
        del content[key]
    elif kind == 2 and isinstance(content, dict):
        content[draw.choice(["", "../x", "$", "\x00", "format"])] = content.pop(key)
    elif kind == 3 and isinstance(content, list):
        content.append(content[key])
    elif kind == 4:
        content[key] = copy.deepcopy(draw.choice(VALUES))
    else:
        content[key] = _spoil(draw, content[key])
    return content


def text(content: Any) -> bytes:
    """JSON with its deep places as deep as they are meant to be."""
    return json.dumps(content).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def spoiled_json(draw: Draw, data: bytes) -> bytes:
    """A JSON file, damaged in its bytes or in its content."""
    if draw.number(4) == 1:
        return damaged(draw, data)
    return text(spoiled(draw, json.loads(data)))


def spoiled_tensors(draw: Draw, data: bytes) -> bytes:
    """A safetensors file, damaged in its bytes, or with another header of the right length."""
    if draw.number(3) == 1:
        return damaged(draw, data)
    size = int.from_bytes(data[:8], "little")
    header = text(spoiled(draw, json.loads(data[8 : 8 + size])))
    length = draw.choice([len(header)] * 6 + [0, 2**63, 99_999_999, len(header) + 1])
    body = data[8 + size :] if draw.flag() else damaged(draw, data[8 + size :])
    return struct.pack("<Q", length) + header + body
