"""The library as users import it."""

import doctest
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hashsearch as hs
from hashsearch.cli import main
from hashsearch.encoder import Encoder
from hashsearch.images import decode, from_picture
from hashsearch.inputs import image_file
from hashsearch.models.card import PRETRAINED_MODELS, read_card
from tests import forked
from tests.conftest import KEY, WITH_KEY, listening

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "python.md").read_text()


@pytest.fixture
def opened(gallery):
    with hs.open(gallery.folder) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, image_files, photograph, monkeypatch) -> Path:
    """The working folder that the guide speaks of."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copytree(image_files, "pictures")
    subprocess.run(["tar", "-cf", "more.tar", "-C", str(image_files), "."], check=True)
    Path("query.jpg").write_bytes(photograph)
    with Image.open(io.BytesIO(photograph)) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("new.jpg")
    return tmp_path / "work"


def test_the_face_is_this():
    assert hs.__all__ == [
        *("AsyncClient", "BuiltIndex", "Client", "DuplicateFile", "DuplicateGroup"),
        *("ExportSummary", "Gallery", "GalleryInfo", "Hit", "ImageRecord", "IndexSummary"),
        *("ListedImage", "Ranking", "Relocation", "SearchOptions", "ServedImage"),
        *("encode", "errors", "load_model", "open"),
    ]
    assert set(hs.__all__) <= set(dir(hs))
    for name in hs.__all__:
        assert getattr(hs, name) is not None
    public = {name for name in vars(hs.Gallery) if not name.startswith("_")}
    assert public == {
        *("add", "close", "duplicates", "failures", "get", "index", "paths", "rank", "reconstruct"),
        *("relocate", "remove", "search", "build_index", "built_indexes", "export"),
    }
    public = {name for name in vars(hs.Client) if not name.startswith("_")}
    assert public == {
        *("add", "close", "duplicates", "encode", "get", "info", "rank", "reconstruct", "remove"),
        "search",
    }
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = hs.nothing


def documented() -> list[str]:
    methods = [
        f"{kind.__name__}.{name}"
        for kind in (hs.Gallery, hs.Client)
        for name in vars(kind)
        if not name.startswith("_")
    ]
    names = (name for name in hs.__all__ if name != "errors")
    return [*names, *methods, "Gallery.__contains__", "Client.__contains__"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # examples read files as people do
@pytest.mark.parametrize("name", documented())
def test_every_public_name_has_a_docstring_whose_example_runs(name, folder, gallery_folder):
    shutil.copytree(gallery_folder, "gallery")
    documentation = inspect.getdoc(attrgetter(name)(hs))
    with ExitStack() as stack:
        gallery = stack.enter_context(hs.open("gallery"))
        scope = {"hashsearch": hs, "gallery": gallery}
        if "Client" in documentation or "client." in documentation:
            address = stack.enter_context(listening(gallery._storage.folder, **WITH_KEY))
            client = stack.enter_context(hs.Client(address, key=KEY))
            scope |= {"address": address, "client": client}
        examples = doctest.DocTestParser().get_doctest(documentation, scope, name, None, 0)
        assert examples.examples, f"{name} has no example"
        results = doctest.DocTestRunner().run(examples, out=pytest.fail)
    assert results.failed == 0


def test_every_error_is_documented():
    for error in vars(hs.errors).values():
        if inspect.isclass(error):
            assert issubclass(error, hs.errors.HashSearchError)
            assert inspect.getdoc(error)


def test_the_guide_lists_every_error():
    section = GUIDE.partition("## Errors\n")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .+ \|$", section, re.MULTILINE)
    listed = [name for names in rows for name in re.findall(r"\w+", names)]
    classes = {name for name, error in vars(hs.errors).items() if inspect.isclass(error)}
    assert sorted(listed) == sorted(classes - {"HashSearchError"})
    for name in re.findall(r"^\| `(\w+)` \| an `InvalidImage`", GUIDE, re.MULTILINE):
        assert issubclass(getattr(hs.errors, name), hs.errors.InvalidImage)


def test_importing_the_package_takes_neither_torch_nor_faiss_nor_numpy():
    script = "import sys, hashsearch; print([*{'torch', 'faiss', 'numpy'} & {*sys.modules}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the guide reads files as people do
def test_the_guides_blocks_run_as_written_and_print_nothing_of_their_own(folder):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) >= 8
    printed, errors, scope = io.StringIO(), io.StringIO(), {"__name__": "__main__"}
    with redirect_stdout(printed), redirect_stderr(errors):
        for block in blocks:
            with ExitStack() as stack:
                if "http://127.0.0.1:8000" in block:
                    address = stack.enter_context(listening(Path("gallery"), **WITH_KEY))
                    block = block.replace("http://127.0.0.1:8000", address)
                    block = block.replace("your-own-key-of-16-or-more", KEY)
                exec(compile(block, "docs/python.md", "exec"), scope)
    scope["gallery"].close()
    assert errors.getvalue() == ""
    lines = printed.getvalue().splitlines()
    assert len(lines) >= 5
    for line in lines[:3]:
        assert re.fullmatch(r"\d+ .*pictures/.*\.(jpg|png)", line)
    assert all(line.startswith("indexing ") for line in lines[3:-1])
    assert lines[-1] == "missing.jpg cannot be read: No such file or directory"
    assert lines[-1] in GUIDE


def test_the_guide_lists_every_call_of_a_gallery_and_of_a_client():
    section = GUIDE.partition("## Over HTTP\n")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    there, missing = " ".join(rows[:-1]), rows[-1]
    calls = {name for name in vars(hs.Gallery) if not name.startswith("_")}
    ours = {name for name in vars(hs.Client) if not name.startswith("_")}
    assert set(re.findall(r"`(\w+)", there)) == ours | {"in", "len", "with"}
    assert set(re.findall(r"`(\w+)", missing)) == calls - ours
    blocks = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    assert set(re.findall(r"client\.(\w+)\(", blocks)) >= ours - {"close", "rank"}
    documentation = inspect.getdoc(hs.Client)
    for name in (*calls, *ours):
        assert re.search(rf"\b{name}\b", documentation), name


def test_anything_that_names_an_image_is_a_query(opened, image_files, gallery):
    record = opened.get(9)
    data = Path(record.path).read_bytes()
    code = gallery.code(9)
    pixels = gallery.pixels(9)
    for query in (
        *(record.path, Path(record.path), data, bytearray(data), pixels),
        *(Image.fromarray(pixels), code, code.tobytes().hex(), code.tobytes().hex().upper()),
    ):
        hits = opened.search(query, k=300)
        assert hits[0].distance == 0
        assert 9 in [hit.id for hit in hits if hit.distance == 0]
    by_id = opened.search(9, k=300)
    assert sorted(hit.id for hit in by_id) == [n for n in range(1, 301) if n != 9]
    assert opened.search(np.int64(9)) == by_id[:10]


def test_hits_tell_of_their_image(opened):
    (hit,) = opened.search(9, k=1)
    record = opened.get(hit.id)
    assert (hit.label, hit.path, hit.uri) == (record.label, record.path, record.uri)
    assert hit.closeness is None
    (by_pixels,) = opened.search(9, k=1, method="pixels")
    ours, theirs = (decode(Path(opened.get(n).path).read_bytes()).tiny for n in (9, by_pixels.id))
    assert by_pixels.distance == int(((ours.astype(int) - theirs) ** 2).sum())
    within = opened.search(9, radius=100)
    assert within == [hit for hit in opened.search(9, k=300) if hit.distance <= 100]


def test_a_picture_that_pillow_holds_has_the_code_of_its_file(photograph, tmp_path):
    image = Image.open(io.BytesIO(photograph))
    image.save(tmp_path / "a.png")
    codes = hs.encode([photograph, image, tmp_path / "a.png", np.asarray(image)])
    assert image.size == (640, 427)  # left as it was
    assert_array_equal(codes[1], codes[2])
    assert_array_equal(codes[1], codes[3])
    assert np.bitwise_count(codes[0] ^ codes[1]).sum() <= 8  # JPEG is decoded at a smaller scale


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_pictures_of_all_modes_are_as_their_files(mode, photograph, tmp_path):
    with Image.open(io.BytesIO(photograph)) as image:
        small = image.resize((80, 60))
    if mode == "I;16":
        small = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    else:
        small = small.convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    small.save(tmp_path / f"a.{suffix}")
    codes = hs.encode([small, tmp_path / f"a.{suffix}"])
    assert_array_equal(codes[0], codes[1])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "LA", "turned"])
def test_a_picture_of_any_mode_becomes_a_file_of_the_same_pixels(mode, photograph):
    with Image.open(io.BytesIO(photograph)) as image:
        small = image.resize((80, 60))
    if mode == "I;16":
        small = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    elif mode == "turned":
        small.getexif()[0x0112] = 6
    else:
        small = small.convert(mode)
    assert_array_equal(decode(image_file(small)).tiny, from_picture(small).tiny)


def test_encode_says_which_image_is_bad(photograph, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(photograph[:3000])
    with pytest.raises(hs.errors.InvalidImage, match=r"^image 1: .*bad\.jpg: the JPEG image of"):
        hs.encode([photograph, tmp_path / "bad.jpg"])


def test_a_pretrained_model_is_named_by_a_text_alone(tiny_images, tmp_path, monkeypatch):
    folder = PRETRAINED_MODELS["general"]
    general, bundled = hs.load_model("general"), hs.load_model()
    assert general.fingerprint == read_card(folder).fingerprint != bundled.fingerprint
    expected = general.encode(tiny_images[:7])
    assert_array_equal(hs.encode(tiny_images[:7], "general"), expected)
    assert (expected != bundled.encode(tiny_images[:7])).any()
    with hs.open(tmp_path / "g", create=True, model="general") as gallery:
        assert gallery._storage.fingerprint == general.fingerprint
    with pytest.raises(hs.errors.ArtifactMismatch, match=r"made by model \w+, and bundled is \w+;"):
        hs.open(tmp_path / "g", model="bundled")
    monkeypatch.chdir(tmp_path)
    for own in (Path("general"), "./general"):
        with pytest.raises(hs.errors.InvalidModel, match=r"^\./general is no model folder"):
            hs.load_model(own)


def test_encode_takes_arrays_and_other_models(tiny_images, model_folder):
    expected = Encoder.load(model_folder).encode(tiny_images[:7])
    assert_array_equal(hs.encode(tiny_images[:7], model_folder), expected)
    assert_array_equal(hs.encode(list(tiny_images[:7]), hs.load_model(model_folder)), expected)
    assert hs.encode([]).shape == (0, 32)
    assert hs.load_model().reconstruct(hs.encode(tiny_images[:2])).shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("nowhere.jpg", hs.errors.InvalidImage, "nowhere.jpg cannot be read: No such file"),
        (b"hello", hs.errors.InvalidImage, "not an image in an accepted format"),
        (12345, hs.errors.NotInGallery, "no image with this id"),
        (-1, hs.errors.NotInGallery, "no image with this id"),
        (np.zeros(31, np.uint8), hs.errors.CodeShapeError, r"shape \(n, 32\)"),
        ("z" * 64, hs.errors.CodeShapeError, "got other characters"),
        (np.zeros((8, 8)), hs.errors.InvalidImage, r"float64 \(8, 8\) came"),
        (np.zeros((0, 8, 3), np.uint8), hs.errors.InvalidImage, r"\(0, 8, 3\) came"),
        (3.5, hs.errors.InvalidQuery, r"^3\.5 came; .*a PIL image, an array, an id, a code$"),
        (None, hs.errors.InvalidQuery, "^nothing came to search for; a query, or an ex"),
        ([1, 2], hs.errors.InvalidQuery, "^an object of type list came;"),
        (True, hs.errors.InvalidQuery, "an id is a whole number; got True"),
        ("", hs.errors.InvalidQuery, "an empty path came"),
        ("a\0b.jpg", hs.errors.InvalidImage, "is no path"),
        (10**30, hs.errors.NotInGallery, "no image with this id"),
        ("x" * 5000, hs.errors.InvalidImage, "^x{200}… cannot be read: File name too long"),
        (str(ROOT), hs.errors.InvalidImage, "cannot be read: Is a directory"),
        (
            str(ROOT / "README.md"),
            hs.errors.InvalidImage,
            r"README\.md: the .* not an image in an acc",
        ),
        (Image.new("RGB", (0, 5)), hs.errors.InvalidImage, "has 0×5 pixels"),
    ],
)
def test_what_is_no_query_is_refused_in_a_sentence(opened, query, error, message):
    with pytest.raises(error, match=message):
        opened.search(query)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is at least 1; got 0"),
        ({"k": 5.0}, r"k is a whole number; got 5\.0"),
        ({"k": "5"}, "k is a whole number; got '5'"),
        ({"k": float("nan")}, "k is a whole number; got nan"),
        ({"radius": -1}, "radius is at least 0; got -1"),
        ({"radius": 40.0}, "radius is a whole number"),
        ({"method": "scent"}, "no method 'scent'"),
    ],
)
def test_bounds_that_are_none_are_refused(opened, arguments, message):
    with pytest.raises(hs.errors.InvalidQuery, match=message):
        opened.search(9, **arguments)


def test_bounds_may_be_numpys_and_larger_than_everything(opened):
    expected = opened.search(9, k=300)
    assert opened.search(9, k=np.int64(3), radius=np.uint8(255)) == expected[:3]
    assert opened.search(9, k=10**30, radius=10**30) == expected


def test_a_closed_gallery_says_so(opened):
    opened.search(9)
    opened.close()
    opened.close()
    for use in (
        *(lambda: len(opened), lambda: opened.search(9), lambda: opened.get(9)),
        *(lambda: list(opened), lambda: opened.index("x"), lambda: opened.add(b"x")),
        *(lambda: opened.remove(ids=[]), lambda: opened.reconstruct(9), opened.failures),
        opened.__enter__,
    ):
        with pytest.raises(hs.errors.InvalidGallery, match="is closed; open it again"):
            use()


def test_an_image_that_is_added_by_its_path_keeps_it(opened, tmp_path, photograph):
    (tmp_path / "holiday").mkdir()
    path = tmp_path / "holiday" / "rocket.jpg"
    path.write_bytes(photograph)
    number = opened.add(path, label="rocket")
    assert (opened.get(number).path, opened.get(number).label) == (str(path), "rocket")
    summary = opened.index(tmp_path / "holiday", workers=1)
    assert (summary.indexed, summary.unchanged) == (0, 1)
    for wrong, error, message in (
        (tmp_path / "none.jpg", hs.errors.InvalidImage, r"none\.jpg cannot be read: No such file"),
        ("a\0.jpg", hs.errors.InvalidImage, "is no path: embedded null byte"),
        (tmp_path, hs.errors.InvalidImage, "Is a directory"),
        (ROOT / "README.md", hs.errors.InvalidImage, r"README\.md: the .* not an image"),
        (Image.new("RGB", (9, 9)), hs.errors.InvalidQuery, "of type Image came"),
    ):
        with pytest.raises(error, match=message):
            opened.add(wrong)


def test_add_and_search_refuse_what_is_no_image_with_the_same_error(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("hashsearch.images.MAX_FILE_BYTES", 1000)
    (tmp_path / "large.jpg").write_bytes(bytes(1001))
    (tmp_path / "video.jpg").write_bytes(b"\0\0\0\x18ftypisom" + bytes(40))
    (tmp_path / "damaged.gif").write_bytes(b"GIF89a")
    for path, wanted in (
        (tmp_path / "large.jpg", hs.errors.ImageTooLarge),
        (tmp_path / "video.jpg", hs.errors.UnsupportedFormat),
        (tmp_path / "damaged.gif", hs.errors.InvalidImage),
        (tmp_path / "none.jpg", hs.errors.InvalidImage),
        (tmp_path, hs.errors.InvalidImage),
        ("a\0b.jpg", hs.errors.InvalidImage),
        ("x" * 5000, hs.errors.InvalidImage),
    ):
        messages = set()
        for call in (opened.add, opened.search):
            with pytest.raises(hs.errors.InvalidImage) as raised:
                call(path)
            assert raised.type is wanted
            messages.add(str(raised.value))
        (message,) = messages
        assert len(message) < 400


def test_an_empty_label_takes_an_images_label_away(opened, tmp_path, photograph):
    path = tmp_path / "shuttle" / "rocket.jpg"
    path.parent.mkdir()
    path.write_bytes(photograph)
    number = opened.add(path, label="")
    assert opened.get(number).label is None
    assert opened.add(path, label="a\0b\n") == number
    assert opened.get(number).label == "a\0b\n"
    opened.add(path)
    assert opened.get(number).label == "a\0b\n"
    opened.add(photograph, label="")
    assert opened.get(number).label is None
    opened.index(tmp_path, workers=1)
    assert opened.get(number).label is None  # given, so that the folder's name gives none


def test_failures_are_listed_with_their_reasons(opened, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"hello")
    assert opened.index(tmp_path / "bad", workers=1).failed == 1
    ((failure),) = opened.failures()
    assert (failure.uri, failure.path) == ("bad/a.jpg", str(tmp_path / "bad" / "a.jpg"))
    assert "not an image in an accepted format" in failure.reason


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "at least one source"),
        ((["pictures"],), "an object of type list came as a source; give each path"),
        ((None,), "None came as a source"),
        (("",), "an empty path came"),
    ],
)
def test_what_is_no_source_is_refused(opened, sources, message):
    with pytest.raises(hs.errors.InvalidQuery, match=message):
        opened.index(*sources)


def test_numbers_of_workers_and_failures_are_checked(opened, image_files):
    for arguments in ({"workers": 0}, {"workers": -1}, {"workers": 1.5}, {"max_failures": -1}):
        with pytest.raises(hs.errors.InvalidQuery, match=r"is (at least|a whole)"):
            opened.index(image_files, **arguments)


def test_a_gallery_that_cannot_be_made_leaves_nothing(tmp_path):
    with pytest.raises(hs.errors.InvalidQuery, match="float32 or bfloat16; got 'float16'"):
        hs.open(tmp_path / "g", create=True, precision="float16")
    with pytest.raises(hs.errors.InvalidModel):
        hs.open(tmp_path / "g", create=True, model=tmp_path)
    with pytest.raises(hs.errors.InvalidQuery, match="an empty path"):
        hs.open("")
    assert list(tmp_path.iterdir()) == []


def test_one_image_alone_is_not_a_sequence(tiny_images):
    for image in ("a.jpg", b"data", Path("a.jpg"), Image.new("RGB", (4, 4)), tiny_images[0]):
        with pytest.raises(hs.errors.InvalidQuery, match=r"such as \[image\]"):
            hs.encode(image)


def test_a_gallery_is_made_filled_and_changed(tmp_path, image_files, photograph, model_folder):
    with pytest.raises(hs.errors.InvalidGallery, match=r"does not exist; .*create=True"):
        hs.open(tmp_path / "g")
    with pytest.raises(hs.errors.InvalidGallery, match="is not a gallery"):
        hs.open(tmp_path)
    seen = []
    with hs.open(str(tmp_path / "g"), create=True, model=model_folder) as gallery:
        assert (len(gallery), bool(gallery), list(gallery)) == (0, True, [])
        assert gallery.search(photograph) == []
        summary = gallery.index(image_files, progress=lambda *parts: seen.append(parts))
        assert (summary.indexed, summary.stopped, len(gallery)) == (300, False, 300)
        assert [record.id for record in gallery] == list(range(1, 301))
        number = gallery.add(photograph, label="my rocket")
        assert gallery.add(photograph) == number
        assert gallery.search(photograph, k=1)[0].id == number
        assert gallery.get(number).label == "my rocket"
        assert gallery.reconstruct(number).shape == (32, 32, 3)
        assert gallery.remove(label="my rocket") == 1
        assert gallery.remove([1, 2, 2, 999]) == 2
        assert len(gallery) == 298
        with pytest.raises(hs.errors.NotInGallery):
            gallery.get(number)
    assert [what for what, _, _ in seen] == ["indexing"] * len(seen)
    assert seen[-1][1] == 300


def test_threads_share_a_gallery_that_changes(opened, gallery, image_files, photograph):
    """Several search, one adds and removes; whoever notices a change, nobody meets an error."""
    expected = {hit.id for hit in opened.search(9, k=300)}
    errors, done = [], threading.Event()

    def search(number: int) -> None:
        try:
            while not done.is_set():
                found = {hit.id for hit in opened.search(number, k=10**6)}
                assert found >= expected - {number}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in (9, 9, 9)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        number = opened.add(photograph)
        assert opened.search(photograph, k=1)[0].id == number
        assert opened.remove([number]) == 1
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_adding_loads_the_model_once(opened, photograph, monkeypatch):
    loaded = []
    load = Encoder.load.__func__
    monkeypatch.setattr(
        Encoder, "load", classmethod(lambda cls, *a, **k: loaded.append(a) or load(cls, *a, **k))
    )
    opened.add(photograph)
    opened.add(photograph + b"\0")
    opened.search(photograph)
    opened.reconstruct(9)
    assert len(loaded) == 1


def test_a_pipe_and_an_endless_file_are_refused(opened, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        for use in (opened.search, opened.add, lambda path: hs.encode([path])):
            with pytest.raises(hs.errors.InvalidImage, match="it is not a regular file"):
                use(path)


def test_what_would_remove_everything_is_refused(opened):
    for arguments in (
        *({}, {"ids": [1], "label": "x"}, {"uri_prefix": ""}, {"ids": "12"}, {"ids": 7}),
        *({"ids": [3.5]}, {"ids": b"\x05"}, {"ids": ["1"]}, {"ids": [True]}),
    ):
        with pytest.raises(hs.errors.InvalidQuery):
            opened.remove(**arguments)
    assert opened.remove(ids=[]) == 0
    assert len(opened) == 300


def test_a_job_stops_when_it_is_asked_to(tmp_path, image_files, model_folder, monkeypatch):
    from hashsearch.jobs.index import reading

    monkeypatch.setattr(reading, "CHUNK_IMAGES", 20)
    with hs.open(tmp_path / "g", create=True, model=model_folder) as gallery:
        asked = []
        summary = gallery.index(image_files, stop=lambda: asked.append(1) or len(asked) == 3)
        assert summary.stopped
        assert 0 < summary.indexed == len(gallery) < 300
        assert gallery.index(image_files).unchanged == summary.indexed
        assert len(gallery) == 300


def test_changes_of_other_programs_are_seen(opened, gallery, photograph):
    before = opened.search(9, k=1)[0].id
    with hs.open(gallery.folder) as other:
        other.remove([before])
        number = other.add(photograph)
    assert opened.search(9, k=1)[0].id != before
    assert opened.search(photograph, k=1)[0].id == number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixels": False}, "keeps pixels"),
        ({"thumbnails": False}, "keeps thumbnails"),
        ({"precision": "bfloat16"}, "encoded in float32"),
        ({"model": "bundled"}, "was made by model"),
    ],
)
def test_another_gallery_than_the_one_that_was_asked_for_is_refused(gallery, arguments, message):
    with pytest.raises(hs.errors.ArtifactMismatch, match=message):
        hs.open(gallery.folder, **arguments)
    hs.open(gallery.folder, create=True, pixels=True, precision="float32").close()


def run_script(text: str, folder: Path, on_stdin: bool = False) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(text)
    given = {"cwd": folder, "env": {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}}
    if not on_stdin:
        return forked.run([sys.executable, "script.py"], **given)
    return subprocess.run(
        [sys.executable, "-"], input=text, capture_output=True, text=True, timeout=120, **given
    )


def test_a_script_without_the_main_guard_is_told_so(folder, model_folder):
    script = (
        "import hashsearch as hs\n"
        f"with hs.open('g', create=True, model={str(model_folder)!r}) as gallery:\n"
        "    print(gallery.index('query.jpg', workers=1).indexed)\n"
    )
    done = run_script(script, folder)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hashsearch.errors.WorkersFailed: worker processes failed to start;")
    assert 'if __name__ == "__main__":' in last
    assert "multiprocessing/spawn.py" not in done.stderr  # nothing of the workers' own
    assert "GalleryBusy" not in done.stderr
    guarded = "import hashsearch as hs\nif __name__ == '__main__':\n"
    guarded += "".join(f"    {line}\n" for line in script.splitlines()[1:])
    done = run_script(guarded, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_script_on_stdin_is_told_to_be_put_into_a_file(folder, model_folder):
    script = (
        "import hashsearch as hs, numpy as np\n"
        "np.save('tiny.npy', np.zeros((2, 32, 32, 3), np.uint8))\n"
        f"with hs.open('g', create=True, model={str(model_folder)!r}) as gallery:\n"
        "    print(gallery.index('tiny.npy').indexed)\n"  # needs no processes
        "    gallery.index('query.jpg')\n"
    )
    done = run_script(script, folder, on_stdin=True)
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "hashsearch.errors.WorkersFailed: worker processes cannot start from a script on stdin; "
        'put it into a file, and call index() there under `if __name__ == "__main__":`'
    )


def test_the_library_takes_over_no_signal_and_configures_no_logging(folder, model_folder):
    done = run_script(
        "import json, logging, signal\n"
        "import hashsearch as hs\n"
        "if __name__ == '__main__':\n"
        "    def handlers():\n"
        "        return [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "    before, seen = handlers(), []\n"
        f"    with hs.open('g', create=True, model={str(model_folder)!r}) as gallery:\n"
        "        gallery.index('pictures', workers=1, stop=lambda: seen.append(handlers()))\n"
        "        gallery.search('query.jpg')\n"
        "    print(json.dumps([before == handlers() and all(s == before for s in seen),\n"
        "                      len(seen) > 0, logging.root.handlers == []]))\n",
        folder,
    )
    assert json.loads(done.stdout) == [True, True, True], done.stderr
    assert done.stderr == ""


def test_a_gallery_named_by_a_relative_path_stays_open_elsewhere(gallery, tmp_path, monkeypatch):
    monkeypatch.chdir(gallery.folder.parent)
    (tmp_path / "elsewhere" / gallery.folder.name).mkdir(parents=True)
    with hs.open(gallery.folder.name) as opened:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert len(opened) == 300
        assert len(opened.search(1, k=3)) == 3
        assert repr(opened) == f"<hashsearch.Gallery {gallery.folder.name!r}>"
    assert list((tmp_path / "elsewhere" / gallery.folder.name).iterdir()) == []


def test_paths_in_a_file_of_labels_that_name_no_image_are_counted_for_all(
    folder, model_folder, capsys
):
    names = [str(path.relative_to("pictures")) for path in sorted(Path("pictures").rglob("*.*"))]
    rows = [f"{name},animal" for name in [*names[:5], "nowhere.jpg", "cat/none.png"]]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]))
    with hs.open("g", create=True, model=model_folder) as gallery:
        assert gallery.index("pictures", labels="labels.csv", workers=1).unused_labels == 2
        assert gallery.index("pictures", workers=1).unused_labels == 0
    command = ["index", "pictures", "--gallery", "g", "--workers", "1", "--labels", "labels.csv"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unused_labels"] == 2
    assert main(command) == 0
    assert "\n2 paths in labels.csv name no image of these sources\n" in capsys.readouterr().out


def test_a_gallery_contains_the_ids_and_records_that_it_holds(opened, monkeypatch):
    monkeypatch.setattr(hs.Gallery, "__iter__", None)  # `in` must not read every record
    first, second = opened.get(1), opened.get(2)
    opened.remove(ids=[2])
    assert [number in opened for number in (1, 2, 300, 301, 0, -1, 10**30)] == [
        *(True, False, True, False, False, False, False)
    ]
    assert np.int64(1) in opened
    assert first in opened
    assert second not in opened
    assert replace(first, label="other") not in opened
    for wrong in ("1", "cat/1.jpg", Path("1"), 1.0, True, None, opened.search(1, k=1)[0]):
        with pytest.raises(hs.errors.InvalidQuery, match="an id is a whole number; got"):
            assert wrong in opened


def test_an_image_that_was_added_as_bytes_is_shown_by_their_checksum(opened, photograph, capsys):
    number = opened.add(photograph)
    path = f"<bytes with SHA-256 {hashlib.sha256(photograph).hexdigest()}>"
    assert (opened.get(number).path, opened.paths(number)) == (path, [path])
    assert opened.get(number).missing is False
    assert opened.search(photograph, k=1)[0].path == path
    folder = str(opened._named)
    assert main(["query", str(number - 1), "--gallery", folder, "-k", "300"]) == 0
    assert any(line.endswith(f"  {path}") for line in capsys.readouterr().out.splitlines())
    assert opened.remove(uri_prefix=path) == 1
    assert number not in opened
    number = opened.add(photograph)
    assert main(["gallery", "remove", folder, "--uri", path]) == 0
    assert number not in opened


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda g: g.index("pictures", exclude=[3]), "InvalidQuery", "3 came as a pattern; text"),
        (lambda g: g.index("pictures", progress=3), "InvalidQuery", "progress is a function; got"),
        (lambda g: g.index("pictures", stop=5), "InvalidQuery", "stop is a function; got 5"),
        (lambda g: g.index("pictures", labels="a\0b"), "InvalidSource", "is no path"),
        (lambda g: g.index("x" * 5000), "InvalidSource", "does not exist"),
        (lambda g: g.index("pictures", workers=True), "InvalidQuery", "workers is a whole number"),
        (lambda g: g.search(1, k=True), "InvalidQuery", "k is a whole number; got True"),
        (lambda g: g.search(bytes(32)), "InvalidImage", "a code is given as 64 hexadecimal digits"),
        (lambda g: g.remove(label=3), "InvalidQuery", "3 came as a label; text was wanted"),
        (lambda g: g.remove(uri_prefix=3), "InvalidQuery", "3 came; the path of a file or folder"),
        (lambda g: g.remove(uri_prefix=b"w"), "InvalidQuery", "the path of a file or folder"),
        (lambda g: g.remove(ids={1: 2}), "InvalidQuery", "ids is a list of whole numbers"),
        (lambda g: g.relocate(None, "b"), "InvalidQuery", "None came; the path of a file"),
        (lambda g: g.relocate("a", b"b"), "InvalidQuery", "the path of a file or folder"),
        (lambda g: hs.open(None), "InvalidQuery", "None came; the path of a file or folder"),
        (lambda g: hs.open(b"g"), "InvalidQuery", "the path of a file or folder was wanted"),
        (lambda g: hs.open("x" * 5000), "InvalidGallery", "does not exist"),
        (lambda g: hs.open("new", create=True, model=5), "InvalidQuery", "5 came; the path"),
        (lambda g: hs.open("new", create=True, precision="fp8"), "InvalidQuery", "got 'fp8'"),
        (lambda g: hs.open("/proc/new", create=True), "NotWritable", "/proc/new"),
        (lambda g: hs.encode(None), "InvalidQuery", "None came; a sequence of images was wanted"),
        (lambda g: hs.load_model().reconstruct([1]), "CodeShapeError", "an object of type list"),
    ],
)
def test_arguments_of_other_types_are_refused_with_a_sentence(
    use, error, message, opened, image_files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("pictures").symlink_to(image_files)
    before = len(opened)
    with pytest.raises(getattr(hs.errors, error), match=re.escape(message)):
        use(opened)
    assert len(opened) == before
    assert not Path("new").exists()


def test_no_codes_stand_for_no_images():
    model = hs.load_model()
    assert model.reconstruct(hs.encode([], model)).shape == (0, 32, 32, 3)
