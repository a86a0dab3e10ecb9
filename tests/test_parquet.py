import hashlib
import io
import json
import subprocess
import sys
from decimal import Decimal
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource
from hashsearch.extras import install_command
from hashsearch.sources import parquet
from hashsearch.sources.parquet import ParquetImages

CLASSES = ["cat", "dog", "frog"]


@pytest.fixture
def pictures(image_files) -> list[bytes]:
    return [path.read_bytes() for path in sorted(image_files.rglob("*.*"))]


def written(folder: Path, table: pa.Table, **options) -> Path:
    pq.write_table(table, folder / "a.parquet", **options)
    return folder / "a.parquet"


def as_hugging_face_lays_it_out(pictures: list[bytes], labels: list[int | None]) -> pa.Table:
    """A column of structs, and the classes' names in the schema's metadata."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": CLASSES, "_type": "ClassLabel"},
    }
    table = pa.table(
        {
            "id": pa.array([f"{number}" for number in range(len(pictures))]),
            "image": pa.array([{"bytes": data, "path": "a.jpg"} for data in pictures], image),
            "label": pa.array(labels, pa.int64()),
        }
    )
    return table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


@pytest.mark.parametrize("rows_a_group", [1, 100, 1000])
def test_hugging_faces_layout_yields_images_and_the_names_of_their_classes(
    pictures, tmp_path, rows_a_group
):
    labels = [(None, -1, 0, 1, 2)[number % 5] for number in range(300)]
    table = as_hugging_face_lays_it_out(pictures, labels)
    source = ParquetImages(written(tmp_path, table, row_group_size=rows_a_group))
    images = list(source)
    assert source.estimate() == 300
    assert [image.content for image in images] == pictures
    assert [image.place for image in images] == [f"#{number}" for number in range(300)]
    assert [image.label for image in images[:5]] == [None, None, "cat", "dog", "frog"]
    assert images[7].size == len(pictures[7])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_column_of_bytes_will_do_of_whatever_width(pictures, tmp_path, kind):
    path = written(tmp_path, pa.table({"data": pa.array(pictures, pa.binary()).cast(kind)}))
    assert [image.content for image in ParquetImages(path)] == pictures


def test_the_column_named_image_comes_before_the_first_of_bytes(pictures, tmp_path):
    one, two = pictures[:2]
    table = {"thumbnail": [one], "Img": [two], "other": [one]}
    (image,) = ParquetImages(written(tmp_path, pa.table(table)))
    assert image.content == two
    del table["Img"]
    (image,) = ParquetImages(written(tmp_path, pa.table(table)))
    assert image.content == one


@pytest.mark.parametrize(
    ("column", "labels", "expected"),
    [
        ("label", pa.array(["a", "", None]), ["a", None, None]),
        ("labels", pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
        ("label", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("fine_label", pa.array([7, 0, None], pa.uint8()), ["7", "0", None]),
        ("class", pa.array(["a", "b", "c"]), ["a", "b", "c"]),
        ("LABEL", pa.array(["a", "b", "c"]), ["a", "b", "c"]),
        ("label", pa.array(["a", "b", "c"]).cast(pa.string_view()), ["a", "b", "c"]),
        ("label", pa.array([b"a", b"caf\xe9", None]), ["a", "caf\ufffd", None]),
        ("label", pa.array([7, -1, None]).dictionary_encode(), ["7", "-1", None]),
        ("label", pa.array([2**64 - 1, 0, None], pa.uint64()), [f"{2**64 - 1}", "0", None]),
        ("label", pa.array([-(2**63), 0, None]), [f"{-(2**63)}", "0", None]),
        ("label", pa.array([True, False, None]), ["true", "false", None]),
        # As pandas writes whole numbers of which one is missing.
        ("label", pa.array([3.0, -0.0, float("nan")]), ["3", "0", None]),
        ("label", pa.array([3.0, None, 1e300]), ["3", None, str(int(1e300))]),
        ("label", pa.array(np.array([3, 4, np.nan], np.float16)), ["3", "4", None]),
        ("label", pa.array([3.0, 2.0, 3.0], pa.float32()).dictionary_encode(), ["3", "2", "3"]),
        ("label", pa.array([Decimal("3.00"), Decimal(-2), None]), ["3", "-2", None]),
        ("name", pa.array(["a", "b", "c"]), [None, None, None]),
    ],
)
def test_labels_are_text_or_whole_numbers_of_any_type(pictures, tmp_path, column, labels, expected):
    source = ParquetImages(written(tmp_path, pa.table({"image": pictures[:3], column: labels})))
    assert [image.label for image in source] == expected
    assert source.remarks == []


WANTED = "a label is text, a whole number, or true or false"


@pytest.mark.parametrize(
    ("columns", "labels", "remarks"),
    [
        (
            {"label": pa.array([[1], [2], [3]])},
            [None, None, None],
            ["the column label of list<element: int64> was passed over; labels are text, whole "
             "numbers, or true and false"],
        ),
        (
            {"label": pa.array([{"x": 1}] * 3), "class": pa.array(["a", "b", "c"])},
            ["a", "b", "c"],
            ["the column label of struct<x: int64> was passed over; labels are text, whole "
             "numbers, or true and false"],
        ),
        (
            {"class": pa.array(["a", "b", "c"]), "label": pa.array([1, 2, 3])},
            ["1", "2", "3"],
            ["the column class was passed over; the labels are those in label"],
        ),
        (
            {"label": pa.array([0.5, 1.0, float("inf")])},
            [None, "1", None],
            [f"the column label has values that are no labels (2): {WANTED}"],
        ),
        (
            {"label": pa.array([Decimal("0.5"), Decimal("1.0"), None])},
            [None, "1", None],
            [f"the column label has values that are no labels (1): {WANTED}"],
        ),
    ],
)  # fmt: skip
def test_what_could_be_a_label_and_is_none_is_named(columns, labels, remarks, pictures, tmp_path):
    source = ParquetImages(written(tmp_path, pa.table({"image": pictures[:3], **columns})))
    for _ in range(2):
        assert [image.label for image in source] == labels
        assert source.remarks == remarks


def test_whole_numbers_that_came_as_floats_stand_for_the_names_of_classes(pictures, tmp_path):
    table = as_hugging_face_lays_it_out(pictures[:5], [0, 1, 2, -1, 99])
    column = table.schema.names.index("label")
    for kind in (pa.float64(), pa.int32()):
        table = table.set_column(column, "label", table["label"].cast(kind))
        source = ParquetImages(written(tmp_path, table))
        assert [image.label for image in source] == [*CLASSES, None, None]
        assert source.remarks == [
            f"the column label has values that are no labels (1): {WANTED}, with a name"
        ]


def in_hugging_face_layout(data: list[bytes]) -> pa.Array:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": one, "path": None} for one in data], kind)


@pytest.mark.parametrize("name", ["content", "bytes", "photo", "jpg", "blob", "the picture"])
@pytest.mark.parametrize("wrap", [pa.array, in_hugging_face_layout])
def test_images_are_in_the_column_whose_bytes_begin_as_images_do(wrap, name, pictures, tmp_path):
    hashes = [hashlib.sha256(data).digest() for data in pictures]
    columns = {"data": hashes, "sha256": hashes, name: wrap(pictures), "md5": hashes}
    source = ParquetImages(written(tmp_path, pa.table(columns)))
    assert [image.content for image in source] == pictures
    assert source.remarks == []


def test_another_column_of_images_is_named(pictures, tmp_path):
    table = pa.table({"mask": pictures[1:], "image": pictures[:-1], "hash": [b"x"] * 299})
    source = ParquetImages(written(tmp_path, table))
    assert [image.content for image in source] == pictures[:-1]
    assert source.remarks == [
        "the column mask holds images too and was passed over; those of the column image were read"
    ]


def test_rows_without_an_image_do_not_hide_the_column(pictures, tmp_path):
    images = [None] * 200 + pictures[:3]
    table = pa.table({"sha": [b"hash"] * 203, "picture_of": pa.array(images, pa.binary())})
    found = [image.content for image in ParquetImages(written(tmp_path, table))]
    assert found[200:] == pictures[:3]
    assert all(isinstance(content, InvalidImage) for content in found[:200])


def test_a_table_of_other_bytes_is_refused(pictures, tmp_path):
    path = written(tmp_path, pa.table({"sha": [b"hash"] * 3, "key": [b"k", b"l", None]}))
    with pytest.raises(InvalidSource, match=r"no column of images: the bytes in sha, key do not "):
        list(ParquetImages(path))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_every_accepted_format_is_known_by_its_first_bytes(format, photograph, tmp_path):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photograph)).resize((40, 40)).save(buffer, format)
    table = pa.table({"sha": [b"hash"], "blob": [buffer.getvalue()]})
    (image,) = ParquetImages(written(tmp_path, table))
    assert image.content == buffer.getvalue()


@pytest.mark.parametrize("metadata", ["", "{broken", "[]", '{"info": 3}', "[" * 100_000])
def test_metadata_that_cannot_be_read_leaves_the_numbers(pictures, tmp_path, metadata):
    table = pa.table({"image": pictures[:1], "label": [1]})
    path = written(tmp_path, table.replace_schema_metadata({"huggingface": metadata}))
    assert [image.label for image in ParquetImages(path)] == ["1"]


def test_a_row_without_an_image_or_with_too_large_a_one_is_a_failure_of_its_own(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(parquet, "MAX_FILE_BYTES", 50_000)
    table = as_hugging_face_lays_it_out(pictures[:3], [0, 1, 2]).to_pydict()
    table["image"][0] = None
    table["image"][1] = {"bytes": None, "path": "elsewhere.jpg"}
    table["image"].append({"bytes": bytes(50_001), "path": None})
    table |= {"id": list("abcd"), "label": [0, 1, 2, 0]}
    images = list(ParquetImages(written(tmp_path, pa.table(table))))
    for image in images[:2]:
        assert isinstance(image.content, InvalidImage)
        assert str(image.content) == "the row holds no image"
    assert images[2].content == pictures[2]
    assert isinstance(images[3].content, ImageTooLarge)


def test_a_large_row_group_is_read_a_page_at_a_time(tmp_path):
    rng = np.random.default_rng(0)
    path = written(
        tmp_path,
        pa.table({"image": [rng.bytes(2**20) for _ in range(200)]}),
        row_group_size=200,
        write_batch_size=1,  # or else all 200 make one page
        use_dictionary=False,
    )
    before, most = pa.total_allocated_bytes(), 0
    for image in ParquetImages(path):
        assert len(image.content) == 2**20
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 64 * 2**20


def test_rows_that_repeat_one_large_value_are_few_at_a_time(tmp_path):
    repeated = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(640, np.int32)), pa.array([bytes(8 * 2**20)])
    )
    options = {"store_schema": False, "dictionary_pagesize_limit": 2**30}
    path = written(tmp_path, pa.table({"image": repeated}), **options)
    assert path.stat().st_size < 2**20
    before, most = pa.total_allocated_bytes(), 0
    for image in islice(ParquetImages(path), 20):
        assert len(image.content) == 8 * 2**20
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 100 * 2**20


def test_of_several_columns_of_one_name_the_first_counts(pictures, tmp_path):
    one, two = (pa.array([data], pa.binary()) for data in pictures[:2])
    columns = {"image": [one, two], "label": [pa.array(["a"]), pa.array([7])]}
    names = [name for name, arrays in columns.items() for _ in arrays]
    table = pa.Table.from_arrays([array for arrays in columns.values() for array in arrays], names)
    (image,) = ParquetImages(written(tmp_path, table))
    assert (image.content, image.label) == (pictures[0], "a")


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_label_that_is_not_utf8_is_no_obstacle(dictionary, pictures, tmp_path):
    table = pa.table({"image": pictures[:3], "label": ["cat", "caf*", None]})
    options = {"compression": "none", "write_statistics": False, "use_dictionary": dictionary}
    path = written(tmp_path, table, **options)
    path.write_bytes(path.read_bytes().replace(b"caf*", b"caf\xe9"))
    assert [image.label for image in ParquetImages(path)] == ["cat", "caf\ufffd", None]


def test_a_classs_name_that_utf8_cannot_hold_is_no_obstacle(pictures, tmp_path):
    metadata = json.dumps({"info": {"features": {"label": {"names": ["\ud800 cat"]}}}})
    table = pa.table({"image": pictures[:1], "label": [0]})
    path = written(tmp_path, table.replace_schema_metadata({"huggingface": metadata}))
    assert [image.label for image in ParquetImages(path)] == ["? cat"]


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ({"image": ["a.jpg"], "n": [1]}, r"image \(string\), n \(int64\)"),
        ({"image": [{"path": "a.jpg"}]}, r"image \(struct<path: string>\)"),
        ({}, "none at all"),
    ],
)
def test_a_table_without_images_is_refused_with_its_columns(table, columns, tmp_path):
    path = written(tmp_path, pa.table(table))
    with pytest.raises(InvalidSource, match=f"has no column of bytes.* it has {columns}"):
        list(ParquetImages(path))


def test_a_file_cut_short_or_none_at_all_is_reported(pictures, tmp_path):
    path = written(tmp_path, pa.table({"image": pictures}))
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:100], whole[: len(whole) // 2], whole[:-1], b"PAR1" * 1000):
        path.write_bytes(data)
        with pytest.raises(InvalidSource, match="is no Parquet file, or a damaged one"):
            list(ParquetImages(path))
        assert ParquetImages(path).estimate() is None


def test_garbage_anywhere_gives_images_or_our_own_error(pictures, tmp_path):
    """In a process of its own, so that a crash in pyarrow would be seen."""
    table = as_hugging_face_lays_it_out(pictures[:20], [0] * 20)
    path = written(tmp_path, table, compression="snappy")
    code = """
