"""A Parquet file with a column of images, as Hugging Face's data sets are laid out.

pyarrow is installed with the extra `parquet` only, and imported when a file is read.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource, MissingPackage
from hashsearch.extras import missing
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources.base import SourceImage, valid_text

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

PARQUET_MAGIC = b"PAR1"

_IMAGE_NAMES = [
    "image",
    "img",
    "picture",
    "photo",
    "photograph",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image_bytes",
    "image_data",
    "content",
    "bytes",
    "data",
]
# How the accepted formats begin.
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II[*+]\0|MM\0[*+]|RIFF....WEBP|....ftyp", re.DOTALL
)
_BATCHES_TO_LOOK_AT = 4
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_BATCH_ROWS = 64
_BATCH_ROWS_OF_DICTIONARY = 4  # each may repeat the largest value
_BATCH_BYTES = 16 * 2**20
_MOST_ROWS = 2**48  # that are believed; the number is the file's own claim
_READ_BYTES = 2**20  # of a column at a time; without it, a whole row group is read


class ParquetImages:
    """The rows of a Parquet file, in order.

    Images are in a column of bytes, or of structs with a field `bytes`: of several,
    in one whose first values begin as images do, one with an image's name
    preferred. Labels are in a column label, labels, fine_label or class, of text,
    of true and false, or of whole numbers of any type, which stand for the names in
    Hugging Face's metadata where there are some. Of several columns of one name the
    first counts. Other columns that could be meant are named in `remarks`.

    Memory holds one page of the file at a time; some writers make a row group one.
    """

    def __init__(self, root: Path):
        if find_spec("pyarrow") is None:
            raise MissingPackage(missing("pyarrow", "Parquet files are read by"))
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.is_folder = False
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
            self.remarks.clear()
            label, remarks = _label_column(schema)
            self.remarks += remarks
            column, leaf = self._image_column(file)
            names = _class_names(schema, label)
            no_labels = 0
            for batch in _batches(file, leaf, [leaf] if label is None else [leaf, label]):
                images = _images(batch, column, leaf)
                labels = _values(batch, label) if label else [None] * len(images)
                for image, value in zip(images, labels, strict=True):
                    content = _content(image)
                    size = len(content) if isinstance(content, bytes) else 0
                    text = _label(value, names)
                    no_labels += text is None and not _is_missing(value, names)
                    yield SourceImage(f"#{row}", text, size, mtime, content)
                    row += 1
            if no_labels:
                self.remarks.append(
                    f"the column {label} has values that are no labels ({no_labels:,}): a label "
                    "is text, a whole number, or true or false" + (", with a name" if names else "")
                )

    def image_at(
        self, file: BinaryIO, row: int, stop: Callable[[], bool]
    ) -> bytes | InvalidImage | None:
        """Read the image of one row; None if there is no such row, or `stop` returned True.

        file: the open Parquet file. stop: asked after each batch of rows before it.
        """
        with self._open(file) as opened:
            column, leaf = self._image_column(opened)
            for number in range(opened.metadata.num_row_groups):
                rows = opened.metadata.row_group(number).num_rows
                if row >= rows:
                    row -= rows
                    continue
                for batch in _batches(opened, leaf, [leaf], [number]):
                    if row < len(batch):
                        return _content(_images(batch, column, leaf)[row])
                    if stop():
                        return None
                    row -= len(batch)
                break
        return None

    @contextmanager
    def _open(self, file: BinaryIO | None = None) -> "Iterator[pyarrow.parquet.ParquetFile]":
        """Open the file, or read it if it is open; damage met anywhere raises InvalidSource."""
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(
                file or self.root, pre_buffer=False, buffer_size=_READ_BYTES
            ) as opened:
                yield opened
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the file
            raise InvalidSource(
                f"{self.root} is no Parquet file, or a damaged one: {error}"
            ) from error

    def _image_column(self, file: "pyarrow.parquet.ParquetFile") -> tuple[str, str]:
        """The column of images, and the path of the bytes in it: itself, or `<name>.bytes`."""
        schema = file.schema_arrow
        found: dict[str, str] = {}
        for field in schema:
            if path := _path_to_bytes(field):
                found.setdefault(field.name, path)
        named = sorted((name for name in found if _rank(name) < len(_IMAGE_NAMES)), key=_rank)
        if len(found) == 1 and named:
            return named[0], found[named[0]]
        images = {name: _holds_images(file, path) for name, path in found.items()}
        for name in (*named, *found):
            if images[name]:
                self.remarks += [
                    f"the column {other} holds images too and was passed over; those of the "
                    f"column {name} were read"
                    for other in found
                    if images[other] and other != name
                ]
                return name, found[name]
        for name in named or [name for name in found if images[name] is None]:
            return name, found[name]
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none at all"
        if found:
            raise InvalidSource(
                f"{self.root} has no column of images: the bytes in {', '.join(found)} do not "
                f"begin as images do; its columns are {columns}"
            )
        raise InvalidSource(
            f"{self.root} has no column of bytes, or of structs with a field bytes, for the "
            f"images; it has {columns}"
        )


def _rank(name: str, names: Sequence[str] = _IMAGE_NAMES) -> int:
    """The place of a column's name among others, best first; their number if it is none."""
    name = name.lower().removesuffix(".bytes")
    return names.index(name) if name in names else len(names)


