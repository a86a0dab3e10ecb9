"""How well codes and features find images of the same label, for a training's report."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.evaluation.tiers import Tiers

_RANKS = 1000
_CHUNK = 250  # queries ranked at once, at most
_COUNTS = 2**24  # counted at once, at most, unless one query has more
# As in lightly's benchmarks. Source: Wu et al. 2018, arXiv:1805.01978, which uses 0.07, not 0.1.
_NEIGHBORS, _TEMPERATURE = 200, 0.1

_PerQuery = dict[str, NDArray[np.float64]]  # by name, (n_queries,)


@dataclass(frozen=True, slots=True)
class Question:
    """A retrieval task: gallery and query images with their labels.

    gallery, queries: (n, 32, 32, 3) uint8; their labels: (n,) of one dtype. unseen: whether
    no training may use the gallery either; the queries are never trained on. meaning: what
    queries and gallery are, for people.
    """

    name: str
    gallery: NDArray[np.uint8]
    gallery_labels: NDArray[np.str_]
    queries: NDArray[np.uint8]
    query_labels: NDArray[np.str_]
    unseen: bool = False
    meaning: str = ""

    @property
    def withheld(self) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 images that must not be trained on."""
        return np.concatenate((self.queries, self.gallery)) if self.unseen else self.queries


@torch.no_grad()
def retrieval_by_bits(
    question: Question,
    gallery: NDArray[np.uint8],
    queries: NDArray[np.uint8],
    device: str = "cpu",
) -> dict[str, float]:
    """Measure the ranking by Hamming distance, averaged over all orders of equal distances.

    gallery, queries: (n, n_bits) uint8 bits of the question's images. device: where distances
    are computed. Returns precision_at_1, precision_at_10, map_at_1000 (divided by the relevant
    images among the first 1,000) and knn_accuracy. With fewer gallery images, ranks above
    their number are omitted, and mAP is taken at their number.

    knn_accuracy: the 200 nearest images vote for their labels with weight
    exp(similarity / 0.1), where similarity is 1 - 2·distance / n_bits. If only some of the
    images at one distance are among the 200, all of them vote, each with that share of its
    weight. If n labels tie for the most votes and the query's own is one of them, the query
    counts 1 / n.
    """
    return _means(_by_bits(question, gallery, queries, device))


@torch.no_grad()
def precision_at_10_by_bits(
    question: Question, gallery: NDArray[np.uint8], queries: NDArray[np.uint8], device: str = "cpu"
) -> NDArray[np.float64]:
    """(n_queries,): the precision at 10 of the same ranking, for each query.

    At least 10 gallery images.
    """
    return _together(_by_bits(question, gallery, queries, device))["precision_at_10"]


