"""Checkpoints on disk: whole or not there, checked before they are believed, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
from bptt.training import _store
from bptt.training._pack import Packed, pack, unpack

NAMES = (_store.MANIFEST, _store.STATE, _store.TENSORS)


def content(value: float = 1.0) -> Packed:
    return pack({"value": value, "weights": torch.full((5, 3), value)})


def value(found: Any) -> float:
    held = unpack(found.content)
    assert torch.equal(held["weights"], torch.full((5, 3), held["value"]))
    return float(held["value"])


def three(folder: Path) -> list[Path]:
    return [_store.write(folder, content(float(i)), keep=5) for i in range(3)]


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(-9, 9), max_size=4).map(torch.tensor),
)
keys = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, st.integers(), max_size=4).map(Counter),
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, float):
        return one.hex() == other.hex() or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


class TestPack:
    @settings(max_examples=60, deadline=None)
    @given(values)
    def test_what_is_packed_comes_back_from_disk(self, value: Any) -> None:
        packed = pack(value)
        plain = json.loads(json.dumps(packed.plain, allow_nan=False))
        assert same(unpack(Packed(plain, packed.tensors)), value)

    def test_a_mark_among_the_keys_is_no_mark(self) -> None:
        value = {"$": "tensor", "value": "weights"}
        assert unpack(pack(value)) == value

    def test_tensors_in_every_shape_and_sharing(self) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        value = {
            "whole": whole,
            "again": whole,
            "transposed": whole.T,
            "reshaped": whole.view(12),
            "row": whole[1],
            "scalar": torch.tensor(3, dtype=torch.int16),
            "nothing": torch.empty(0, 3),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "flags": torch.tensor([True, False]),
        }
        packed = pack(value)
        assert len(packed.tensors) == len(value) - 1
        found = _store.read(_store.write(Path(self.folder), packed, keep=1))
        back = unpack(found.content)
        assert back["whole"] is back["again"]
        for name, tensor in value.items():
            assert back[name].dtype == tensor.dtype
            assert torch.equal(back[name], tensor), name

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @pytest.mark.parametrize("value", [len, {1, 2}, object(), torch.eye(2).to_sparse(), 1j])
    def test_other_kinds_are_refused_with_their_place(self, value: Any) -> None:
        with pytest.raises(bptt.CheckpointError, match=r"scheduler\.0\.f"):
            pack({"scheduler": [{"f": value}]})

    @pytest.mark.parametrize(
        "plain",
        [
            {"$": "tensor", "value": "absent"},
            {"$": "code", "value": []},
            {"$": "dictionary", "value": [[1]]},
            {"$": "dictionary", "value": [[[], 1]]},
            {"$": "tuple"},
            {"$": ["tuple"], "value": []},
            {"$": "float", "value": "1e3"},
        ],
    )
    def test_what_was_not_packed_is_refused(self, plain: Any) -> None:
        with pytest.raises(bptt.CheckpointError, match="no packed value"):
            unpack(Packed(plain))


class TestFiles:
    def test_the_newest_is_found_and_the_oldest_go(self, tmp_path: Path) -> None:
        for i in range(6):
            _store.write(tmp_path, content(float(i)), keep=3)
        assert len(_store.checkpoints(tmp_path)) == 3
        assert sorted(p.name for p in tmp_path.iterdir())[0] == "checkpoint-00000003"
        found = _store.newest(tmp_path)
        assert value(found) == 5.0
        assert found.damaged == ()

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert _store.newest(tmp_path / "absent") is None
        assert _store.newest(tmp_path) is None

    def test_there_is_no_pickle_and_nothing_else(self, tmp_path: Path) -> None:
        path = _store.write(tmp_path, content(), keep=1)
        assert sorted(p.name for p in path.iterdir()) == sorted(NAMES)
        for name in (_store.MANIFEST, _store.STATE):
            json.loads((path / name).read_text())

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("damage", ["flip", "cut", "remove", "lengthen", "empty"])
    def test_a_damaged_one_is_named_and_the_one_before_used(
        self, name: str, damage: str, tmp_path: Path
    ) -> None:
        *_, newest = three(tmp_path)
        data = (newest / name).read_bytes()
        (newest / name).unlink()
        if damage != "remove":
            middle = len(data) // 2
            changed = {
                "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "cut": data[:middle],
                "lengthen": data + b" ",
                "empty": b"",
            }[damage]
            (newest / name).write_bytes(changed)
        if (name, damage) == (_store.MANIFEST, "lengthen"):
            assert value(_store.newest(tmp_path)) == 2.0  # the same JSON
            return
        found = _store.newest(tmp_path)
        assert value(found) == 1.0
        assert len(found.damaged) == 1
        assert "checkpoint-00000002" in found.damaged[0]
        assert name in found.damaged[0]

    def test_every_single_bit_counts(self, tmp_path: Path) -> None:
        path = _store.write(tmp_path, pack({"w": torch.ones(2)}), keep=1)
        for name in NAMES:
            data = (path / name).read_bytes()
            for bit in range(0, 8 * len(data), 7):
                flipped = bytearray(data)
                flipped[bit // 8] ^= 1 << bit % 8
                (path / name).write_bytes(flipped)
                with pytest.raises(_store.Damaged, match=r"checkpoint-00000000 is damaged"):
                    _store.read(path)
            (path / name).write_bytes(data)
        _store.read(path)

    def test_where_all_are_damaged_all_are_named(self, tmp_path: Path) -> None:
        for path in three(tmp_path):
            (path / _store.STATE).write_bytes(b"{}")
        with pytest.raises(bptt.CheckpointError, match=r"00000002.*00000001.*00000000"):
            _store.newest(tmp_path)

    def test_a_newer_format_is_refused_with_both_versions(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _store.write(tmp_path, content(), keep=2, bptt="0.1.0")
        monkeypatch.setattr(_store, "FORMAT", 7)
        _store.write(tmp_path, content(), keep=2, bptt="9.8.7")
        monkeypatch.undo()
        with pytest.raises(bptt.CheckpointError, match=r"format 7, of bptt 9\.8\.7.* format 1"):
            _store.newest(tmp_path)

    def test_an_endless_manifest_is_not_read(self, tmp_path: Path) -> None:
        path = _store.write(tmp_path, content(), keep=1)
        with open(path / _store.MANIFEST, "wb") as file:
            file.truncate(1 << 40)  # sparse
        with pytest.raises(_store.Damaged, match="too long"):
            _store.read(path)

    def test_deep_json_is_damage(self, tmp_path: Path) -> None:
        path = _store.write(tmp_path, content(), keep=1)
        (path / _store.MANIFEST).write_text("[" * 60_000)
        with pytest.raises(_store.Damaged):
            _store.read(path)

    def test_other_folders_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint-mine").mkdir()
        (tmp_path / ".writing-checkpoint-00000000").mkdir()
        _store.sweep(tmp_path)
        _store.write(tmp_path, content(), keep=1)
        assert (tmp_path / "checkpoint-mine").is_dir()
        assert not list(tmp_path.glob(".*"))


class Fault(Exception):
    pass


class Usage(NamedTuple):
    total: int
    used: int
    free: int


CALLS = ("write", "fsync", "rename", "mkdir", "open")


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, at: int, act: Callable[..., Any]
) -> list[int]:
    """Let call number ``at`` of ``os.name`` do ``act`` instead; tells how many calls there were."""
    real, seen = getattr(os, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        seen[0] += 1
        if seen[0] == at:
            return act(real, *arguments, **options)
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return seen


def raising(number: int) -> Callable[..., Any]:
    def act(real: Any, *arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return act


class TestFaults:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
    @pytest.mark.parametrize("name", CALLS)
    def test_whatever_call_fails_the_last_one_is_intact(
        self, name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        three(tmp_path)
        counted = failing(monkeypatch, name, 0, raising(number))
        _store.write(tmp_path, content(9.0), keep=9)
        monkeypatch.undo()
        assert counted[0]
        for at in range(1, counted[0] + 1):
            failing(monkeypatch, name, at, raising(number))
            with pytest.raises(bptt.CheckpointError) as caught:
                _store.write(tmp_path, content(4.0 + at), keep=9)
            monkeypatch.undo()
            assert str(tmp_path) in str(caught.value)
            assert "intact" in str(caught.value)
            found = _store.newest(tmp_path)
            assert found.damaged == ()
            # The new one counts once it has its name: only flushing that name may still fail.
            assert value(found) in (9.0, 4.0 + at)
            assert not list(tmp_path.glob(".*"))

    def test_short_writes_are_completed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
        assert value(_store.read(_store.write(tmp_path, content(3.0), keep=1))) == 3.0

    @pytest.mark.parametrize("name", ["write", "fsync", "rename"])
    def test_dying_at_any_call_loses_nothing_that_was_whole(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As SIGKILL would: nothing is cleaned up."""

        def die(real: Any, *arguments: Any) -> Any:
            if name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Fault

        three(tmp_path)
        for at in range(1, 7 if name == "rename" else 4):
            failing(monkeypatch, name, at, die)
            monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None)
            keep = 1 if name == "rename" else 9
            with contextlib.suppress(Fault):
                _store.write(tmp_path, content(7.0), keep=keep)
            monkeypatch.undo()
            found = _store.newest(tmp_path)
            assert found.damaged == ()
            assert value(found) in (2.0, 7.0)
            _store.sweep(tmp_path)
            _store.write(tmp_path, content(2.0), keep=9)

    def test_a_full_disk_says_how_much_room_is_needed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        three(tmp_path)
        failing(monkeypatch, "write", 1, raising(errno.ENOSPC))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1200))
        size = 4 * 10**6
        with pytest.raises(bptt.CheckpointError) as caught:
            _store.write(tmp_path, pack(torch.zeros(size // 4)), keep=9)
        said = str(caught.value)
        assert "it takes 4.0 MB, and 1.2 kB are free" in said
        assert "checkpoint-00000002, is intact" in said
        assert "4.0 MB too little. " in said
        assert "Make room and resume" in said

    def test_a_folder_of_another_process_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".writing-checkpoint-00000000").mkdir(parents=True)
        with pytest.raises(bptt.CheckpointError, match="another process"):
            _store.write(tmp_path, content(), keep=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only the superuser mounts a disk; the injected faults are the same")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_disk_that_is_full(small_disk: Path) -> None:
    first = _store.write(small_disk, pack(torch.zeros(7000)), keep=2)
    with pytest.raises(bptt.CheckpointError, match=r"no room .* takes 4\d\.\d kB, and .* are free"):
        _store.write(small_disk, pack(torch.zeros(10_000)), keep=2)
    assert _store.newest(small_disk).path == first
    assert sorted(small_disk.iterdir()) == [first]
