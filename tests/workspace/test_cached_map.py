"""A map with cached results: what is cached is not computed again, in any codec."""

import math
from pathlib import Path

import numpy as np
import pytest

from asr_kd.workspace.cached_map import ARRAYS, Codec, cached_map, json_codec

NUMBERS: Codec[int] = json_codec(int, int)


class Killed(BaseException):
    """What no code catches by mistake."""


def files(folder: Path, count: int) -> list[Path]:
    return [folder / f"{number}.cached" for number in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("nj", [1, 2])
def test_results_come_in_the_order_of_the_shards_whichever_are_cached(tmp_path: Path, nj: int) -> None:
    paths = files(tmp_path, 6)
    for number in (1, 4):
        paths[number].write_bytes(NUMBERS.pack(-number))
    results = list(cached_map(math.factorial, range(6), paths, NUMBERS, nj=nj))
    assert results == [1, -1, 2, 6, -4, 120]
    assert list(cached_map(math.factorial, range(6), paths, NUMBERS, nj=nj)) == results


def test_a_killed_map_computes_only_what_was_not_finished(tmp_path: Path) -> None:
    computed = []

    def square(number: int) -> int:
        if number == 3 and computed.count(3) == 0:
            computed.append(3)
            raise Killed
        computed.append(number)
        return number * number

    with pytest.raises(Killed):
        list(cached_map(square, range(6), files(tmp_path, 6), NUMBERS))
    assert list(cached_map(square, range(6), files(tmp_path, 6), NUMBERS)) == [0, 1, 4, 9, 16, 25]
    assert computed == [0, 1, 2, 3, 3, 4, 5]
    assert sorted(tmp_path.iterdir()) == files(tmp_path, 6), "no temporary file is left"


@pytest.mark.slow
@pytest.mark.parametrize("nj", [1, 2])
def test_a_damaged_result_is_computed_again(tmp_path: Path, nj: int, caplog: pytest.LogCaptureFixture) -> None:
    paths = files(tmp_path, 4)
    assert list(cached_map(math.factorial, range(4), paths, NUMBERS, nj=nj)) == [1, 1, 2, 6]
    paths[2].write_bytes(b"PK[")
    paths[3].unlink()
    assert list(cached_map(math.factorial, range(4), paths, NUMBERS, nj=nj)) == [1, 1, 2, 6]
    assert "2.cached is damaged" in caplog.text and "computing it again" in caplog.text
    assert NUMBERS.unpack(paths[2].read_bytes()) == 2


def test_damaged_arrays_are_noticed(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    path.write_bytes(b"PK[")
    (result,) = cached_map(lambda shard: {"a": np.array([shard])}, [7], [path], ARRAYS)
    assert result["a"].tolist() == [7]


def test_arrays_keep_their_bits_and_types(tmp_path: Path) -> None:
    arrays = {"a": np.array([[np.nan, -0.0]], np.float32), "b": np.arange(3, dtype=np.uint16), "c": np.empty((0, 2))}
    copy = ARRAYS.unpack(ARRAYS.pack(arrays))
    assert list(copy) == list(arrays)
    for name, array in arrays.items():
        assert copy[name].dtype == array.dtype and copy[name].shape == array.shape
        assert copy[name].tobytes() == array.tobytes()


def test_a_damaged_file_of_arrays_is_not_unpickled() -> None:
    with pytest.raises(ValueError, match="pickle"):
        ARRAYS.unpack(ARRAYS.pack({"a": np.array([object()], dtype=object)}))
