"""Image retrieval by semantic hashing: images to 256-bit codes to nearest neighbours.

>>> import hashsearch
>>> with hashsearch.open("gallery", create=True) as gallery:
...     gallery.index("pictures")
...     hits = gallery.search("query.jpg", k=10)

docs/python.md is the guide.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashsearch import errors
    from hashsearch.client.answers import GalleryInfo, ListedImage, ServedImage
    from hashsearch.client.clients import AsyncClient, Client
    from hashsearch.exports.targets import ExportSummary
    from hashsearch.face import encode, load_model, open
    from hashsearch.gallery.built import BuiltIndex
    from hashsearch.gallery.records import ImageRecord
    from hashsearch.jobs.index.indexing import IndexSummary
    from hashsearch.jobs.relocating import Relocation
    from hashsearch.open_gallery import Gallery
    from hashsearch.retrieval.duplicates import DuplicateFile, DuplicateGroup
    from hashsearch.retrieval.ranking import Hit, Ranking
    from hashsearch.search_options import SearchOptions

__version__ = "0.1.0"

_process = os.getpid()  # where this was imported; a forked process has another

# Imported on first use: `import hashsearch` itself takes no time, and commands start quickly.
_PLACES = {
    "AsyncClient": "hashsearch.client.clients",
    "BuiltIndex": "hashsearch.gallery.built",
    "Client": "hashsearch.client.clients",
    "DuplicateFile": "hashsearch.retrieval.duplicates",
    "DuplicateGroup": "hashsearch.retrieval.duplicates",
    "ExportSummary": "hashsearch.exports.targets",
    "Gallery": "hashsearch.open_gallery",
    "GalleryInfo": "hashsearch.client.answers",
    "Hit": "hashsearch.retrieval.ranking",
    "ImageRecord": "hashsearch.gallery.records",
    "IndexSummary": "hashsearch.jobs.index.indexing",
    "ListedImage": "hashsearch.client.answers",
    "Ranking": "hashsearch.retrieval.ranking",
    "Relocation": "hashsearch.jobs.relocating",
    "SearchOptions": "hashsearch.search_options",
    "ServedImage": "hashsearch.client.answers",
    "encode": "hashsearch.face",
    "errors": "hashsearch",
    "load_model": "hashsearch.face",
    "open": "hashsearch.face",
}

__all__ = [
    "AsyncClient",
    "BuiltIndex",
    "Client",
    "DuplicateFile",
    "DuplicateGroup",
    "ExportSummary",
    "Gallery",
    "GalleryInfo",
    "Hit",
    "ImageRecord",
    "IndexSummary",
    "ListedImage",
    "Ranking",
    "Relocation",
    "SearchOptions",
    "ServedImage",
    "encode",
    "errors",
    "load_model",
    "open",
]


if not TYPE_CHECKING:  # a type checker is to refuse misspelt names

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module 'hashsearch' has no attribute {name!r}")
        if name == "errors":
            return import_module("hashsearch.errors")
        found = getattr(import_module(_PLACES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
