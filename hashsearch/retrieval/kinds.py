"""The kinds of indexes that the method `codes` can be searched by: one row each.

The searcher, the job that builds indexes, the command and the HTTP interface read title, needs
and what is stored from this table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import ADDRESS_BITS
from hashsearch.errors import InvalidGallery

if TYPE_CHECKING:
    from hashsearch.search import Index
    from hashsearch.search.exact import ExactIndex
    from hashsearch.search.held_out import HeldOut

Arrays = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Learned:
    """What is costly to find, and is stored with a gallery.

    parameters: numbers, such as nprobe. arrays: of the whole index, by name. by_image: arrays of
    (n,) unsigned integers, by name, a value for each image.
    """

    parameters: Parameters
    arrays: Arrays = field(default_factory=dict)
    by_image: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexKind:
    """A way to find the nearest codes.

    title: for people. is_exact: whether it finds what comparing all codes finds. columns: of the
    gallery that it needs; side by side, in this order, they are a query's values. build(columns,
    stored, parameters, exact): the index of the columns' rows; stored are the learned arrays,
    those by image with -1 where an image was added later; exact is the index of the same codes,
    which answers what this one cannot. learn(columns, training, held_out, exact, wanted): what is
    stored, of the rows `training`, (m,) int64 in random order, so that the queries held out have
    the wanted recall; None if nothing is stored. radius: in bits, inclusive, of the searches that
    it is made for and that are timed; None if it is made for searches of the nearest.
    """

    title: str
    is_exact: bool
    columns: tuple[str, ...]
    build: "Callable[[Arrays, Arrays, Parameters, ExactIndex], Index]"
    learn: "Callable[[Arrays, NDArray[np.int64], HeldOut, ExactIndex, float], Learned] | None" = (
        None
    )
    radius: int | None = None


def _exact(columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex") -> "Index":
    return exact


def _ivf(columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex") -> "Index":
    from hashsearch.search.ivf import IvfIndex, assign, require_lists
    from hashsearch.search.lists import InvertedLists

    codes, nprobe = columns["codes"], parameters.get("nprobe", 0)
    nothing = np.empty(0)
    centroids, lists = stored.get("centroids", nothing), stored.get("lists", nothing)
    require_lists(len(codes), centroids, lists, nprobe)
    added = np.flatnonzero(lists < 0)
    if len(added):
        lists = lists.copy()
        lists[added] = assign(codes[added], centroids)
    return IvfIndex(InvertedLists(codes, centroids, lists, nprobe), exact)


def _learn_ivf(
    columns: Arrays,
    training: NDArray[np.int64],
    held_out: "HeldOut",
    exact: "ExactIndex",
    wanted: float,
) -> Learned:
    from hashsearch.search.ivf import SAMPLE, assign, choose_nprobe, lists_for, train
    from hashsearch.search.lists import InvertedLists

    codes, n_lists = columns["codes"], lists_for(len(training))
    centroids = train(codes[training[: SAMPLE * n_lists]], n_lists, seed=0)
    lists = assign(codes, centroids)
    tried = InvertedLists(codes, centroids, lists, 1)
    nprobe = choose_nprobe(tried, exact, held_out, wanted)
    return Learned({"nprobe": nprobe}, {"centroids": centroids}, {"lists": lists})


def _buckets(
    columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex"
) -> "Index":
    from hashsearch.search.buckets import BucketIndex

    radius = parameters.get("radius", -1)
    if not 0 <= radius <= ADDRESS_BITS:
        raise InvalidGallery(
            f"the stored radius of the index buckets is {radius}; build it again: "
            "hashsearch gallery build G --kind buckets"
        )
    return BucketIndex(columns["addresses"], columns["codes"], radius)


def _learn_buckets(
    columns: Arrays,
    training: NDArray[np.int64],
    held_out: "HeldOut",
    exact: "ExactIndex",
    wanted: float,
) -> Learned:
    """The smallest ball that has the wanted recall, or the largest that is worth visiting."""
    radius = 0
    while radius < _LARGEST_BALL:
        index = _buckets(columns, {}, {"radius": radius}, exact)
        if held_out.recall(index).mean() >= wanted:
            break
        radius += 1
    return Learned({"radius": radius})


def _multihash(
    columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex"
) -> "Index":
    from hashsearch.search.multihash import MultiHashIndex

    return MultiHashIndex(columns["codes"], exact)


_LARGEST_BALL = 4  # bits: 24,158 addresses, which take a third of a millisecond to visit
RECALL = 0.95  # wanted of an approximate index, unless another is asked for
DEFAULT_KIND = "exact"
KINDS: dict[str, IndexKind] = {
    DEFAULT_KIND: IndexKind("Compares all codes", True, ("codes",), _exact),
    "ivf": IndexKind("Compares the codes of near lists", False, ("codes",), _ivf, _learn_ivf),
    "buckets": IndexKind(
        "Compares the codes at near addresses",
        False,
        ("addresses", "codes"),
        _buckets,
        _learn_buckets,
    ),
    "multihash": IndexKind(
        "Looks up the codes within a small radius", True, ("codes",), _multihash, radius=11
    ),
}
