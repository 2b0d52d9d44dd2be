from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from livesr.formats.series_spec import SeriesSpec
from livesr.formats.shard_file import ShardError, ShardForm, present, whole_length
from livesr.live.sinks.series import Series
from livesr.live.sinks.shard import Budget, Chunk, Shard, decode, encode, read_chunk, read_index

FORM = ShardForm((12,), 8 * 8 * 2, ("bytes", "blosc", "crc32c"))
PLANES = [np.random.default_rng(i).integers(0, 65536, (8, 8), dtype=np.uint16) for i in range(12)]


def filled(path: Path, commits: int, kept: int = 1 << 20) -> Shard:
    shard = Shard(path, len(PLANES), Budget(kept))
    for i in range(commits):
        shard.add({2 * i: encode(PLANES[2 * i]), 2 * i + 1: encode(PLANES[2 * i + 1])})
        shard.commit()
    return shard


def planes_in(path: Path) -> dict[int, np.ndarray]:
    index = read_index(path, len(PLANES))
    return {
        int(i): decode(read_chunk(path, index[i]), (8, 8), "uint16")
        for i in np.flatnonzero(present(index))
    }


def test_it_is_whole_after_every_commit(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "shard", len(PLANES), Budget(0))
    for i, plane in enumerate(PLANES):
        shard.add({i: encode(plane)})
        shard.commit()
        held = planes_in(shard.path)
        assert sorted(held) == list(range(i + 1))
        assert all(np.array_equal(held[k], PLANES[k]) for k in held)


@given(cut=st.integers(0, 10_000), commits=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_what_is_cut_off_anywhere_is_whole_up_to_a_commit(
    tmp_path_factory, cut: int, commits: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "shard"
    sizes = [0]
    shard = Shard(path, len(PLANES), Budget(0))
    for i in range(commits):
        shard.add({2 * i: encode(PLANES[2 * i]), 2 * i + 1: encode(PLANES[2 * i + 1])})
        shard.commit()
        sizes.append(shard.size)
    left = path.read_bytes()[: min(cut, shard.size)]
    path.write_bytes(left)
    assert whole_length(path, FORM) == max(size for size in sizes if size <= len(left))


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_it_moves_with_all_that_it_holds(tmp_path: Path, kept: int) -> None:
    shard = filled(tmp_path / "shard", 3, kept)
    shard.add({6: encode(PLANES[6])})
    shard.move(tmp_path / "other" / "shard")
    held = planes_in(tmp_path / "other" / "shard")
    assert sorted(held) == list(range(7))
    assert all(np.array_equal(held[k], PLANES[k]) for k in held)
    shard.settle()


def test_what_is_kept_survives_the_loss_of_the_file(tmp_path: Path) -> None:
    shard = filled(tmp_path / "shard", 3)
    shard.path.unlink()
    shard.add({6: encode(PLANES[6])})
    with pytest.raises(FileNotFoundError):
        shard.commit()
    given_up = shard.give_up_pending()
    assert {i: decode(chunk, (8, 8), "uint16").tolist() for i, chunk in given_up.items()} == {
        i: PLANES[i].tolist() for i in range(7)
    }


def test_another_hand_in_the_file_is_noticed(tmp_path: Path) -> None:
    shard = filled(tmp_path / "shard", 2)
    with shard.path.open("ab") as file:
        file.write(b"more")
    shard.add({6: encode(PLANES[6])})
    with pytest.raises(OSError, match="another program changed it"):
        shard.commit()
    shard.give_up_pending()
    assert sorted(planes_in(shard.path)) == list(range(4))


@pytest.mark.skipif(sys.platform == "win32", reason="makes links")
def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "shard").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="is a link"):
        filled(tmp_path / "shard", 1)
    with pytest.raises(OSError, match="is a link"):
        filled(tmp_path / "other", 1).move(tmp_path / "shard")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_memory_is_given_back(tmp_path: Path) -> None:
    budget = Budget(1 << 20)
    shard = Shard(tmp_path / "shard", len(PLANES), budget)
    shard.add({0: encode(PLANES[0])})
    shard.commit()
    assert budget.left < 1 << 20
    shard.release()
    assert budget.left == 1 << 20


@pytest.mark.parametrize("garbage", [b"", b"short", b"x" * 1000])
def test_what_is_no_shard_is_refused(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "shard").write_bytes(garbage)
    with pytest.raises(ShardError):
        read_index(tmp_path / "shard", len(PLANES))
    assert whole_length(tmp_path / "shard", FORM) == 0


def test_an_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    shard = filled(tmp_path / "shard", 1)
    index = read_index(shard.path, len(PLANES))
    shard._index[0] = (1 << 40, 100)
    shard.add({5: encode(PLANES[5])})
    shard.commit()
    assert present(index).sum() == 2
    with pytest.raises(ShardError):
        read_index(shard.path, len(PLANES))


def test_a_chunk_with_another_checksum_is_refused() -> None:
    chunk = encode(PLANES[0])
    with pytest.raises(ShardError, match="checksum"):
        decode(Chunk(chunk.data[:-1] + b"?", chunk.checksum), (8, 8), "uint16")


def test_a_flipped_bit_is_an_error(tmp_path: Path) -> None:
    """For every reader: the checksum is one of the array's codecs."""
    spec = SeriesSpec("raw", "raw", (16, 16), "uint16", 1, ("a", "b"), ("FFFFFF",) * 2, 0.1)
    series = Series(tmp_path / "raw", spec)
    planes = np.random.default_rng(0).integers(0, 65536, (16, 2, 16, 16), dtype=np.uint16)
    for block in planes:
        series.append(tuple(block))
    series.close(16)
    (file,) = (f for f in (tmp_path / "raw" / "0" / "c").rglob("*") if f.is_file())
    whole = file.read_bytes()
    dice = np.random.default_rng(1)
    for _ in range(60):
        at, bit = int(dice.integers(len(whole))), int(dice.integers(8))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        array = zarr.open_array(tmp_path / "raw" / "0", mode="r")
        for t in range(16):
            try:
                assert np.array_equal(array[t], planes[t])
            except (ValueError, RuntimeError):  # refused
                break
        else:
            # What no index points to any more: an index before the last.
            assert at >= _first_index(file, spec.chunks_per_shard, whole)


def _first_index(file: Path, chunks: int, whole: bytes) -> int:
    file.write_bytes(whole)
    return int(read_index(file, chunks)[:, 1].min())
