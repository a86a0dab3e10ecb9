"""A job's first stage: the sources' images in chunks, those that are known left out."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from hashsearch.errors import InvalidSource
from hashsearch.gallery.catalog import Catalog
from hashsearch.sources.base import Source, SourceImage

T = TypeVar("T")

CHUNK_IMAGES = 256
_LEAST_CHUNK_BYTES = 2**20  # of files, so that a few photographs keep every worker busy;
_CHUNK_BYTES = 2**23  # where there are many, fewer chunks take less handing over
_GROWTH = 16  # a chunk is this part of what came before it, within these bounds
_WHOLE = 8  # a chunk has a multiple of it, what the encoder takes at once,
_MOST_CHUNK_BYTES = 2**25  # unless its files are so large


@dataclass(frozen=True, slots=True)
class Chunk:
    """Images to prepare with their uris, and the uris of those that need not be.

    relabelled: (uri, label) of the unchanged ones whose label is another now.
    skipped: uris of files that could not be read before, and have not changed.
    """

    images: list[SourceImage] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    relabelled: list[tuple[str, str | None]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images) + len(self.unchanged) + len(self.skipped)


def chunks(
    catalog: Catalog, name: str, source: Source, *, relabel: bool = False, retry: bool = False
) -> Iterator[Chunk]:
    """Cut a source into chunks bounded in images and bytes.

    name: what its uris begin with. relabel: compare the labels of unchanged images too.
    retry: skip nothing that could not be read before.
    If the source breaks off, its InvalidSource follows the last image that was whole.
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
                yield _sorted_out(catalog, name, images, relabel, retry)
                images, size, before = [], 0, before + size
    except InvalidSource as error:
        broken = error
    if images:
        yield _sorted_out(catalog, name, images, relabel, retry)
    if broken is not None:
        raise broken


def chunks_of_all(
    catalog: Catalog,
    names: Sequence[str],
    sources: Sequence[Source],
    *,
    relabel: bool,
    retry: bool,
) -> Iterator[Chunk]:
    """The chunks of each source in turn.

    One that breaks off keeps none of the others back: its InvalidSource, the
    first of them, is raised at the end.
    """
    broken: InvalidSource | None = None
    for name, source in zip(names, sources, strict=True):
        try:
            yield from chunks(catalog, name, source, relabel=relabel, retry=retry)
        except InvalidSource as error:
            broken = broken or error
    if broken is not None:
        raise broken


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Go through an iterator in a thread of its own, `depth` items ahead.

    What it raises is raised here, after the items before it.
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


def _sorted_out(
    catalog: Catalog, name: str, images: list[SourceImage], relabel: bool, retry: bool
) -> Chunk:
    uris = [name + image.place for image in images]
    known = catalog.known_files(uris)
    failed = {} if retry else catalog.known_failures(uris)
    chunk = Chunk()
    for image, uri in zip(images, uris, strict=True):
        old = known.get(uri)
        if old is not None and (old.size, old.mtime) == (image.size, image.mtime):
            chunk.unchanged.append(uri)
            if relabel and old.label != image.label:
                chunk.relabelled.append((uri, image.label))
        elif failed.get(uri) == (image.size, image.mtime):
            chunk.skipped.append(uri)
        else:
            chunk.images.append(image)
            chunk.uris.append(uri)
    return chunk
