"""The job's first stage: cut the sources into chunks, and leave out unchanged images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hashsearch.errors import InvalidSource
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.naming import Names
from hashsearch.gallery.records import KnownFile
from hashsearch.sources.base import SourceImage

T = TypeVar("T")

CHUNK_IMAGES = 256
_LEAST_CHUNK_BYTES = 2**20  # of files; small, so that few photographs keep all workers busy
_CHUNK_BYTES = 2**23  # of files; fewer and larger chunks are handed over in less time
_GROWTH = 16  # a chunk grows to 1/16 of the bytes before it, within these two bounds
_WHOLE = 8  # a chunk has a multiple of this number of images, which the encoder prefers,
_MOST_CHUNK_BYTES = 2**25  # but ends at this size whatever their number


@dataclass(frozen=True, slots=True)
class Chunk:
    """Images to prepare with their uris, and what the catalog knows about the other ones.

    known: the catalog's entries of uris whose files have changed. failed: uris that the
    catalog lists as failures. unchanged: uris of unchanged images. further: the catalog's entries
    of those that are not the first place of their image. relabelled: (uri, label) of unchanged
    images to which a person gave another label. labelled: (uri, label) of those that have none
    and to which the source gives one, since it was indexed from a folder above.
    skipped: number of files that could not be read before and have not changed.
    """

    images: list[SourceImage] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    known: dict[str, KnownFile] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unchanged: list[str] = field(default_factory=list)
    further: list[KnownFile] = field(default_factory=list)
    relabelled: list[tuple[str, str | None]] = field(default_factory=list)
    labelled: list[tuple[str, str]] = field(default_factory=list)
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images) + len(self.unchanged) + self.skipped


def chunks(
    catalog: Catalog, names: Names, source: Iterable[SourceImage], *, retry: bool = False
) -> Iterator[Chunk]:
    """Cut a source into chunks of bounded numbers of images and bytes.

    names: of its images. retry: try files again that could not be read before.
    If the source breaks off, its InvalidSource is raised after the last chunk.
    """
    images: list[SourceImage] = []
    size, before = 0, 0
    broken: InvalidSource | None = None
    try:
        for image in source:
            images.append(image)
            size += image.size
            wanted = min(max(_LEAST_CHUNK_BYTES, before // _GROWTH), _CHUNK_BYTES)
            enough = size >= wanted and len(images) % _WHOLE == 0
            if enough or len(images) == CHUNK_IMAGES or size >= _MOST_CHUNK_BYTES:
                yield _chunk(catalog, names, images, retry)
                images, size, before = [], 0, before + size
    except InvalidSource as error:
        broken = error
    if images:
        yield _chunk(catalog, names, images, retry)
    if broken is not None:
        raise broken


def chunks_of_all(
    catalog: Catalog,
    names: Sequence[Names],
    sources: Sequence[Iterable[SourceImage]],
    *,
    retry: bool,
) -> Iterator[Chunk]:
    """The chunks of all sources in turn.

    A source that breaks off does not stop the others: the first InvalidSource is raised at
    the end.
    """
    broken: InvalidSource | None = None
    for of_source, source in zip(names, sources, strict=True):
        try:
            yield from chunks(catalog, of_source, source, retry=retry)
        except InvalidSource as error:
            broken = broken or error
    if broken is not None:
        raise broken


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Iterate in another thread, up to `depth` items ahead.

    An exception of the iterator is raised here, after the items before it.
    """
    end = object()
    following: Callable[[], T | object] = lambda: next(items, end)  # noqa: E731
    reader = ThreadPoolExecutor(1, "read")
    try:
        waiting = deque(reader.submit(following) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(following))
            yield item  # type: ignore[misc]  # what is not `end` is a T
    finally:
        reader.shutdown(cancel_futures=True)


def _chunk(catalog: Catalog, names: Names, images: list[SourceImage], retry: bool) -> Chunk:
    uris = [names.uri(image.place) for image in images]
    known, failures = catalog.known_files(uris), catalog.known_failures(uris)
    chunk = Chunk(failed=set(failures))
    skipped = 0
    for image, uri in zip(images, uris, strict=True):
        old = known.get(uri)
        if old is not None and (old.size, old.mtime) == (image.size, image.mtime):
            chunk.unchanged.append(uri)
            if old.first != uri:
                chunk.further.append(old)
            note_label(chunk, image, uri, old)
        elif not retry and failures.get(uri) == (image.size, image.mtime):
            skipped += 1
        else:
            chunk.images.append(image)
            chunk.uris.append(uri)
            if old is not None:
                chunk.known[uri] = old
    return replace(chunk, skipped=skipped)


def note_label(
    into: Chunk | Changes, image: SourceImage, uri: str, known: KnownFile | None = None
) -> None:
    """Note the label of an image that the gallery has, if it is to be recorded.

    That is so if a person gave another one, or if the image has none. known: what the catalog
    recorded; None if it does not have the image yet, or not at this place.
    """
    if image.label_given:
        if known is None or (known.label, known.label_given) != (image.label, True):
            into.relabelled.append((uri, image.label))
    elif image.label is not None and (known is None or known.label is None):
        into.labelled.append((uri, image.label))
