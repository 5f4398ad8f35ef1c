"""Digits for tests: small made-up ones in MNIST's form, and the real ones where they can be fetched."""

import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from asr_kd.errors import UserError

RECIPE = Path(__file__).parents[3] / "recipes" / "mnist"
sys.path.insert(0, str(RECIPE))  # as `python recipes/mnist/run.py` has it

from digits import data, download, lab, results  # noqa: E402

COUNTS = {"train": 600, "t10k": 200}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten blurred patterns in noise."""
    patterns = np.random.default_rng(1).random((10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = 160 * patterns[labels] + rng.normal(0, 45, (count, 28, 28))
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture
def made_up_files(monkeypatch) -> dict[str, bytes]:
    """The four files of a small data set, whose sums and sizes stand for MNIST's."""
    files, shapes = {}, {}
    for seed, (part, count) in enumerate(COUNTS.items()):
        images, labels = made_up(count, seed)
        files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"] = idx(images), idx(labels)
        shapes |= {f"{part}-images": images.shape, f"{part}-labels": labels.shape}
    sums = {name: hashlib.sha256(contents).hexdigest() for name, contents in files.items()}
    for module in (data, download, lab, results):
        monkeypatch.setattr(module, "SUMS", sums)
    monkeypatch.setattr(data, "SHAPES", shapes)
    return files


@pytest.fixture
def made_up_mnist(tmp_path, made_up_files) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, contents in made_up_files.items():
        (folder / name).write_bytes(contents)
    return folder


@pytest.fixture(scope="session")
def real_mnist(tmp_path_factory) -> Path:
    """The recipe's own download, else a fresh one; the test is skipped where there is neither."""
    folder = RECIPE / "download"
    if not folder.is_dir():
        folder = tmp_path_factory.mktemp("mnist")
    try:
        download.download(folder)
    except UserError as error:
        pytest.skip(str(error))
    return folder
