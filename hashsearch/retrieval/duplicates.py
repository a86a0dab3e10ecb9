"""Groups of near-equal pictures in a gallery, and of files with the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    missing: as in ImageRecord; over HTTP, path is None. size: in bytes. distance: in bits, from the
    file to keep. keep: whether it is the one that is suggested to be kept.

    >>> gallery.duplicates(radius=256)[0].files[0].keep
    True
    """

    id: int
    path: str | None
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


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of linked images, in 50 bytes an image; `described` says what files they are.

    They are in order of diameter, those of more files first, then in order of id.

    generation: of the gallery. radius: in bits. ids, codes: (n,) int64 and (n, 32) uint8, of the
    images, group after group, ascending within a group. starts: (n_groups + 1,) int64, where each
    group starts, and n. diameters: (n_groups,) int64, in bits. are_bounds: (n_groups,) bool,
    whether a diameter is a lower bound. copied: (n_copied,) int64, ascending, ids of the images
    that have several places. copies: (n_copied,) int64, the number of files of each.
    """

    generation: int
    radius: int
    ids: NDArray[np.int64]
    codes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    diameters: NDArray[np.int64]
    are_bounds: NDArray[np.bool_]
    copied: NDArray[np.int64]
    copies: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.diameters)

    def file_counts(self, number: int) -> NDArray[np.int64]:
        """The number of files of each image of a group when it was computed, (n_images,)."""
        ids = self.ids[self.starts[number] : self.starts[number + 1]]
        counts = np.ones(len(ids), np.int64)
        is_copied = np.isin(ids, self.copied)
        counts[is_copied] = self.copies[np.searchsorted(self.copied, ids[is_copied])]
        return counts


def find_duplicates(gallery: GalleryFolder, radius: int) -> list[DuplicateGroup]:
    """Group a gallery's pictures that are linked within a radius in bits, and equal files.

    An image whose bytes are in several existing files is a group even alone. Returns the groups
    in order of diameter, those of more files first, then in order of id.
    """
    groups = find_groups(gallery, radius)
    return list(described(gallery.catalog, groups, range(len(groups))).values())


def find_groups(gallery: GalleryFolder, radius: int, threads: int | None = None) -> Groups:
    """Find the groups that `find_duplicates` returns, without looking up their images.

    threads: that compare codes; one for each core by default.
    """
    generation, ids, codes = _read_codes(gallery)
    of_image, distinct = _distinct(codes)
    labels = linked(distinct, min(radius, CODE_BITS), threads)[of_image]
    copied = np.array(gallery.catalog.ids_where("id IN (SELECT image FROM places)", ()), np.int64)
    chosen = np.isin(ids, copied)
    chosen |= np.bincount(labels, minlength=1)[labels] > 1
    positions = np.flatnonzero(chosen)
    positions = positions[np.argsort(labels[positions], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[positions], prepend=-1))
    diameters, are_bounds = _diameters(distinct, of_image[positions], starts)
    ids, codes = ids[positions], codes[positions]
    files = np.ones(len(ids), np.int64)  # of each image
    is_copied = np.flatnonzero(np.isin(ids, copied))
    files[is_copied] = _file_counts(gallery.catalog, ids[is_copied].tolist())
    copies = np.ones(len(copied), np.int64)
    copies[np.searchsorted(copied, ids[is_copied])] = files[is_copied]
    sizes = np.diff(starts, append=len(ids))
    n_files, lowest = np.zeros((2, len(starts)), np.int64)
    if len(starts):
        n_files = np.add.reduceat(files, starts)
        lowest = np.minimum.reduceat(ids, starts)
    order = np.lexsort((lowest, -n_files, diameters))
    order = order[n_files[order] > 1]
    ends = np.concatenate([[0], np.cumsum(sizes[order])])
    moved = np.repeat(starts[order] - ends[:-1], sizes[order]) + np.arange(ends[-1])
    return Groups(
        generation,
        radius,
        ids[moved],
        codes[moved],
        ends,
        diameters[order],
        are_bounds[order],
        copied,
        copies,
    )


def described(
    catalog: Catalog, groups: Groups, numbers: range, most: int | None = None
) -> dict[int, DuplicateGroup]:
    """The files of the groups with these numbers, by number, in their order.

    most: how many files of a group are listed, of the images of the lowest ids; None means all.
    Images that were removed meanwhile are left out, and so are groups of which one file is left.
    """
    spans = {}
    for number in numbers:
        start, end = groups.starts[number : number + 2].tolist()
        if most is not None:
            enough = int(np.searchsorted(np.cumsum(groups.file_counts(number)), most)) + 1
            end = min(end, start + enough)
        spans[number] = slice(start, end)
    wanted = [one for span in spans.values() for one in groups.ids[span].tolist()]
    copied = groups.copied[np.isin(groups.copied, wanted)].tolist()
    images = _images(catalog, wanted, copied, most)
    found = {}
    for number, span in spans.items():
        here = [
            (images[one], code)
            for one, code in zip(groups.ids[span].tolist(), groups.codes[span], strict=True)
            if one in images
        ]
        if sum(len(image.files) for image, _ in here) > 1:
            of_group, codes = zip(*here, strict=True)
            found[number] = DuplicateGroup(
                _files(of_group, np.stack(codes))[:most],
                int(groups.diameters[number]),
                bool(groups.are_bounds[number]),
            )
    return found


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


def _read_codes(gallery: GalleryFolder) -> tuple[int, NDArray[np.int64], NDArray[np.uint8]]:
    """The generation, and the ids and codes of all images: (n,) int64, ascending, and (n, 32)."""
    while True:
        rows = gallery.catalog.rows()
        try:
            codes = gallery.column("codes", rows)
        except InvalidGallery:
            if gallery.catalog.generation() == rows.generation:
                raise  # damaged; otherwise a job compacted or reencoded it meanwhile
        else:
            assert codes is not None, "every gallery keeps codes"
            return rows.generation, rows.ids, codes


def _distinct(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Distinct codes: for each code the position of its equal, (n,) int64, and (n_distinct, 32)."""
    words = codes.view(np.uint64)
    order = np.lexsort(words.T)
    is_new = np.ones(len(codes), bool)
    is_new[1:] = np.any(words[order[1:]] != words[order[:-1]], axis=1)
    of_code = np.empty(len(codes), np.int64)
    of_code[order] = np.cumsum(is_new) - 1
    return of_code, codes[order[is_new]]


