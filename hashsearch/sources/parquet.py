"""A Parquet file with a column of images, as Hugging Face's data sets are laid out.

pyarrow is installed with the extra `parquet` only, and imported when a file is read.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource, MissingPackage
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources.base import SourceImage, valid_text

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

PARQUET_MAGIC = b"PAR1"

_IMAGE_NAMES = ("image", "img", "picture")
_LABEL_NAMES = ("label", "labels", "fine_label", "class")
_BATCH_ROWS = 64
_BATCH_ROWS_OF_DICTIONARY = 4  # each may repeat the largest value
_BATCH_BYTES = 16 * 2**20
_MOST_ROWS = 2**48  # that are believed; the number is the file's own claim
_READ_BYTES = 2**20  # of a column at a time; without it, a whole row group is read


class ParquetImages:
    """The rows of a Parquet file, in order.

    Images are in the first column of bytes, or of structs with a field `bytes`,
    one named image, img or picture preferred. Labels are in a column label,
    labels, fine_label or class, of text or of integers, which stand for the names
    in Hugging Face's metadata where there are some. Of several columns of one
    name the first counts.

    Memory holds one page of the file at a time; some writers make a row group one.
    """

    def __init__(self, root: Path):
        if find_spec("pyarrow") is None:
            raise MissingPackage(
                "Parquet files are read by pyarrow, which is not installed: "
                "pip install 'hashsearch[parquet]'"
            )
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.remarks: list[str] = []

    def estimate(self) -> int | None:
        try:
            with self._open() as file:
                return min(max(file.metadata.num_rows, 0), _MOST_ROWS)
        except InvalidSource:  # iterating raises it again
            return None

    def __iter__(self) -> Iterator[SourceImage]:
        mtime = self.root.stat().st_mtime_ns
        row = 0
        with self._open() as file:
            schema = file.schema_arrow
            column, leaf = self._image_column(schema)
            label = _label_column(schema)
            names = _class_names(schema, label)
            for batch in _batches(file, leaf, [leaf] if label is None else [leaf, label]):
                images = batch.column(batch.schema.names.index(column))
                if leaf != column:
                    (images,) = images.flatten()  # null where the struct is
                labels = _values(batch, label) if label else [None] * len(images)
                for image, value in zip(images, labels, strict=True):
                    content = _content(image)
                    size = len(content) if isinstance(content, bytes) else 0
                    yield SourceImage(f"#{row}", _label(value, names), size, mtime, content)
                    row += 1

    @contextmanager
    def _open(self) -> "Iterator[pyarrow.parquet.ParquetFile]":
        """Open the file; damage met anywhere raises InvalidSource."""
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(
                self.root, pre_buffer=False, buffer_size=_READ_BYTES
            ) as file:
                yield file
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the file
            raise InvalidSource(
                f"{self.root} is no Parquet file, or a damaged one: {error}"
            ) from error

    def _image_column(self, schema: "pyarrow.Schema") -> tuple[str, str]:
        """The column of images, and the path of the bytes in it: itself, or `<name>.bytes`."""
        found: dict[str, str] = {}
        for field in schema:
            if path := _path_to_bytes(field):
                found.setdefault(field.name, path)
        preferred = [name for name in found if name.lower() in _IMAGE_NAMES]
        for name in preferred or found:
            return name, found[name]
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InvalidSource(
            f"{self.root} has no column of bytes, or of structs with a field bytes, for the "
            f"images; it has {columns or 'none at all'}"
        )


def _path_to_bytes(field: "pyarrow.Field") -> str | None:
    from pyarrow import types

    def is_bytes(kind: "pyarrow.DataType") -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)

    if is_bytes(field.type):
        return field.name
    if types.is_struct(field.type):
        place = field.type.get_field_index("bytes")
        if place >= 0 and is_bytes(field.type.field(place).type):
            return f"{field.name}.bytes"
    return None


def _label_column(schema: "pyarrow.Schema") -> str | None:
    """The first column that is named as labels are, and holds text or integers."""
    from pyarrow import types

    for name in _LABEL_NAMES:
        if name in schema.names:
            kind = schema.field(schema.names.index(name)).type
            if types.is_dictionary(kind):
                kind = kind.value_type
            if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind):
                return name
    return None


def _class_names(schema: "pyarrow.Schema", label: str | None) -> list[str]:
    """The names of the integers in the label column, from Hugging Face's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return [valid_text(str(name)) for name in names] if isinstance(names, list) else []


def _values(batch: "pyarrow.RecordBatch", label: str) -> list[str | int | None]:
    """The values of a column of labels; bytes that are not UTF-8 become U+FFFD."""
    import pyarrow

    column = batch.column(batch.schema.names.index(label))
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_integer(column.type):
        return column.to_pylist()
    texts = column.cast(pyarrow.large_binary()).to_pylist()
    return [None if text is None else text.decode("utf-8", errors="replace") for text in texts]


def _label(value: str | int | None, names: list[str]) -> str | None:
    if isinstance(value, int) and names:
        return names[value] if 0 <= value < len(names) else None  # -1 stands for none
    return str(value) if value not in (None, "") else None


def _batches(
    file: "pyarrow.parquet.ParquetFile", leaf: str, columns: list[str]
) -> "Iterator[pyarrow.RecordBatch]":
    """Read the columns, some 16 MB of images or fewer at a time."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        parts = [group.column(place) for place in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == leaf)
        rows = _BATCH_BYTES * group.num_rows // max(size, 1)
        repeats = any(part.has_dictionary_page for part in parts if part.path_in_schema == leaf)
        most = _BATCH_ROWS_OF_DICTIONARY if repeats else _BATCH_ROWS
        yield from file.iter_batches(min(max(rows, 1), most), [number], columns, use_threads=False)


def _content(image: Any) -> bytes | InvalidImage:
    buffer = image.as_buffer()
    if buffer is None:
        return InvalidImage("the row holds no image")
    if buffer.size > MAX_FILE_BYTES:
        return ImageTooLarge(
            f"the image has {buffer.size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )
    return buffer.to_pybytes()
