"""Groups of near-equal pictures in a gallery, and of files with the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BITS
from hashsearch.errors import InvalidGallery, InvalidQuery
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import is_gone_at
from hashsearch.gallery.records import ImageRecord, Place
from hashsearch.models.card import Card
from hashsearch.search.exact import hamming_distances
from hashsearch.search.linking import linked, pair_distances, pairs_in_blocks

MOST_MEASURED = 1000  # distinct codes of a group whose diameter is measured, not bounded
_PAIRED = 64  # groups of at most so many distinct codes are measured together
_SWEEPS = 16


@dataclass(frozen=True, slots=True)
class DuplicateFile:
    """A file of a group of near-equal pictures.

    id: of its image; files with the same bytes have the same id. path, uri, label, width, height,
    missing: as in ImageRecord. size: in bytes. distance: in bits, from the file to keep. keep:
    whether it is the one that is suggested to be kept.

    >>> gallery.duplicates(radius=256)[0].files[0].keep
    True
    """

    id: int
    path: str
    uri: str
    label: str | None
    width: int
    height: int
    size: int
    distance: int
    keep: bool
    missing: bool = False


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Files of near-equal pictures: the one to keep first, then by distance from it.

    diameter: the largest distance between two of them, in bits; a diameter far above the radius
    shows a chain. diameter_is_lower_bound: whether it may be larger, since the group has more
    than 1,000 distinct codes.

    >>> len(gallery.duplicates(radius=256)[0].files)
    300
    """

    files: list[DuplicateFile]
    diameter: int
    diameter_is_lower_bound: bool = False


def default_radius(card: Card) -> int:
    """The distance in bits within which copies of a picture lie, by the model's card.

    Raises InvalidQuery if the card does not say.
    """
    if card.closeness is None:
        raise InvalidQuery("the gallery's model does not say how near copies lie; give a radius")
    return card.closeness.same