def _images(
    catalog: Catalog, ids: Sequence[int], copied: Sequence[int], most: int | None
) -> dict[int, _Image]:
    """The images with these ids, by id, without those that were removed meanwhile.

    copied: ids of the images that have several places. most: places of an image, the first ones,
    at which its files are looked for; None means all.
    """
    roots = catalog.sources()
    places = catalog.places(copied, most)
    facts = catalog.sizes_and_times(ids)
    images = {}
    for record in catalog.records(ids):
        if record.id not in facts:
            continue
        known = places.get(record.id) or [Place(record.uri, record.path, record.label)]
        existing = _existing(known, roots)
        images[record.id] = _Image(
            record, *facts[record.id], existing or known[:1], missing=not existing
        )
    return images


def _file_counts(catalog: Catalog, ids: Sequence[int]) -> list[int]:
    """The number of files of each of these images, which have several places; at least 1."""
    roots, places = catalog.sources(), catalog.places(ids)
    return [max(len(_existing(places.get(one, ()), roots)), 1) for one in ids]


def _existing(places: Sequence[Place], roots: Mapping[str, Path]) -> list[Place]:
    """The places at which a file exists, each file once, as sources may overlap."""
    by_path = {place.path: place for place in reversed(places)}
    files = (by_path[path] for path in dict.fromkeys(place.path for place in places))
    return [place for place in files if not is_gone_at(place.uri, roots)]


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
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The diameter of each group in bits, and whether it is a lower bound, both (n_groups,).

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
    return largest, sizes > MOST_MEASURED


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
