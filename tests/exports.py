"""What several tests of exports share."""

import gc
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from hashsearch.exports.rows import Row
from hashsearch.exports.state import STATES
from hashsearch.gallery.changes import next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import encode_png
from tests.galleries import ids
from tests.postgres import Server

TABLE = "hashsearch_images"
DOCS = (Path(__file__).parents[1] / "docs" / "export.md").read_text()


def documented_sql(beginning: str) -> str:
    """The block of SQL in docs/export.md that begins so."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(beginning))
    return found


def make_partitions(query: Callable[[str], object], other: Server) -> None:
    """Spread the table of exports over two servers, as docs/export.md shows it.

    query: executes SQL on the one that is asked, in a database with pgvector.
    """
    other.execute(documented_sql("CREATE EXTENSION vector;\nCREATE TABLE"))
    here = documented_sql("CREATE EXTENSION vector;\nCREATE EXTENSION")
    query("DROP EXTENSION vector")
    for shown, real in (
        ("db2.example", other.folder),
        ("pictures", "postgres"),
        ("me", "postgres"),
    ):
        here = here.replace(f"'{shown}'", f"'{real}'")
    query(here)


def held(gallery: GalleryFolder) -> list[tuple]:
    """What an export is to hold, read image by image."""
    return [
        (one.id, one.uri, one.label, gallery.code(one.id).tobytes(), gallery.catalog.key(one.id))
        for one in gallery.catalog.records(ids(gallery))
    ]


def table(query, name=TABLE) -> list[tuple]:
    """What a table holds, its codes from PostgreSQL's own zeros and ones."""
    found = query(f"SELECT id, uri, label, code::text, key FROM {name} ORDER BY id")
    return [
        (number, uri, label, np.packbits([int(bit) for bit in code]).tobytes(), key)
        for number, uri, label, code, key in found
    ]


def rows_in_memory() -> int:
    """Number of rows that exports have in memory."""
    return sum(type(one) is Row for one in gc.get_objects())


def bits(gallery: GalleryFolder, number: int) -> str:
    """An image's code as a constant of SQL."""
    return "B'" + "".join(map(str, np.unpackbits(gallery.code(number)))) + "'"


def state(query) -> dict:
    names = ("table_name", "gallery", "fingerprint", "precision", "generation", "loaded", "index")
    ((*values,),) = query(f"SELECT {', '.join(names)} FROM {STATES}")
    return dict(zip(names, values, strict=True))


def stop_after(chunks: int):
    left = iter(range(chunks))
    return lambda: next(left, None) is None


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def relabel(gallery: GalleryFolder, numbers: Iterable[int]) -> None:
    """Give images a label that none had before."""
    with gallery.catalog.transaction() as db:
        db.executemany(
            "UPDATE images SET label = 'label ' || value, generation = value + 1 FROM settings "
            "WHERE name = 'generation' AND id = ?",
            ((number,) for number in numbers),
        )
        next_generation(db)