def find_duplicates(gallery: GalleryFolder, radius: int) -> list[DuplicateGroup]:
    """Group a gallery's pictures that are linked within a radius in bits, and equal files.

    An image whose bytes are in several existing files is a group even alone. Returns the groups
    in order of diameter, those of more files first, then in order of id.
    """
    ids, codes = _read_codes(gallery)
    of_image, distinct = _distinct(codes)
    labels = linked(distinct, min(radius, CODE_BITS))[of_image]
    copied = gallery.catalog.ids_where("id IN (SELECT image FROM places)", ())
    chosen = np.isin(ids, copied)
    chosen |= np.bincount(labels, minlength=1)[labels] > 1
    positions = np.flatnonzero(chosen)
    positions = positions[np.argsort(labels[positions], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[positions], prepend=-1))
    images = _images(gallery.catalog, ids[positions].tolist(), copied)
    diameters = _diameters(distinct, of_image[positions], starts)
    groups = []
    for members, (diameter, is_bound) in zip(
        np.split(positions, starts[1:]) if len(starts) else (), diameters, strict=True
    ):
        here = [at for at in members.tolist() if ids[at] in images]  # the others were removed
        if sum(len(images[ids[at]].files) for at in here) > 1:
            files = _files([images[ids[at]] for at in here], codes[here])
            groups.append(DuplicateGroup(files, diameter, is_bound))
    return sorted(
        groups,
        key=lambda group: (
            group.diameter,
            -len(group.files),
            min(file.id for file in group.files),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Image:
    """An image, and its files: those that exist, or the first if none does.

    mtime: the oldest of all its places, in nanoseconds.
    """

    record: ImageRecord
    size: int
    mtime: int
    files: list[Place]
    missing: bool


def _read_codes(gallery: GalleryFolder) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The ids and codes of all images: (n,) int64, ascending, and (n, 32) uint8."""
    while True:
        rows = gallery.catalog.rows()
        try:
            codes = gallery.column("codes", rows)
        except InvalidGallery:
            if gallery.catalog.generation() == rows.generation:
                raise  # damaged; otherwise a job compacted or reencoded it meanwhile
        else:
            assert codes is not None, "every gallery keeps codes"
            return rows.ids, codes


def _distinct(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Distinct codes: for each code the position of its equal, (n,) int64, and (n_distinct, 32)."""
    words = codes.view(np.uint64)
    order = np.lexsort(words.T)
    is_new = np.ones(len(codes), bool)
    is_new[1:] = np.any(words[order[1:]] != words[order[:-1]], axis=1)
    of_code = np.empty(len(codes), np.int64)
    of_code[order] = np.cumsum(is_new) - 1
    return of_code, codes[order[is_new]]


def _images(catalog: Catalog, ids: Sequence[int], copied: Sequence[int]) -> dict[int, _Image]:
    """The images with these ids, by id, without those that were removed meanwhile.

    copied: ids of the images that have several places.
    """
    roots = catalog.sources()
    places = catalog.places(copied)
    facts = catalog.sizes_and_times(ids)
    images = {}
    for record in catalog.records(ids):
        if record.id not in facts:
            continue
        known = places.get(record.id) or [Place(record.uri, record.path, record.label)]
        # Sources may overlap, so that two places are one file.
        by_path = {place.path: place for place in reversed(known)}
        known = [by_path[path] for path in dict.fromkeys(place.path for place in known)]
        existing = [place for place in known if not is_gone_at(place.uri, roots)]
        images[record.id] = _Image(
            record, *facts[record.id], existing or known[:1], missing=not existing
        )
    return images


def _files(images: Sequence[_Image], codes: NDArray[np.uint8]) -> list[DuplicateFile]:
    """The files of one group: the one to keep first, then by distance from it and by id.

    codes: (n, 32) uint8, of the images. An image of most pixels is kept, among those the one that
    was changed longest ago, then the one with the lowest id; but no image whose files are gone,
    unless all are.
    """
    best = min(
        range(len(images)),
        key=lambda number: (
            images[number].missing,
            -images[number].record.width * images[number].record.height,
            images[number].mtime,
            images[number].record.id,
        ),
    )
    found = hamming_distances(codes[best : best + 1], codes)[0].tolist()
    order = sorted(
        range(len(images)),
        key=lambda number: (number != best, found[number], images[number].record.id),
    )
    return [
        DuplicateFile(
            id=images[number].record.id,
            path=place.path,
            uri=place.uri,
            label=place.label,
            width=images[number].record.width,
            height=images[number].record.height,
            size=images[number].size,
            distance=found[number],
            keep=number == best and place is images[number].files[0],
            missing=images[number].missing,
        )
        for number in order
        for place in images[number].files
    ]


def _diameters(
    distinct: NDArray[np.uint8], members: NDArray[np.int64], starts: NDArray[np.int64]
) -> list[tuple[int, bool]]:
    """The diameter of each group in bits, and whether it is a lower bound.

    members: positions in `distinct` of the codes of all images, group after group, the first of a
    group at each of `starts`. Groups of up to 64 distinct codes are measured together.
    """
    number_of = np.zeros(len(members), np.int64)
    number_of[starts[1:]] = 1
    codes, first = np.unique(members, return_index=True)
    number = np.cumsum(number_of)[first]
    order = np.argsort(number, kind="stable")
    codes, number = codes[order], number[order]
    ends = np.searchsorted(number, np.arange(len(starts)), "right")
    sizes = np.diff(ends, prepend=0)
    largest = np.zeros(len(starts), np.int64)
    to_pair = np.where(sizes[number] <= _PAIRED, ends[number], 0)
    words = distinct[codes].view(np.uint64)
    for left, right in pairs_in_blocks(np.arange(1, len(codes) + 1), to_pair):
        np.maximum.at(largest, number[left], pair_distances(words, left, right))
    for group in np.flatnonzero(sizes > _PAIRED).tolist():
        of_group = distinct[codes[ends[group] - sizes[group] : ends[group]]]
        largest[group] = _diameter(of_group)
    return list(zip(largest.tolist(), (sizes > MOST_MEASURED).tolist(), strict=True))


def _diameter(codes: NDArray[np.uint8]) -> int:
    """The largest distance between two codes; of more than 1,000 codes, a lower bound.

    The bound is the largest distance from 16 codes, each of them the farthest from the one before.
    """
    if len(codes) <= MOST_MEASURED:
        return int(hamming_distances(codes, codes).max())
    largest, farthest = 0, 0
    for _ in range(_SWEEPS):
        found = hamming_distances(codes[farthest : farthest + 1], codes)[0]
        farthest = int(found.argmax())
        largest = max(largest, int(found[farthest]))
    return largest