def _holds_images(file: "pyarrow.parquet.ParquetFile", leaf: str) -> bool | None:
    """Whether a column's first values begin as images do; None if there is no value."""
    import pyarrow

    found = None
    try:
        for batch in islice(_batches(file, leaf, [leaf]), _BATCHES_TO_LOOK_AT):
            values = batch.column(0)
            if pyarrow.types.is_struct(values.type):
                (values,) = values.flatten()
            starts = (value.as_buffer() for value in values)
            looks = [bool(_SIGNATURE.match(start[:16])) for start in starts if start is not None]
            if any(looks):
                return True
            found = False if looks else found
    except (pyarrow.ArrowException, OSError):  # a damaged column that may not be needed
        return None
    return found


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


def _label_column(schema: "pyarrow.Schema") -> tuple[str | None, list[str]]:
    """The column of labels, if there is one, and remarks about others with such names.

    It is the first that is named as labels are and has a suitable type.
    """
    chosen, remarks = None, []
    named = [name for name in dict.fromkeys(schema.names) if name.lower() in LABEL_COLUMNS]
    for name in sorted(named, key=lambda name: _rank(name, LABEL_COLUMNS)):
        kind = schema.field(schema.names.index(name)).type
        if not _is_label(kind):
            remarks.append(
                f"the column {name} of {kind} was passed over; labels are text, whole numbers, "
                "or true and false"
            )
        elif chosen is None:
            chosen = name
        else:
            remarks.append(f"the column {name} was passed over; the labels are those in {chosen}")
    return chosen, remarks


def _is_label(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind) or any(
        test(kind)
        for test in (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    )


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return any(
        test(kind)
        for test in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,  # as writers that know no text mark it
            types.is_large_binary,
            types.is_binary_view,
        )
    )


def _class_names(schema: "pyarrow.Schema", label: str | None) -> list[str]:
    """The names of the integers in the label column, from Hugging Face's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return [valid_text(str(name)) for name in names] if isinstance(names, list) else []


def _values(batch: "pyarrow.RecordBatch", label: str) -> list[Any]:
    """The values of a column of labels; bytes that are not UTF-8 become U+FFFD."""
    import pyarrow

    column = batch.column(batch.schema.names.index(label))
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        return column.to_pylist()
    texts = column.cast(pyarrow.large_binary()).to_pylist()
    return [None if text is None else text.decode("utf-8", errors="replace") for text in texts]


def _is_missing(value: Any, names: list[str]) -> bool:
    """Whether a value of a label column stands for no label."""
    return value in (None, "") or value != value or (value == -1 and bool(names))


def _label(value: Any, names: list[str]) -> str | None:
    """A value of a label column as text; None for none, and for a number that is not whole."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | None):
        return value or None
    if not math.isfinite(value) or value != int(value):
        return None
    number = int(value)
    if names:
        return names[number] if 0 <= number < len(names) else None  # -1 stands for none
    return str(number)


def image_in_parquet(
    file: BinaryIO, path: Path, name: str, stop: Callable[[], bool]
) -> bytes | InvalidImage | None:
    """Read the image of a row of an open Parquet file; as `Container.read`."""
    row = int(name) if re.fullmatch("[0-9]{1,18}", name) else _MOST_ROWS
    return ParquetImages(path).image_at(file, row, stop)


def _images(batch: "pyarrow.RecordBatch", column: str, leaf: str) -> "pyarrow.Array":
    """The column of images, as bytes."""
    images = batch.column(batch.schema.names.index(column))
    if leaf != column:
        (images,) = images.flatten()  # null where the struct is
    return images


def _batches(
    file: "pyarrow.parquet.ParquetFile",
    leaf: str,
    columns: list[str],
    groups: Iterable[int] | None = None,
) -> "Iterator[pyarrow.RecordBatch]":
    """Read the columns, some 16 MB of images or fewer at a time.

    groups: numbers of the row groups to read; None for all.
    """
    for number in range(file.metadata.num_row_groups) if groups is None else groups:
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
