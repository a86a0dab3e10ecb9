"""Measures of rankings that do not depend on how equal distances are ordered.

Integer distances tie, often by the hundred, and the order that a ranking gives to tied images
changes its measures. Here every measure is its expected value over random orders of tied
images, so that it depends on the distances alone.

Source: McSherry and Najork 2008, *Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores* (ECIR).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Tiers:
    """A gallery as each query sees it: tiers of equal distance, the nearest first.

    sizes, relevant: (n_queries, n_tiers) int64, images in each tier and those of them that
    are relevant. A tier may be empty. Every query has the whole gallery. ends, found: images,
    and relevant ones, up to the end of each tier.
    """

    def __init__(self, sizes: NDArray[np.int64], relevant: NDArray[np.int64]):
        self.sizes, self.relevant = sizes, relevant
        self.ends, self.found = sizes.cumsum(axis=1), relevant.cumsum(axis=1)
        gains = _expected_gain(self.ends - sizes, self.found - relevant, sizes, relevant)
        # The sum expected of precision at each relevant image up to the end of each tier.
        self._gained = gains.cumsum(axis=1)

    @classmethod
    def of_integers(cls, distances: NDArray[np.integer], relevant: slice, n_tiers: int) -> "Tiers":
        """One query's, a tier for every integer below n_tiers.

        distances: (n_gallery,), each of them from 0 to n_tiers - 1. relevant: where in the
        gallery the relevant images lie, which are side by side.
        """
        sizes = np.bincount(distances, minlength=n_tiers)
        found = np.bincount(distances[relevant], minlength=n_tiers)
        return cls(sizes[np.newaxis], found[np.newaxis])

    @classmethod
    def of_distances(cls, distances: NDArray[np.int32 | np.float32], relevant: slice) -> "Tiers":
        """One query's, a tier for every distance at which a relevant image lies, and one for
        all images between two of these, whose order does not matter.

        distances: (n_gallery,); relevant: as of `of_integers`.
        """
        ordered = np.sort(distances)
        found, counts = np.unique(distances[relevant], return_counts=True)
        starts = np.searchsorted(ordered, found, "left")
        ends = np.searchsorted(ordered, found, "right")
        edges = np.concatenate(([0], np.column_stack((starts, ends)).ravel(), [len(ordered)]))
        sizes = np.diff(edges)
        shown = np.zeros_like(sizes)
        shown[1::2] = counts
        return cls(sizes[np.newaxis], shown[np.newaxis])

    @classmethod
    def stacked(cls, parts: "list[Tiers]") -> "Tiers":
        """Tiers of many queries; one that has fewer gets empty ones at its end."""
        most = max(part.sizes.shape[1] for part in parts)

        def filled(tiers: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.pad(tiers, ((0, 0), (0, most - tiers.shape[1])))

        sizes = np.concatenate([filled(part.sizes) for part in parts])
        return cls(sizes, np.concatenate([filled(part.relevant) for part in parts]))

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        """(n_queries,): relevant images in the whole gallery."""
        return self.found[:, -1]

    def found_at(self, ks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Relevant images expected among the first k of each query.

        ks: (n,), each from 1 to the gallery's size. Returns (n_queries, n).
        """
        assert ks.min() >= 1, ks
        assert ks.max() <= self.ends[0, -1], f"{ks.max()} of {self.ends[0, -1]}"
        # From one tier's end to the next the expectation is a straight line.
        rows = zip(self.ends, self.found, strict=True)
        return np.stack(
            [np.interp(ks, np.append(0, ends), np.append(0, found)) for ends, found in rows]
        )

    def precision_within(self, tier: int) -> NDArray[np.float64]:
        """Share of the images in tiers 0 to `tier` that are relevant; 0 if these tiers are empty.

        Of Hamming distances, which have a tier each: precision within a radius, inclusive.
        Returns (n_queries,).
        """
        ends: NDArray[np.int64] = self.ends[:, tier]
        shares: NDArray[np.float64] = self.found[:, tier] / np.maximum(ends, 1)
        return shares

    def average_precision(self) -> NDArray[np.float64]:
        """Average precision of the whole ranking: the mean of precision at each relevant image.

        Returns (n_queries,); 0 for a query of which no image is relevant.
        """
        averages: NDArray[np.float64] = self._gained[:, -1] / np.maximum(self.n_relevant, 1)
        return averages

    def average_precision_at(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Average precision of the first k: precision at each relevant one of them, summed, divided
        by the number of relevant images among the first k, and by that of all there are.

        k: from 1 to the gallery's size. Returns two (n_queries,); 0 where the divisor is.
        """
        by_found, by_all = np.zeros(len(self.ends)), np.zeros(len(self.ends))
        for query, ends in enumerate(self.ends):
            cut = int(np.searchsorted(ends, k))  # the tier in which k lies
            before = int(ends[cut] - self.sizes[query, cut])
            found = int(self.found[query, cut] - self.relevant[query, cut])
            size, relevant = int(self.sizes[query, cut]), int(self.relevant[query, cut])
            whole = self._gained[query, cut - 1] if cut else 0.0
            # How many of the cut tier's relevant images are among those taken of it.
            drawn, chances = _hypergeometric(size, relevant, k - before)
            sums = whole + _expected_gain(before, found, k - before, drawn)
            counted = np.maximum(found + drawn, 1)
            by_found[query] = chances @ (sums / counted)
            by_all[query] = chances @ sums / max(int(self.n_relevant[query]), 1)
        return by_found, by_all


def _expected_gain(
    before: NDArray[np.int64] | int,
    found: NDArray[np.int64] | int,
    size: NDArray[np.int64] | int,
    relevant: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Expected sum of precision at the relevant images of a tier in random order.

    before, found: images ranked before the tier, and the relevant ones of them; size,
    relevant: the tier's own. At the tier's place i, from 1, an image is relevant with chance
    relevant / size, and of the i - 1 others before it (relevant - 1) / (size - 1) are.
    """
    total = int(np.max(before + size))
    harmonic = _harmonic(1 << total.bit_length())
    inverse = harmonic[before + size] - harmonic[before]  # sum of 1 / (before + i)
    others = size - (np.asarray(before) + 1) * inverse  # sum of (i - 1) / (before + i)
    chance = relevant / np.maximum(size, 1)
    share = (relevant - 1) / np.maximum(np.asarray(size) - 1, 1)
    return chance * ((np.asarray(found) + 1) * inverse + share * others)


def _hypergeometric(
    size: int, relevant: int, taken: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many relevant images are among those taken of a tier, and how likely each number is."""
    drawn = np.arange(max(0, taken - (size - relevant)), min(taken, relevant) + 1)
    logs = _log_factorials(1 << size.bit_length())

    def choices(n: int, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
        return logs[n] - logs[k] - logs[n - k]

    chances = np.exp(
        choices(relevant, drawn) + choices(size - relevant, taken - drawn) - choices(size, taken)
    )
    return drawn, chances


@lru_cache(maxsize=2)
def _harmonic(n: int) -> NDArray[np.float64]:
    """(n + 1,): the harmonic numbers 0 to n, sums of 1 / i up to each."""
    return np.concatenate(([0.0], np.cumsum(1 / np.arange(1, n + 1))))


@lru_cache(maxsize=2)
def _log_factorials(n: int) -> NDArray[np.float64]:
    """(n + 1,): logarithms of the factorials of 0 to n."""
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