def _by_bits(
    question: Question, gallery: NDArray[np.uint8], queries: NDArray[np.uint8], device: str
) -> Iterator[_PerQuery]:
    n_bits = gallery.shape[1]
    gallery_labels, query_labels, n_labels = _label_numbers(question)
    cells = (n_bits + 1) * n_labels  # counts per query, one for each distance and label
    signs, query_signs = (_signs(bits, device) for bits in (gallery, queries))
    columns = torch.from_numpy(gallery_labels).to(device)
    weights = np.exp((1 - 2 * np.arange(n_bits + 1) / n_bits) / _TEMPERATURE)

    def measured(rows: slice) -> _PerQuery:
        distances = ((n_bits - query_signs[rows] @ signs.T) / 2).long()
        starts = torch.arange(len(distances), device=device)[:, np.newaxis] * cells
        places = (starts + distances * n_labels + columns).flatten()
        counted = torch.bincount(places, minlength=len(distances) * cells).cpu().numpy()
        counts = counted.reshape(-1, n_bits + 1, n_labels)
        sizes = counts.sum(axis=2)
        tiers = Tiers(sizes, counts[np.arange(len(counts)), :, query_labels[rows]])
        left = np.clip(_NEIGHBORS - (tiers.ends - sizes), 0, sizes)
        shares = weights * left / np.maximum(sizes, 1)
        votes = np.einsum("qt,qtk->qk", shares, counts)
        return _tier_measures(tiers) | {"knn_accuracy": _chance_right(votes, query_labels[rows])}

    at_once = max(1, min(_CHUNK, _COUNTS // cells))
    return (measured(rows) for rows in _chunks(len(queries), at_once))


@torch.no_grad()
def retrieval_by_features(question: Question, gallery: Tensor, queries: Tensor) -> dict[str, float]:
    """Measure the ranking by cosine similarity, like `retrieval_by_bits` by Hamming distance.

    gallery, queries: (n, d) float features of the question's images on one device, not
    necessarily normalised; similarities are computed there in float32. Equal similarities
    are ranked in an order that does not depend on the labels.
    """
    gallery_labels, query_labels, n_labels = _label_numbers(question)
    ranks = min(_RANKS, len(gallery))
    # Shuffled, because data sets are ordered by label and features may all be equal.
    order = np.random.default_rng(0).permutation(len(gallery))
    gallery_labels = gallery_labels[order]
    directions = F.normalize(gallery.float(), dim=1)[torch.from_numpy(order).to(gallery.device)]
    query_directions = F.normalize(queries.float(), dim=1)

    def measured(rows: slice) -> _PerQuery:
        similarities, nearest = (query_directions[rows] @ directions.T).topk(ranks)
        labels = gallery_labels[nearest.cpu().numpy()]
        relevant = (labels == query_labels[rows, np.newaxis]).astype(np.int64)
        tiers = Tiers(np.ones_like(relevant), relevant)  # one image each
        weights = np.exp(similarities[:, :_NEIGHBORS].cpu().double().numpy() / _TEMPERATURE)
        votes = np.zeros((len(labels), n_labels))
        np.add.at(votes, (np.arange(len(labels))[:, np.newaxis], labels[:, :_NEIGHBORS]), weights)
        return _tier_measures(tiers) | {"knn_accuracy": _chance_right(votes, query_labels[rows])}

    return _means(measured(rows) for rows in _chunks(len(queries)))


def distinct(codes: NDArray[np.uint8]) -> int:
    """Number of distinct codes among packed codes, (n, n_bytes) uint8."""
    return len({code.tobytes() for code in codes})


def _label_numbers(question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Labels of the gallery and of the queries as integers, and the number of labels."""
    both = np.concatenate((question.gallery_labels, question.query_labels))
    names, numbers = np.unique(both, return_inverse=True)
    n_gallery = len(question.gallery_labels)
    return numbers[:n_gallery], numbers[n_gallery:], len(names)


def _signs(bits: NDArray[np.uint8], device: str) -> Tensor:
    """Bits as -1 and 1; float32 represents their inner products exactly."""
    return torch.from_numpy(bits).to(device).float() * 2 - 1


def _tier_measures(tiers: Tiers) -> _PerQuery:
    n_gallery = int(tiers.ends[0, -1])
    ks = [k for k in (1, 10) if k <= n_gallery]
    ranks = min(_RANKS, n_gallery)
    shares = (tiers.found_at(np.array(ks)) / ks).T
    precisions = {f"precision_at_{k}": share for k, share in zip(ks, shares, strict=True)}
    return precisions | {f"map_at_{ranks}": tiers.average_precision_at(ranks)[0]}


def _chance_right(votes: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability that a label drawn from those with most votes is the query's own.

    votes: (n_queries, n_labels); labels: (n_queries,). Returns (n_queries,).
    """
    most = votes >= votes.max(axis=1, keepdims=True) * (1 - 1e-9)  # equal up to rounding
    chances: NDArray[np.float64] = most[np.arange(len(labels)), labels] / most.sum(axis=1)
    return chances


def _chunks(n: int, size: int = _CHUNK) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))


def _together(parts: Iterable[_PerQuery]) -> _PerQuery:
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _means(parts: Iterable[_PerQuery]) -> dict[str, float]:
    return {name: round(float(values.mean()), 4) for name, values in _together(parts).items()}
