"""The kinds of indexes that the method `codes` can be searched by: one row each.

The searcher, the job that builds indexes, the command and the HTTP interface read title, needs
and what is stored from this table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    gallery that it needs; side by side, in this order, they are a query's values. image_bytes:
    bytes in memory of each image, beside the codes that every searcher holds. build(columns,
    stored, parameters, exact): the index of the columns' rows; stored are the learned arrays,
    those by image with -1 where an image was added later; exact is the index of the same codes,
    which answers what this one cannot. learn(columns, training, held_out, exact, wanted): what is
    stored, of the rows `training`, (m,) int64 in random order, so that the queries held out have
    the wanted recall; None if nothing is stored.
    """

    title: str
    is_exact: bool
    columns: tuple[str, ...]
    image_bytes: int
    build: "Callable[[Arrays, Arrays, Parameters, ExactIndex], Index]"
    learn: "Callable[[Arrays, NDArray[np.int64], HeldOut, ExactIndex, float], Learned] | None" = (
        None
    )


def _exact(columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex") -> "Index":
    return exact


def _ivf(columns: Arrays, stored: Arrays, parameters: Parameters, exact: "ExactIndex") -> "Index":
    from hashsearch.search.ivf import IvfIndex, assign, require_lists

    codes, nprobe = columns["codes"], parameters.get("nprobe", 0)
    centroids, lists = stored["centroids"], stored["lists"]
    require_lists(len(codes), centroids, lists, nprobe)
    added = np.flatnonzero(lists < 0)
    if len(added):
        lists = lists.copy()
        lists[added] = assign(codes[added], centroids)
    return IvfIndex(codes, centroids, lists, nprobe, exact)


def _learn_ivf(
    columns: Arrays,
    training: NDArray[np.int64],
    held_out: "HeldOut",
    exact: "ExactIndex",
    wanted: float,
) -> Learned:
    from hashsearch.search.ivf import SAMPLE, IvfIndex, assign, choose_nprobe, lists_for, train

    codes, n_lists = columns["codes"], lists_for(len(training))
    centroids = train(codes[training[: SAMPLE * n_lists]], n_lists, seed=0)
    lists = assign(codes, centroids)
    index = IvfIndex(codes, centroids, lists, 1, exact)
    nprobe = choose_nprobe(index, held_out, wanted)
    return Learned({"nprobe": nprobe}, {"centroids": centroids}, {"lists": lists})


RECALL = 0.95  # wanted of an approximate index, unless another is asked for
DEFAULT_KIND = "exact"
KINDS: dict[str, IndexKind] = {
    DEFAULT_KIND: IndexKind("Compares all codes", True, ("codes",), 0, _exact),
    # FAISS keeps a copy of each code, and its position in eight bytes.
    "ivf": IndexKind("Compares the codes of near lists", False, ("codes",), 40, _ivf, _learn_ivf),
}
