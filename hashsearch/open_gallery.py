"""An open gallery, as Python programs use it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from os import PathLike
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidGallery, InvalidImage, InvalidQuery
from hashsearch.exports.targets import INDEXES, ExportOptions, ExportSummary, export_to
from hashsearch.gallery.built import BuiltIndex, usable_indexes
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.naming import names_of
from hashsearch.gallery.places import present, uris_named
from hashsearch.gallery.records import Failure, ImageRecord
from hashsearch.inputs import (
    PathOrName,
    checked_path,
    described,
    image_file_bytes,
    shortened,
    text,
    whole,
    whole_numbers,
)
from hashsearch.jobs.excluding import remarks_on_patterns
from hashsearch.jobs.index.executing import LocalExecutor, StartExecutor
from hashsearch.jobs.index.indexing import IndexSummary, index_sources, require_images
from hashsearch.jobs.index.workers import end_if_main_is_imported
from hashsearch.jobs.relocating import Relocation, relocate
from hashsearch.jobs.removing import remove
from hashsearch.progress import Progress, reported_to
from hashsearch.retrieval.kinds import RECALL
from hashsearch.retrieval.live_searcher import LiveSearcher
from hashsearch.retrieval.ranking import Hit, Ranking
from hashsearch.retrieval.searcher import Searcher
from hashsearch.search_options import Queryable, SearchOptions, query_of, searched
from hashsearch.sources import DataFolders, Source, open_source
from hashsearch.sources.base import valid_text
from hashsearch.sources.excluding import TriedSource, pattern_of
from hashsearch.sources.folder import ImageFile
from hashsearch.sources.labels import LabelledSource, Labels

if TYPE_CHECKING:
    from hashsearch.retrieval.duplicates import DuplicateGroup

P = ParamSpec("P")
T = TypeVar("T")

_BATCH = 500  # records read at once by an iteration


def _of_one_gallery(
    method: "Callable[Concatenate[Gallery, P], T]",
) -> "Callable[Concatenate[Gallery, P], T]":
    """Call a method again if another gallery replaced the one that it used meanwhile."""

    @wraps(method)
    def call(gallery: "Gallery", /, *arguments: P.args, **named: P.kwargs) -> T:
        while True:
            storage = gallery._storage
            try:
                result = method(gallery, *arguments, **named)
            except Exception:  # of any class, if files disappear while they are read
                if gallery._uses(storage):
                    raise
            else:
                if gallery._uses(storage):
                    return result

    return call


class Gallery:
    """An open gallery: images on disk that can be searched, as `open` returns it.

    It is a context manager, has a length, and iterates over its images' records; `in` says
    whether it holds an id. It may be used from several threads at once. Changes by other
    processes are seen by the next call. If another gallery has replaced its folder, the next
    call opens that one; if the folder is gone, calls raise InvalidGallery until it is back.

    >>> with hashsearch.open("gallery") as gallery:
    ...     len(gallery)
    300
    """

    def __init__(self, storage: GalleryFolder, named: Path):
        """storage: an open gallery folder; named: its path as given; users call `open`."""
        self._opened, self._named = storage, named
        self._live: LiveSearcher | None = None
        self._lock = RLock()  # one thread reads the indexes, the others wait for it
        self._is_closed = False
        self._process = os.getpid()

    @property
    def _storage(self) -> GalleryFolder:
        """The gallery that is at the path now."""
        if self._is_closed:
            raise InvalidGallery(f"{self._named} is closed; open it again")
        if os.getpid() != self._process:  # SQLite forbids it, and the indexes' threads are gone
            raise InvalidGallery(
                f"{self._named} was opened before this process was forked; open it after the fork"
            )
        if not self._opened.catalog.is_in_place():
            with self._lock:
                if not self._opened.catalog.is_in_place():
                    self._opened = self._opened.reopened()
        return self._opened

    def _uses(self, storage: GalleryFolder) -> bool:
        """Whether nothing but this gallery was at the path since it was opened."""
        return self._is_closed or (self._opened is storage and storage.catalog.is_in_place())

    def __enter__(self) -> "Gallery":
        _ = self._storage  # raises InvalidGallery if it is closed
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hashsearch.Gallery {str(self._named)!r}>"

    def close(self) -> None:
        """Close the gallery's files; nothing has to be saved.

        >>> gallery.close()
        """
        self._is_closed = True
        self._live = None
        if os.getpid() == self._process:  # a forked process must leave SQLite's files alone
            self._opened.close()

    @_of_one_gallery
    def __len__(self) -> int:
        """Number of images."""
        return self._storage.catalog.count()

    def __bool__(self) -> bool:
        return True  # an empty gallery is a gallery

    def __iter__(self) -> Iterator[ImageRecord]:
        """Every image's record, in order of id."""
        catalog = self._storage.catalog
        ids = catalog.rows().ids
        for start in range(0, len(ids), _BATCH):
            if self._storage.catalog is not catalog:
                raise InvalidGallery(f"{self._named} was replaced by another while it was read")
            records = catalog.records(ids[start : start + _BATCH].tolist())
            yield from present(catalog, records)

    @_of_one_gallery
    def __contains__(self, image: object) -> bool:
        """Whether the gallery holds an image with this id, or the image of this record as it is.

        Raises InvalidQuery for anything but a whole number or a record.

        >>> 7 in gallery, gallery.get(7) in gallery, 12345 in gallery
        (True, True, False)
        """
        number = image.id if isinstance(image, ImageRecord) else whole("an id", image)
        found = present(self._storage.catalog, self._storage.catalog.records([number]))
        return bool(found) and (not isinstance(image, ImageRecord) or found[0] == image)

    def index(
        self,
        *sources: "PathOrName | Source",
        labels: "PathOrName | Labels | None" = None,
        workers: int | None = None,
        on: Literal["ray"] | None = None,
        ray_address: str | None = None,
        max_failures: int | None = None,
        retry_failed: bool = False,
        prune: bool = False,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        follow_links: bool = False,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> IndexSummary:
        """Add all images of the sources that the gallery does not hold yet.

        sources: folders, archives, files of images, or names such as "cifar10:test". labels: a
        CSV file with the columns path and label. workers: processes that decode; one per core
        by default. on: "ray" decodes and encodes on a Ray cluster, by a worker for each of its
        cores; on one of this machine alone, if ray_address is None. ray_address: of a running
        cluster that this machine is a node of, "host:port" or "auto". max_failures: give up after
        more unreadable images. retry_failed: try files again that could not be read before. prune:
        at the end, remove the images that are gone from these sources. exclude: patterns as in a
        .gitignore file, such as "Screenshots/" or "*.gif"; the gallery remembers them, and leaves
        out what they match from now on. include: remembered patterns to forget. follow_links:
        include image files outside a folder that links in it lead to. progress: is called now and
        then as `progress(what, done, total)`, where total may be None. stop: is called between
        chunks; once it returns True, the job commits what was read and returns.

        A killed job loses at most a minute's work; calling `index` again completes it.
        In a script, call it under `if __name__ == "__main__":`, since workers are processes.

        Returns the numbers of images by outcome. Raises InvalidSource, GalleryBusy if another
        job runs, TooManyFailures, and ClusterError if a cluster cannot be used.

        >>> gallery.index("pictures", "more.tar").failed
        0
        """
        end_if_main_is_imported()
        storage = self._storage
        if not sources:
            raise InvalidQuery("index() takes at least one source, such as a folder")
        folders = DataFolders.of_environment()
        opened = [_source(source, folders, follow_links) for source in sources]
        for source in opened:
            require_images(source)
        if not isinstance(labels, str | PathLike | Labels | None):
            raise InvalidQuery(f"{described(labels)} came as labels; a CSV file's path was wanted")
        listed = None
        if labels is not None:
            listed = labels if isinstance(labels, Labels) else Labels(checked_path(labels))
            opened = [LabelledSource(source, listed) for source in opened]
        for name, patterns in (("exclude", exclude), ("include", include)):
            if isinstance(patterns, str):
                raise InvalidQuery(f"{name} is a list of patterns; got {patterns!r}")
            for pattern in patterns:
                text("a pattern", pattern)
        _require_functions(progress=progress, stop=stop)
        executor = _executor(on, ray_address)
        storage.change_excludes(exclude, include)
        unmatched = {text: pattern_of(text) for text in exclude}
        if unmatched:
            opened = [TriedSource(source, unmatched) for source in opened]
        try:
            with reported_to(progress):
                summary = index_sources(
                    storage,
                    opened,
                    workers=None if workers is None else whole("workers", workers, 1),
                    executor=executor,
                    max_failures=(
                        None if max_failures is None else whole("max_failures", max_failures, 0)
                    ),
                    retry_failed=retry_failed,
                    prune=prune,
                    stop=stop or (lambda: False),
                )
            if exclude and not summary.stopped:
                names = names_of(storage.catalog, opened)
                summary.remarks.extend(remarks_on_patterns(storage.catalog, names, unmatched))
        except Exception as error:  # of any class, if its files disappear while a job runs
            if self._uses(storage):
                raise
            raise InvalidGallery(
                f"{self._named} was deleted or replaced while images were added; index them again"
            ) from error
        return replace(summary, unused_labels=listed.unused() if listed else 0)

    def search(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the gallery's images nearest to a query.

        query: an image's path, a file's bytes, a PIL image, a (height, width, 3) uint8 array;
        an id of the gallery (then the image itself is left out); or a code, as 64 hexadecimal
        digits or a (32,) uint8 array. A path without a file, such as "a.zip!/b.jpg", stands for
        the gallery's image that has it. None if `like` or `unlike` is given. k: how many at most.
        Without k and radius, the nearest 10; with a radius alone, all within it. options: method,
        index, radius, label, uri_prefix, ids, exclude, like, unlike, crop and transforms, as of
        SearchOptions.

        Returns hits, nearest first, equal distances in order of id. Raises InvalidImage,
        NotInGallery, CodeShapeError and InvalidQuery.

        >>> gallery.search(gallery.get(7).path, k=1)[0].distance
        0
        """
        return self.rank(query, k, **options).hits

    @_of_one_gallery
    def rank(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> Ranking:
        """Search as `search` does, and say how long the index took, without the encoding.

        >>> gallery.rank(7, k=1).latency_ms > 0
        True
        """
        index = options.get("index")
        if index is not None:
            text("an index", index)
        by_radius = k is None and options.get("radius") is not None
        wish = "multihash" if by_radius and index is None else None
        with self._searcher(index, wish) as searcher:
            return searched(searcher, query, k, options)

    @_of_one_gallery
    def add(self, image: "PathOrName | bytes", label: str | None = None) -> int:
        """Add one image file, given by its path or its bytes; a job may run meanwhile.

        label: an empty one means that the image has none. Returns the image's id. If the gallery
        holds the same bytes already, that is the older image's id; it keeps its label if `label`
        is None, and the path is remembered too. Raises InvalidImage.

        >>> gallery.add("new.jpg", label="cat")
        301
        """
        from hashsearch.jobs.adding import add_image  # with torch, which takes seconds

        label = None if label is None else valid_text(text("a label", label))
        storage = self._storage
        with self._searcher() as searcher:
            encoder = searcher.encoder
        if isinstance(image, bytes):
            return add_image(storage, encoder, image, label)[0]
        if not isinstance(image, str | PathLike):
            raise InvalidQuery(f"{described(image)} came; an image file's path or bytes was wanted")
        source = ImageFile(checked_path(image))
        try:
            (found,) = source  # its time before its bytes: a later change is seen by the next index
        except (OSError, ValueError):
            image_file_bytes(image)  # says what is wrong
            raise
        data = image_file_bytes(image)
        try:
            return add_image(
                storage, encoder, replace(found, content=data), label, path=source.path
            )[0]
        except InvalidImage as error:
            raise type(error)(f"{shortened(image)}: {error}") from error

    def remove(
        self,
        ids: Iterable[int] | None = None,
        *,
        label: str | None = None,
        uri_prefix: PathOrName | None = None,
    ) -> int:
        """Remove images by exactly one of ids, label, and a file or folder.

        ids: whole numbers. uri_prefix: a uri, or the path of a file, a folder, an archive or what
        is in it; an image that was also found elsewhere stays in the gallery, and has that place.
        Returns how many were removed, 0 if none matched. They are gone from every answer;
        `hashsearch gallery compact` frees their disk space. Raises InvalidQuery, and
        InvalidGallery for ids if another gallery has replaced this one since the last call.

        >>> gallery.remove(ids=[7])
        1
        """
        chosen = None if ids is None else whole_numbers("ids", ids)
        if sum(part is not None for part in (chosen, label, uri_prefix)) != 1:
            raise InvalidQuery("remove() takes exactly one of ids, label and uri_prefix")
        if uri_prefix == "":
            raise InvalidQuery("an empty uri_prefix would remove every image")
        label = None if label is None else valid_text(text("a label", label))
        named = "" if uri_prefix is None else os.fspath(checked_path(uri_prefix) and uri_prefix)
        former, storage = self._opened, self._storage
        if chosen is not None and storage is not former:
            raise InvalidGallery(
                f"{self._named} was replaced by another gallery, in which ids mean other images; "
                "nothing was removed"
            )
        catalog = storage.catalog
        prefixes = None if uri_prefix is None else uris_named(catalog, named)
        return remove(catalog, Selection(chosen, prefixes, label)).images

    @_of_one_gallery
    def relocate(self, old: PathOrName, new: PathOrName, *, dry_run: bool = False) -> Relocation:
        """Record that a file or folder, with everything in it, was moved from `old` to `new`.

        No image is read. dry_run: change nothing. Returns the numbers of files that are at the new
        path, at neither, and of those that keep their place. Raises InvalidSource if none is at the
        new path, or if nothing in the gallery lies at `old`.

        >>> gallery.index("pictures").failed
        0
        >>> import os
        >>> os.rename("pictures", "photographs")
        >>> gallery.relocate("pictures", "photographs")
        Relocation(found=300, missing=0, kept=0)
        """
        return relocate(self._storage, checked_path(old), checked_path(new), dry_run=dry_run)

    @_of_one_gallery
    def duplicates(
        self, radius: int | None = None, progress: Progress | None = None
    ) -> "list[DuplicateGroup]":
        """Find groups of near-equal pictures, and of files with the same bytes. Changes nothing.

        radius: pictures whose codes differ in at most so many bits are in one group, and so is
        what they are linked with through others; by default what the model's card gives for
        copies. progress: as of `index`. Returns the groups, surest first: in order of diameter,
        those of more files first. Raises InvalidQuery if there is no default.

        >>> import shutil
        >>> copy = shutil.copy("new.jpg", "copy.jpg")
        >>> gallery.add("new.jpg") == gallery.add(copy)
        True
        >>> gallery.duplicates(radius=0)[0].diameter
        0
        """
        from hashsearch.retrieval.duplicates import default_radius, find_duplicates  # with scipy

        storage = self._storage
        if radius is None:
            radius = default_radius(storage.card())
        with reported_to(progress):
            return find_duplicates(storage, whole("a radius", radius, 0))

    @_of_one_gallery
    def build_index(
        self, kind: str, recall: float = RECALL, progress: Progress | None = None
    ) -> BuiltIndex:
        """Build an index for faster searches, and measure what it finds and costs.

        kind: "ivf", "buckets", "multihash", or "exact", which is only measured; docs/search.md
        describes them. recall: the share of the ten nearest neighbours that it should find, above
        0 and at most 1. What is costly to find is kept with the gallery; `search(index=kind)` uses
        it. progress: as of `index`. Returns the record of what was measured. Raises InvalidQuery,
        InvalidGallery if the gallery lacks what the index needs, GalleryBusy and GalleryReadOnly.

        >>> gallery.build_index("multihash").recall
        1.0
        >>> gallery.search(7, radius=3, index="multihash") == gallery.search(7, radius=3)
        True
        """
        from hashsearch.jobs.building import build_index

        with reported_to(progress):
            return build_index(self._storage, text("a kind of index", kind), recall)

    @_of_one_gallery
    def export(
        self,
        to: PathOrName,
        *,
        table: str | None = None,
        index: str | None = None,
        replace: bool = False,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> ExportSummary:
        """Write id, uri, label, code and key of every image to a Parquet file or to PostgreSQL.

        to: a path that ends in .parquet, or a URL such as "postgresql://user@host/database", which
        should hold no password; docs/export.md describes both. A file is written whole, in one
        state of the gallery. A table is brought up to date: what was added, changed or removed
        since the last export is written, in transactions of at most 65,536 images. table: its
        name, or schema.name; "hashsearch_images" by default. index: "hnsw" (by default),
        "ivfflat" or "none", of the table's codes by pgvector. replace: whether a file may be
        replaced whatever it is. progress, stop: as of `index`.

        Returns the numbers of rows, as ExportSummary. Raises ArtifactMismatch if what is there was
        exported by another gallery or model, ExportError if it is no export and for the database's
        errors, InvalidQuery, NotWritable, and MissingPackage without pyarrow or psycopg.

        >>> summary = gallery.export("codes.parquet")
        >>> summary.images, summary.written, summary.removed
        (300, 300, 0)
        """
        _require_functions(progress=progress, stop=stop)
        checked_path(to)
        if index is not None and text("an index", index) not in INDEXES:
            raise InvalidQuery(f"an index is {', '.join(INDEXES)}; got {index!r}", "index")
        if table is not None:
            text("a table", table)
        options = ExportOptions(replace, table, index, stop or (lambda: False))
        with reported_to(progress):
            return export_to(self._storage, os.fspath(to), options)

    @_of_one_gallery
    def built_indexes(self) -> dict[str, BuiltIndex]:
        """The records of the indexes that were built and can be used, by kind.

        >>> gallery.built_indexes()
        {}
        """
        return {built.kind: built for built in usable_indexes(self._storage.catalog)}

    @_of_one_gallery
    def paths(self, image_id: int) -> list[str]:
        """Every path where an image's bytes were found, the oldest first.

        Raises NotInGallery.

        >>> gallery.paths(1) == [gallery.get(1).path]
        True
        """
        record = self._storage.catalog.record(whole("an id", image_id))
        places = self._storage.catalog.places([record.id])[record.id]
        return list(dict.fromkeys(place.path for place in places))  # sources may overlap

    @_of_one_gallery
    def get(self, image_id: int) -> ImageRecord:
        """Return an image's record: id, uri, path, label, width, height, and whether it is missing.

        Raises NotInGallery.

        >>> gallery.get(1).width
        32
        """
        record = self._storage.catalog.record(whole("an id", image_id))
        return present(self._storage.catalog, [record])[0]

    @_of_one_gallery
    def failures(self) -> list[Failure]:
        """The files that could not be read, by uri, each with its path and the reason.

        >>> [(failure.path, failure.reason) for failure in gallery.failures()]
        []
        """
        return [failure for failure, _ in self._storage.catalog.failures()]

    @_of_one_gallery
    def reconstruct(self, query: Queryable) -> NDArray[np.uint8]:
        """Decode the image that a code stands for: of a stored image, a query image or a code.

        query: as in `search`. Returns (32, 32, 3) uint8 RGB.

        >>> gallery.reconstruct(1).shape
        (32, 32, 3)
        """
        with self._searcher() as searcher:
            code = query_of(searcher, query).code
            return searcher.encoder.reconstruct(code[np.newaxis])[0]

    @contextmanager
    def _searcher(self, index: str | None = None, wish: str | None = None) -> Iterator[Searcher]:
        """A searcher of the gallery as it is now. index, wish: as of `LiveSearcher.searcher`."""
        with self._lock:
            storage = self._storage
            if self._live is None or self._live.gallery is not storage:
                known = None if self._live is None else self._live.current
                self._live = LiveSearcher(storage, known, waits=True)
            live = self._live
        with live.searcher(index, wish=wish) as searcher:
            yield searcher


def _executor(on: str | None, ray_address: str | None) -> StartExecutor:
    """Where a job decodes and encodes. Raises InvalidQuery if that cannot be."""
    if on is None and ray_address is None:
        return LocalExecutor
    if on != "ray":
        raise InvalidQuery(f"on is 'ray' or None, and ray_address goes with 'ray'; got on={on!r}")
    from hashsearch.distributed.executor import ClusterExecutor

    address = None if ray_address is None else text("ray_address", ray_address)
    return partial(ClusterExecutor, address=address)


def _require_functions(**functions: object) -> None:
    for name, call in functions.items():
        if not (call is None or callable(call)):
            raise InvalidQuery(f"{name} is a function; got {described(call)}")


def _source(source: "PathOrName | Source", folders: DataFolders, follow_links: bool) -> Source:
    if isinstance(source, str | PathLike):
        return open_source(str(checked_path(source)), folders, follow_links)
    if not hasattr(source, "passed_over"):
        raise InvalidQuery(
            f"{described(source)} came as a source; give each path as an argument of its own"
        )
    return source
