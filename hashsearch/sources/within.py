"""One image file out of an open archive or Parquet file."""

from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from hashsearch.errors import InvalidImage
from hashsearch.sources.archive import image_in_tar
from hashsearch.sources.base import decode_path
from hashsearch.sources.parquet import PARQUET_MAGIC, image_in_parquet
from hashsearch.sources.zipped import ZIP_MAGIC, image_in_zip

Read = Callable[[BufferedReader, Path, str, Callable[[], bool]], bytes | InvalidImage | None]


class Container(NamedTuple):
    """A kind of file that holds image files.

    mark: what stands between the file and what is in it in a place, `#` or `!/`. first_bytes,
    suffix: how such a file begins, or ends its name if its bytes are damaged.
    read: reads an image file of an open one. It takes the file, its path for messages, the name of
    the member or the number of the row, and a function that says when to stop. It returns the
    bytes, the reason why they cannot be read, or None if they are not there.
    """

    mark: str
    first_bytes: bytes | tuple[bytes, ...]
    suffix: str
    read: Read


# The first row that fits counts; the order is that of the kinds of source.
CONTAINERS = (
    Container("#", PARQUET_MAGIC, ".parquet", image_in_parquet),
    Container("!/", ZIP_MAGIC, ".zip", image_in_zip),
    Container("!/", b"", "", image_in_tar),
)


def read_within(
    file: BufferedReader, path: Path, inside: str, stop: Callable[[], bool]
) -> bytes | InvalidImage | None:
    """Read an image file out of an archive or a Parquet file, at most MAX_FILE_BYTES.

    file: open, at its beginning. path: its own, for messages and its suffix. inside: the end of a
    place as in SourceImage, from `!/` or `#` on. stop: asked now and then while a tar archive or a
    row group of Parquet is read forward. Returns the bytes; the reason why they cannot be read; or
    None if nothing is at this place any more, or `stop` returned True.
    Raises InvalidSource if the file is damaged, MissingPackage if an extra is needed, and OSError.
    """
    start = file.peek(8)
    for row in CONTAINERS:
        fits = start.startswith(row.first_bytes) or path.suffix.lower() == row.suffix
        if inside.startswith(row.mark) and (row.mark == "#" or "#" not in inside) and fits:
            return row.read(file, path, decode_path(inside.removeprefix(row.mark)), stop)
    return InvalidImage("it is pixels of an array, which have no file of their own")
