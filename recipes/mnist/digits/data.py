"""MNIST on disk: four idx files whose SHA-256 sums are known.

An idx file is a big-endian header (0, 0, type, number of axes, then the length of each axis as uint32) and the bytes.

Shapes:  N images of 28 x 28 pixels, given flat: P = 784.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from asr_kd.errors import UserError

SIDE = 28
CLASSES = 10
SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SHAPES = {"train-images": (60000, SIDE, SIDE), "train-labels": (60000,)}
SHAPES |= {"t10k-images": (10000, SIDE, SIDE), "t10k-labels": (10000,)}
_FETCH = "fetch it again: recipes/mnist/run.sh --stage 0 --stop-stage 0"


@dataclass(frozen=True)
class Digits:
    """Images and what they show."""

    images: np.ndarray  # (N, P) uint8, 0 is background
    labels: np.ndarray  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: np.ndarray) -> Digits:
        """`chosen`: bools or numbers."""
        return Digits(self.images[chosen], self.labels[chosen])


def read_mnist(folder: Path) -> tuple[Digits, Digits]:
    """The 60,000 training and the 10,000 test images.

    Raises:
      UserError: a file is missing, damaged, or not the one of MNIST.
    """
    parts = {}
    for name, expected in SUMS.items():
        path = folder / name
        contents = _contents(path)
        kind = name.split("-idx")[0]
        array = parse_idx(contents, path)
        if array.shape != SHAPES[kind]:
            raise UserError(f"{path} holds {array.shape} numbers, MNIST's has {SHAPES[kind]}; {_FETCH}")
        if hashlib.sha256(contents).hexdigest() != expected:
            raise UserError(f"{path} is well-formed but not MNIST's file of that name (its SHA-256 differs); {_FETCH}")
        parts[kind] = array
    train, test = (
        Digits(parts[f"{name}-images"].reshape(-1, SIDE * SIDE), parts[f"{name}-labels"].astype(np.int64))
        for name in ("train", "t10k")
    )
    return train, test


def parse_idx(contents: bytes, path: Path) -> np.ndarray:
    """An idx file of bytes -> uint8 array of any number of axes.

    Raises:
      UserError: no idx file, another type than bytes, or more or fewer bytes than its header promises.
    """
    if len(contents) < 4:
        raise UserError(f"{path} is cut short: {len(contents)} bytes are no idx file; {_FETCH}")
    zero, kind, axes = struct.unpack(">HBB", contents[:4])
    if zero != 0 or kind != 8 or not 1 <= axes <= 4:
        raise UserError(f"{path} begins with {contents[:4].hex()}, not as an idx file of bytes (000008..); {_FETCH}")
    start = 4 + 4 * axes
    if len(contents) < start:
        raise UserError(f"{path} is cut short: its header of {axes} axes is not whole; {_FETCH}")
    shape = struct.unpack(f">{axes}I", contents[4:start])
    if len(contents) - start != prod(shape):
        raise UserError(
            f"{path}: its header promises {prod(shape)} bytes ({' x '.join(map(str, shape))}), "
            f"{len(contents) - start} are there; {_FETCH}"
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_FETCH}") from None
