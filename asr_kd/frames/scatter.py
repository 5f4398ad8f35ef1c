"""How frames scatter within their classes and between them, gathered block by block.

Shapes:  n inputs at a time, D dimensions, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Scatter:
    """Counts (C,), sums (C, D) by class, and the sum of all products (D, D)."""

    def __init__(self, num_classes: int, num_dims: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)
        self.sums = np.zeros((num_classes, num_dims))
        self.products = np.zeros((num_dims, num_dims))

    def add(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Inputs (n, D), whose products are taken in their own type and added up in float64; labels (n,) in [0, C)."""
        if not len(labels):
            return
        self.counts += np.bincount(labels, minlength=len(self.counts))
        self.products += inputs.T @ inputs
        order = np.argsort(labels, kind="stable")
        present, firsts = np.unique(labels[order], return_index=True)
        self.sums[present] += np.add.reduceat(inputs[order].astype(np.float64, copy=False), firsts, axis=0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(D,) of all inputs."""
        mean: NDArray[np.float64] = self.sums.sum(0) / self.counts.sum()
        return mean

    def within(self, ridge: float) -> NDArray[np.float64]:
        """(D, D) covariance around the classes' means; `ridge` of the mean variance is added to each variance."""
        within: NDArray[np.float64] = (self.products - self._squares()) / self.counts.sum()
        within += ridge * np.trace(within) / len(within) * np.eye(len(within))
        return within

    def between(self) -> NDArray[np.float64]:
        """(D, D) covariance of the classes' means, each as often as it has inputs."""
        between: NDArray[np.float64] = self._squares() / self.counts.sum() - np.outer(self.mean, self.mean)
        return between

    def _squares(self) -> NDArray[np.float64]:
        """(D, D) sum over inputs of the product of their class's mean with itself."""
        squares: NDArray[np.float64] = (self.sums / np.maximum(self.counts, 1)[:, None]).T @ self.sums
        return squares
