"""A map with cached results: what is cached is not computed again, in any codec."""

import io
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr_kd.workspace.cached_map import ARRAYS, Codec, cached_map, cached_rounds, json_codec

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
        NUMBERS.save(paths[number], -number)
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
    assert NUMBERS.load(paths[2]) == 2


def test_damaged_arrays_are_noticed(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    path.write_bytes(b"PK[")
    (result,) = cached_map(lambda shard: {"a": np.array([shard])}, [7], [path], ARRAYS)
    assert result["a"].tolist() == [7]


def written(arrays: dict[str, np.ndarray]) -> io.BytesIO:
    file = io.BytesIO()
    ARRAYS.write(file, arrays)
    file.seek(0)
    return file


def test_arrays_keep_their_bits_and_types(tmp_path: Path) -> None:
    arrays = {"a": np.array([[np.nan, -0.0]], np.float32), "b": np.arange(3, dtype=np.uint16), "c": np.empty((0, 2))}
    copy = ARRAYS.read(written(arrays))
    assert list(copy) == list(arrays)
    for name, array in arrays.items():
        assert copy[name].dtype == array.dtype and copy[name].shape == array.shape
        assert copy[name].tobytes() == array.tobytes()


def test_a_damaged_file_of_arrays_is_not_unpickled() -> None:
    with pytest.raises(ValueError, match="pickle"):
        ARRAYS.read(written({"a": np.array([object()], dtype=object)}))


# --- rounds, each of which depends on the one before


class Sums:
    """Each round adds its number to the sum so far; the round `dies_in` dies once."""

    def __init__(self, dies_in: int | None = None) -> None:
        self.total, self.dies_in = 0, dies_in
        self.ran: list[int] = []

    def run(self, number: int) -> int:
        if number == self.dies_in:
            raise Killed
        self.ran.append(number)
        return self.total + number

    def all_rounds(self, folder: Path, codec: Any = NUMBERS) -> int:
        for total in cached_rounds(self.run, range(5), folder, codec):
            self.total = total
        return self.total


@pytest.mark.parametrize("dies_in", [0, 1, 3, 4])
def test_rounds_go_on_after_the_last_one_and_read_no_other(tmp_path: Path, dies_in: int) -> None:
    with pytest.raises(Killed):
        Sums(dies_in).all_rounds(tmp_path)
    assert len(list(tmp_path.iterdir())) == (1 if dies_in else 0)
    reads = []
    counting = Codec(NUMBERS.write, lambda file: reads.append(1) or NUMBERS.read(file))
    resumed = Sums()
    assert resumed.all_rounds(tmp_path, counting) == 10
    assert resumed.ran == list(range(dies_in, 5)) and len(reads) == (1 if dies_in else 0)
    assert Sums().all_rounds(tmp_path) == 10  # all are finished: the last result alone


def test_rounds_begin_again_where_the_last_one_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Killed):
        Sums(3).all_rounds(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"{")
    again = Sums()
    assert again.all_rounds(tmp_path) == 10 and again.ran == list(range(5))
    assert "is damaged" in caplog.text


def test_large_arrays_are_written_without_a_copy_of_them_all(tmp_path: Path) -> None:
    arrays = {name: np.zeros(1 << 21) for name in "abcd"}  # 16 MB each
    tracemalloc.start()
    try:
        ARRAYS.save(tmp_path / "arrays.npz", arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * arrays["a"].nbytes
