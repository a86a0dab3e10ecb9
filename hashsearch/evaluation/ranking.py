"""Rank a whole gallery for each of many queries, and measure the rankings."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.evaluation.comparisons import Hamming
from hashsearch.evaluation.measured import MeasuredMethod
from hashsearch.evaluation.tasks import Task
from hashsearch.evaluation.threads import chunks
from hashsearch.evaluation.tiers import Tiers
from hashsearch.progress import progress_report

SMALL_RADIUS = 2  # bits; the radius that papers on hashing use
_POINTS = 40  # of the curve


@dataclass(frozen=True)
class Ranked:
    """measures: by name, (n_queries,) a value for each query. curve, ball: as of Result."""

    measures: dict[str, NDArray[np.float64]]
    curve: list[tuple[int, float]]
    ball: list[tuple[float, float, float]]


def rank(
    pool: ThreadPoolExecutor,
    method: MeasuredMethod,
    task: Task,
    gallery: NDArray[Any],
    queries: NDArray[Any],
    ks: list[int],
) -> Ranked:
    """Rank the whole gallery for each query.

    pool: of threads that compute alone. gallery, queries: (n, n_values), what the method keeps
    of the task's images.
    """
    # Sorted by label, the images relevant to a query are one slice of the gallery.
    order = np.argsort(task.gallery.labels, kind="stable")
    labels = task.gallery.labels[order]
    starts, ends = (
        np.searchsorted(labels, task.queries.labels, side) for side in ("left", "right")
    )
    points = np.geomspace(1, len(gallery), _POINTS).round().astype(np.int64)
    curve_ks = np.unique(np.concatenate((points, ks)))
    counted = isinstance(method.comparison, Hamming)
    distances_of = method.comparison.distances_to(gallery[order])

    def measured(some: NDArray[Any], first: int) -> dict[str, NDArray[Any]]:
        distances = distances_of(some)
        own = slice(first, first + len(some))
        slices = map(slice, starts[own].tolist(), ends[own].tolist())
        rows = list(zip(distances, slices, strict=True))
        if counted:
            assert method.n_bits is not None
            tiers = [Tiers.of_integers(*row, method.n_bits + 1) for row in rows]
            return _measures(Tiers.stacked(tiers), ks, curve_ks, ball=True)
        return _joined([_measures(Tiers.of_distances(*row), ks, curve_ks) for row in rows])

    parts: list[dict[str, NDArray[Any]]] = []
    some = chunks(queries, len(gallery))
    firsts = np.cumsum([0, *map(len, some[:-1])])
    what = f"ranking {task.name} by {method.label}"
    with progress_report(what, len(queries), "queries") as report:
        for chunk, part in zip(some, pool.map(measured, some, firsts), strict=True):
            parts.append(part)
            report.advance(len(chunk))
    measures = _joined(parts)
    curve = measures.pop("curve").mean(axis=0).tolist()
    ball: list[tuple[float, float, float]] = []
    if counted:
        images, relevant, empty = measures.pop("ball").sum(axis=0)
        shares_within = relevant / np.maximum(images, 1), relevant / relevant[-1]
        columns = *shares_within, empty / len(queries)
        ball = list(zip(*(column.tolist() for column in columns), strict=True))
    return Ranked(measures, list(zip(curve_ks.tolist(), curve, strict=True)), ball)


def _measures(
    tiers: Tiers, ks: list[int], curve_ks: NDArray[np.int64], *, ball: bool = False
) -> dict[str, NDArray[Any]]:
    """Measures by name, (n_queries,) each; `curve` is (n_queries, n_points).

    curve_ks: the curve's numbers retrieved, which include ks. ball: measure what lies within
    each radius too, for which tiers must be distances in bits; the measure `ball` is
    (1, 3, n_tiers), sums over queries: images, relevant images, queries that have no image.
    """
    found, columns = tiers.found_at(curve_ks), {k: int(np.searchsorted(curve_ks, k)) for k in ks}
    by_found, by_all = tiers.average_precision_at(ks[-1])
    measures = {f"precision_at_{k}": found[:, column] / k for k, column in columns.items()}
    for k, column in columns.items():
        measures[f"recall_at_{k}"] = found[:, column] / tiers.n_relevant
    measures |= {f"map_at_{ks[-1]}": by_found, f"map_at_{ks[-1]}_of_all": by_all}
    measures |= {"map": tiers.average_precision(), "curve": found / curve_ks}
    if ball:
        measures[f"precision_within_{SMALL_RADIUS}"] = tiers.precision_within(SMALL_RADIUS)
        sums = [part.sum(axis=0) for part in (tiers.ends, tiers.found, tiers.ends == 0)]
        measures["ball"] = np.stack(sums)[np.newaxis]
    return measures


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
