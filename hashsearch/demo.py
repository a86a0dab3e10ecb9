"""The demonstration: build a sample gallery and search it once."""

import hashlib
import os
import sys
from itertools import islice
from pathlib import Path

from hashsearch.columns import aligned
from hashsearch.errors import InvalidSource
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.indexing import index_sources, require_images
from hashsearch.jobs.index.prepare import Prepared, prepare
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.ranking import Hit, Query
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources import DataFolders, Source, known_dataset, locate, open_source
from hashsearch.stopping import stop_requested

_MODELS = """\
The codes are those of the default model, bundled, which has learned no labels. The model
general has: hashsearch index FOLDER --gallery G --model general."""
# Number of the held-out image that is searched for; it shows more than sky.
_QUERY_NUMBER = {"cifar10": 7000, "samples": 60}


def build_demo(dataset: str | None, folders: DataFolders) -> tuple[Path, str]:
    """Index a sample gallery in the user's cache, with the bundled model.

    dataset: `cifar10`, `samples` or a path; None means CIFAR-10 if it is available,
    otherwise the sample photographs. Returns the gallery's folder and the data set.
    """
    dataset = _available(folders) if dataset is None else dataset
    source = _open(dataset, "train", folders)
    require_images(source)
    # Each model, and each location of the data, has a gallery of its own.
    identity = f"{read_card(PRETRAINED).fingerprint} {source.root}"
    name = f"{source.root.name}-{hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]}"
    folder = folders.cache / "demo" / name
    gallery = (
        GalleryFolder(folder)
        if GalleryFolder.exists(folder)
        else GalleryFolder.create(folder, PRETRAINED)
    )
    with stop_requested() as stop:
        summary = index_sources(gallery, [source], workers=usable_cores(), stop=stop)
        gallery.close()
        if summary.stopped:
            raise KeyboardInterrupt
    return folder, dataset


def show_search(folder: Path, dataset: str, folders: DataFolders) -> None:
    """Print one search in the gallery, by code and by pixels, side by side."""
    gallery = GalleryFolder(folder)
    searcher = Searcher(gallery)
    query, title = _sample_query(dataset, searcher, folders)
    print(f"Searching {gallery.catalog.count():,} images for {title}\n")
    columns = []
    for name in searcher.compared_methods:
        ranking, method = searcher.search(query, name, k=10), SERVED[name]
        title = f"by {name}: {method.image_bytes:,} bytes an image, {ranking.latency_ms:.1f} ms"
        columns.append(_column(title, method.unit, ranking.hits))
    side_by_side = list(zip(*columns, strict=True))
    print("\n".join(aligned(side_by_side, "<" * len(columns), gap="    ")))
    print(f"\n{_MODELS}")
    gallery.close()


def _open(dataset: str, split: str, folders: DataFolders) -> Source:
    """A data set by its name, even if a file has the same name; otherwise a path."""
    return known_dataset(dataset, split, folders) or open_source(dataset, folders)


def _available(folders: DataFolders) -> str:
    """CIFAR-10 if it can be had; otherwise the sample photographs, with a line on stderr."""
    try:
        _open("cifar10", "train", folders)
    except InvalidSource as error:
        print(
            f"{error}; using scikit-image's sample photographs, whole and in crops", file=sys.stderr
        )
        return "samples"
    return "cifar10"


def _sample_query(dataset: str, searcher: Searcher, folders: DataFolders) -> tuple[Query, str]:
    """A held-out image if the data set has some, otherwise an image of the gallery.

    Returns the query and its title.
    """
    records = searcher.gallery.catalog.records(searcher.ids[:1].tolist())
    if not records:
        raise InvalidSource("none of the images could be read, so there is nothing to search")
    if dataset not in _QUERY_NUMBER:
        return searcher.query_by_id(records[0].id), f"{records[0].path}, one of them"
    source = _open(dataset, "test", folders)
    image = next(islice(source, _QUERY_NUMBER[dataset], None))
    (prepared,) = prepare([image])
    assert isinstance(prepared, Prepared), "the test images are whole"
    path = locate(str(source.root), image.place)
    return searcher.query_by_tiny(prepared.tiny), f"a held-out image ({image.label}): {path}"


def _column(title: str, unit: str, hits: list[Hit]) -> list[str]:
    """Lines of a table: distance and the end of the path."""
    rows = [(f"{hit.distance:,}", "/".join((hit.path or hit.uri).split("/")[-2:])) for hit in hits]
    return [title, *aligned([(unit, "image"), *rows], "><")]
