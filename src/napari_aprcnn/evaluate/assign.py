"""The one-to-one assignment of predicted to true objects, on the sparse graph of those that overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.overlap import OverlapTable

__all__ = ["matched_pairs"]


def matched_pairs(table: OverlapTable, threshold: float) -> NDArray[np.intp]:
    """Choose the pairs that are matched at an IoU threshold.

    The assignment maximises the number of pairs with IoU >= threshold; among those assignments it maximises the summed
    IoU of all its pairs, also those below the threshold, as the stardist package does.

    Parameters
    ----------
    table
        Overlaps of two label images.
    threshold
        IoU, in (0, 1].

    Returns
    -------
    (h,) intp
        Indices into ``table.pair_*``, ascending; every label and every true object occurs at most once.

    Examples
    --------
    >>> from napari_aprcnn.evaluate.overlap import overlap_table
    >>> table = overlap_table(np.array([1, 1, 1, 2]), np.array([5, 5, 5, 5]))
    >>> matched_pairs(table, 0.5).tolist(), matched_pairs(table, 0.2).tolist(), matched_pairs(table, 0.8).tolist()
    ([0], [0], [])
    """
    ious = table.pair_ious
    good = ious >= threshold
    found = np.flatnonzero(good)
    if not len(found):
        return found
    if _apart(table.pair_labels[found]) and _apart(table.pair_truths[found]):
        # No object occurs twice (always so above one half): every good pair is taken.
        return found
    # At most half a pair is to be had from all IoU together, so that the number of pairs comes first.
    n_most = min(len(table.label_ids), len(table.truth_ids))
    chosen = _best(table.pair_labels, table.pair_truths, good + ious / (2 * n_most))
    return chosen[good[chosen]]


def _apart(rows: NDArray[Any]) -> bool:
    return len(np.unique(rows)) == len(rows)


def _best(rows: NDArray[np.intp], columns: NDArray[np.intp], gains: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the edges of the matching of largest total gain; gains are positive."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    # An edge whose ends have no other is in the matching in any case.
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    rest = np.flatnonzero(~alone)
    kept_rows, row = np.unique(rows[rest], return_inverse=True)
    kept_columns, column = np.unique(columns[rest], return_inverse=True)
    n, m = len(kept_rows), len(kept_columns)
    if n > m:
        row, column, n, m = column, row, m, n
    # Every row gets a column of its own to stay unmatched in; the shift keeps all costs positive and changes nothing,
    # as exactly n edges are taken.
    shift = float(gains.max()) + 1.0
    ends = np.concatenate([row, np.arange(n)]), np.concatenate([column, m + np.arange(n)])
    costs = np.concatenate([shift - gains[rest], np.full(n, shift)])
    graph = coo_matrix((costs, ends), shape=(n, m + n)).tocsr()
    taken_row, taken_column = min_weight_full_bipartite_matching(graph)
    real = taken_column < m
    edge_of = {(int(r), int(c)): int(edge) for r, c, edge in zip(row, column, rest, strict=True)}
    chosen = [edge_of[int(r), int(c)] for r, c in zip(taken_row[real], taken_column[real], strict=True)]
    return np.sort(np.concatenate([np.flatnonzero(alone), np.array(chosen, np.intp)])).astype(np.intp)
