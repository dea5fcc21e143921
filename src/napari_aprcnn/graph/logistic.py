"""Multinomial logistic regression: small enough to be read, stored as JSON, without another dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.frozen import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LogisticModel", "cross_validate", "fit_logistic", "folds"]

Row = tuple[float, ...]
# A feature far outside of what a model has seen counts as this many standard deviations: it must not decide alone.
FARTHEST = 3.0


class LogisticModel(Frozen):
    """A fitted model.

    Attributes
    ----------
    classes
        Names, in the order of the rows of `weights`.
    features
        Names, in the order of the columns of `weights`.
    mean, scale
        Of the features in the training data: features are standardised with them, and cut off at three standard
        deviations. What is not finite is taken for the mean.
    weights, bias
        Of the classes, for standardised features.
    """

    classes: tuple[str, ...] = Field(min_length=2)
    features: tuple[str, ...] = Field(min_length=1)
    mean: Row
    scale: Row
    weights: tuple[Row, ...]
    bias: Row

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rows, columns = len(self.classes), len(self.features)
        if len(self.mean) != columns or len(self.scale) != columns or len(self.bias) != rows:
            raise ValueError(f"expected {columns} means and scales and {rows} biases")
        if len(self.weights) != rows or any(len(row) != columns for row in self.weights):
            raise ValueError(f"expected {rows} rows of {columns} weights")
        if min(self.scale) <= 0:
            raise ValueError("expected scales above 0")
        return self

    def probabilities(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probabilities of the classes.

        Parameters
        ----------
        x : (n, F)
            Features, not standardised.

        Returns
        -------
        (n, K) float64
            Rows sum up to 1.
        """
        scores = _standardised(x, np.array(self.mean), np.array(self.scale)) @ np.array(self.weights).T
        return _softmax(scores + np.array(self.bias))

    def contributions(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Return what each feature adds to the score of each class, (n, K, F)."""
        values = _standardised(x, np.array(self.mean), np.array(self.scale))
        return np.asarray(values[:, None, :] * np.array(self.weights)[None])


def _standardised(x: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    values = (np.asarray(x, float) - mean) / scale
    return np.clip(np.where(np.isfinite(values), values, 0.0), -FARTHEST, FARTHEST)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_logistic(
    x: NDArray[Any], y: NDArray[Any], *, classes: tuple[str, ...], features: tuple[str, ...], l2: float = 0.02
) -> LogisticModel:
    """Fit a model: mean cross-entropy plus half of `l2` times the squared weights; biases are free.

    Parameters
    ----------
    x : (n, F)
        Features; NaN where one is not defined.
    y : [n] integers
        Indices of `classes`.
    classes, features
        Names.
    l2
        Above 0; larger makes weights smaller.

    Returns
    -------
    LogisticModel

    Raises
    ------
    TrainingDataError
        If shapes do not fit, or a class has no sample.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> model = fit_logistic(x, np.array([0, 0, 1, 1]), classes=("low", "high"), features=("size",))
    >>> model.probabilities(np.array([[0.5], [2.5], [4.5]])).round(1)[:, 1].tolist()
    [0.0, 0.5, 1.0]
    """
    from scipy.optimize import minimize

    x, y = np.asarray(x, float), np.asarray(y, np.int64)
    if x.ndim != 2 or x.shape != (len(y), len(features)):
        raise TrainingDataError(f"got features of shape {x.shape}; expected ({len(y)}, {len(features)})")
    missing = [name for index, name in enumerate(classes) if index not in y]
    if missing or y.min(initial=0) < 0 or y.max(initial=0) >= len(classes):
        raise TrainingDataError(f"got no sample of {', '.join(missing) or 'a known class'}; expected all of {classes}")
    known = np.where(np.isfinite(x), x, np.nan)
    mean = np.array([0.0 if np.isnan(column).all() else np.nanmean(column) for column in known.T])
    scale = np.array([0.0 if np.isnan(column).all() else np.nanstd(column) for column in known.T])
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1.0), scale, 1.0)
    inputs, rows, columns = _standardised(x, mean, scale), len(classes), len(features)
    truth = np.eye(rows)[y]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = flat[: rows * columns].reshape(rows, columns), flat[rows * columns :]
        chances = _softmax(inputs @ weights.T + bias)
        value = -float(np.log(np.maximum((chances * truth).sum(axis=1), 1e-300)).mean())
        error = (chances - truth) / len(y)
        gradient = np.concatenate([(error.T @ inputs + l2 * weights).reshape(-1), error.sum(axis=0)])
        return value + 0.5 * l2 * float((weights**2).sum()), gradient

    found = minimize(loss, np.zeros(rows * columns + rows), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    weights, bias = found.x[: rows * columns].reshape(rows, columns), found.x[rows * columns :]
    return LogisticModel(
        classes=classes,
        features=features,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(tuple(row) for row in weights.tolist()),
        bias=tuple((bias - bias.mean()).tolist()),
    )


def folds(y: NDArray[Any], n_folds: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the fold of each sample; every class is spread evenly over the folds.

    Examples
    --------
    >>> sorted(folds(np.array([0, 0, 0, 1, 1, 1]), 3).tolist())
    [0, 0, 1, 1, 2, 2]
    """
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(y), np.int64)
    for name in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == name))
        fold[members] = np.arange(len(members)) % n_folds
    return fold


def cross_validate(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    classes: tuple[str, ...],
    features: tuple[str, ...],
    n_folds: int = 5,
    l2: float = 0.02,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the class that a model fitted to the other folds gives each sample, [n]."""
    fold = folds(y, n_folds, seed=seed)
    guess = np.zeros(len(y), np.int64)
    for number in range(n_folds):
        held = fold == number
        model = fit_logistic(x[~held], y[~held], classes=classes, features=features, l2=l2)
        guess[held] = model.probabilities(x[held]).argmax(axis=1)
    return guess