import sys
import numpy as np
from pathlib import Path
from hashsearch.errors import InvalidSource
from hashsearch.sources.parquet import ParquetImages
path, rng, refused = Path(sys.argv[1]), np.random.default_rng(0), 0
whole = path.read_bytes()
for trial in range(200):
    damaged = bytearray(whole)
    begin = 0 if trial % 2 else len(whole) - 2000  # half of them in the footer
    for at in rng.integers(begin, len(whole), 3):
        damaged[at] = rng.integers(256)
    path.write_bytes(damaged)
    try:
        assert len(list(ParquetImages(path))) <= 20
    except InvalidSource:
        refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 200


def test_without_pyarrow_it_is_told_what_to_install(tmp_path):
    code = """
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from hashsearch.errors import MissingPackage
from hashsearch.sources import DataFolders, open_source
Path(sys.argv[1]).write_bytes(b"PAR1")
try:
    open_source(sys.argv[1], DataFolders(None, Path()))
except MissingPackage as error:
    print(error)
"""
    run = [sys.executable, "-c", code, tmp_path / "a.parquet"]
    assert subprocess.check_output(run, text=True).strip() == (
        f"Parquet files are read by pyarrow, which is not installed: {install_command('pyarrow')}"
    )


def test_a_number_of_rows_that_no_file_has_is_not_believed(pictures, tmp_path):
    """Two sources that claim 2**62 rows each have more than the catalog counts."""
    path = written(tmp_path, pa.table({"image": pictures[:1]}), store_schema=False)
    data = path.read_bytes()
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    claim = b"\x16" + b"\x80" * 8 + b"\x80\x01" + b"\x19"  # Thrift's 2**62
    footer = data[begin:-8].replace(b"\x16\x02\x19", claim, 1)
    path.write_bytes(data[:begin] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert pq.ParquetFile(path).metadata.num_rows == 2**62
    source = ParquetImages(path)
    assert source.estimate() == 2**48
    assert [image.content for image in source] == pictures[:1]
