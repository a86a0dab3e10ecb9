"""Recording that the files of a gallery have moved to another folder."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hashsearch.errors import InvalidSource
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import change_root, move_failures, move_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.naming import join_nested, names_at, uri_at
from hashsearch.gallery.places import file_of, is_lost
from hashsearch.sources.base import encode_path, file_at, is_gone, split_uri

_AT_ONCE = 20_000  # places of one transaction, which blocks other writers for half a second


@dataclass(frozen=True, slots=True)
class Relocation:
    """Numbers of files by outcome of a relocation.

    >>> gallery.index("pictures").failed
    0
    >>> import os
    >>> os.rename("pictures", "photographs")
    >>> gallery.relocate("pictures", "photographs").missing
    0
    """

    found: int  # their files are at the new path
    missing: int  # they have a new path too, but no file is there
    kept: int  # their files are still at the former path, or another image's file is at the new


def relocate(gallery: GalleryFolder, old: Path, new: Path, *, dry_run: bool = False) -> Relocation:
    """Record that a file or folder, with everything in it, was moved or renamed.

    old: its former path: a source, a folder above sources, or what lies in a source. new: its
    path now. dry_run: change nothing. No image is read, and indexing the new place later finds the
    images unchanged. A killed call leaves every image with its old or its new place, and the same
    call continues. Raises InvalidSource if `new` does not exist or lies in `old`, if nothing of
    the gallery lies at `old`, if all files are still there, or if none is at `new`; GalleryBusy;
    and GalleryReadOnly.
    """
    if not new.exists():
        raise InvalidSource(f"{new} does not exist; name the path where the files are now")
    old, new = old.parent.resolve() / old.name, new.parent.resolve() / new.name
    if new.is_dir():  # sources are named by their resolved paths, and what they hold may be links
        new = new.resolve()
    if new == old:
        raise InvalidSource(f"{old} came as the former path and as the new one")
    if new.is_relative_to(old):
        raise InvalidSource(f"{new} lies in {old}; move the files out of it first")
    catalog = gallery.catalog
    with gallery.job_lock():
        moves = _moves(catalog, old, new) or _moves(catalog, old.resolve(), new)
        plans = [Counter(outcome for _, outcome in move.outcomes(catalog)) for move in moves]
        plan = sum(plans, Counter[str]())
        if not plan:
            raise InvalidSource(f"no image of {gallery.folder} lies at {old}")
        if not plan["found"]:
            raise InvalidSource(_why_not(plan, old, new))
        if not dry_run:
            for move, outcomes in zip(moves, plans, strict=True):
                is_whole = not (outcomes["still there"] or outcomes["taken"])
                move.record(catalog, is_whole=is_whole)
            join_nested(catalog)
    return Relocation(plan["found"], plan["missing"], plan["still there"] + plan["taken"])


def _why_not(plan: Counter[str], old: Path, new: Path) -> str:
    if plan["missing"]:
        return f"no file of {old} is at {new}; name the path where the files are now"
    if plan["still there"]:
        return (
            f"the files of {old} are still there; relocate records what was moved, and index adds "
            "what was copied"
        )
    return f"the files at {new} are other images than those of {old}"


@dataclass(frozen=True, slots=True)
class _Move:
    """The move of a source, or of what lies at or below one uri.

    former: the uri, or the source's name. target: the path now.
    """

    former: str
    target: Path

    def outcomes(self, catalog: Catalog) -> Iterator[tuple[str, str]]:
        """Yield every place's uri, and its file's state.

        That is "found" at the new path, "missing" at both, "still there" at the former path, or
        "taken" if another image's file is at the new one.
        Raises InvalidSource if other images are recorded where these files lie now, which moved
        too; that must be recorded first.
        """
        roots, last = catalog.sources(), ""
        names = names_at(catalog, self.target)
        gone = cache(is_gone)  # the members of an archive have one file
        while uris := catalog.uris_under(self.former, last, _AT_ONCE):
            last = uris[-1]
            places = {uri: uri.removeprefix(self.former) for uri in uris}
            others = catalog.known_files([names.uri(place) for place in places.values()])
            for uri, known in catalog.known_files(uris).items():
                here, there = file_of(uri, roots), file_at(self.target, places[uri])
                new = names.uri(places[uri])
                other = others.get(new)
                if not is_lost(uri, known, roots) or (gone(there) and not gone(here)):
                    yield uri, "still there"
                elif other is None or other.key == known.key:
                    yield uri, "missing" if gone(there) else "found"
                elif is_lost(new, other, roots) and not is_lost(new, known, roots):
                    raise InvalidSource(
                        f"another image was indexed at {there}; if its file was moved too, "
                        "relocate that first; otherwise, index its folder first"
                    )
                else:
                    yield uri, "taken"

    def record(self, catalog: Catalog, *, is_whole: bool) -> None:
        """Give every place that has moved its new path. is_whole: whether all have."""
        is_source = split_uri(self.former)[1] == ""
        if is_source and is_whole and self.target not in catalog.sources().values():
            with catalog.transaction() as db:
                change_root(db, self.former, catalog.sources()[self.former], self.target)
                next_generation(db)
            return
        moved = [uri for uri, outcome in self.outcomes(catalog) if outcome in ("found", "missing")]
        if self.target.is_dir() or not is_source:
            uri_at(catalog, self.target)
        else:
            catalog.source_name(self.target)  # of an archive
        names, roots = names_at(catalog, self.target), catalog.sources()
        failed = [
            uri
            for uri in catalog.failures_under(self.former)
            if is_gone(file_of(uri, roots) or self.target)
        ]
        with catalog.transaction() as db:
            move_failures(db, {uri: names.uri(uri.removeprefix(self.former)) for uri in failed})
        for start in range(0, len(moved), _AT_ONCE):
            with catalog.transaction() as db:
                for uri in moved[start : start + _AT_ONCE]:
                    move_place(db, uri, names.uri(uri.removeprefix(self.former)))
                next_generation(db)


def _moves(catalog: Catalog, old: Path, new: Path) -> list[_Move]:
    """What has to be moved in each source that has images at or below a path."""
    moves = []
    for name, root in catalog.sources().items():
        if root.is_relative_to(old):
            moves.append(_Move(name, new / root.relative_to(old)))
        elif old.is_relative_to(root):
            inside = encode_path(os.fspath(old.relative_to(root)))
            moves.append(_Move(f"{name}/{inside}", new))
    return [move for move in moves if catalog.uris_under(move.former, most=1)]
