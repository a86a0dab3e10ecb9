"""Original files: which are opened, from where, and that nothing else ever is."""

import hashlib
import io
import os
import shutil
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hashsearch.errors import NotInGallery, OriginalMissing
from hashsearch.gallery import originals
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.originals import Original, open_original
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.removing import remove
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.beneath import open_beneath
from hashsearch.sources.samples import Samples
from tests.galleries import another_png, damage, index, records

NO_FOLDERS = DataFolders(None, Path("/nonexistent"))
GONE = "^the file of this image is gone$"
CHANGED = "^the file of this image has changed since it was indexed$"
OUTSIDE = "^the file of this image cannot be read: it lies outside the folder of its source$"
IN_ARRAY = (
    "^this image cannot be given as a file: it is pixels of an array, "
    "which have no file of their own$"
)


@pytest.fixture
def pictures(image_files) -> list[bytes]:
    """Four real pictures."""
    return [path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:4]]


@pytest.fixture
def folder(tmp_path, pictures) -> Path:
    """A source of the four pictures: `a/0.jpg` to `a/3.jpg`."""
    (tmp_path / "source" / "a").mkdir(parents=True)
    for number, data in enumerate(pictures):
        (tmp_path / "source" / "a" / f"{number}.jpg").write_bytes(data)
    return tmp_path / "source"


@pytest.fixture
def gallery(empty_gallery) -> GalleryFolder:
    return empty_gallery


@pytest.fixture(autouse=True)
def _no_picture_stays_open(tmp_path):
    yield
    descriptors = Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ()
    opened = [os.path.realpath(descriptor) for descriptor in descriptors]
    galleries = os.path.realpath(tmp_path / "gallery")
    assert not [
        path
        for path in opened
        if path.startswith(os.path.realpath(tmp_path)) and not path.startswith(galleries)
    ]


def add_source(gallery: GalleryFolder, path: Path, follow_links: bool = False) -> None:
    index_sources(gallery, [open_source(str(path), NO_FOLDERS, follow_links)], workers=1)


def original(gallery: GalleryFolder, image_id: int = 1) -> bytes:
    with open_original(gallery, image_id) as found:
        data = found.file.read()
        assert len(data) == found.size
        return data


def mime_of(data: bytes) -> str:
    """The media type by Pillow alone."""
    return Image.MIME[Image.open(io.BytesIO(data)).format]


def set_place(gallery: GalleryFolder, uri: str, data: bytes | None = None, root: str = "") -> None:
    """Write into the catalog what a stranger may have written: a uri, a key, a source's root."""
    with gallery.catalog.transaction() as db:
        db.execute("DELETE FROM places")
        db.execute("DELETE FROM images WHERE id > 1")
        db.execute("UPDATE images SET uri = ? WHERE id = 1", (uri,))
        if data is not None:
            db.execute("UPDATE images SET key = ? WHERE id = 1", (hashlib.sha256(data).digest(),))
        if root:
            db.execute("UPDATE sources SET root = ?", (os.fsencode(root),))


def test_every_file_of_a_folder_is_given_as_it_is(gallery, image_files):
    index(gallery, image_files)
    for record in records(gallery):
        path = Path(record.path)
        with open_original(gallery, record.id) as found:
            assert found.file.tell() == 0
            assert found.file.read() == path.read_bytes()
            assert found.size == path.stat().st_size
            assert found.name == path.name
            assert found.media_type.name == mime_of(path.read_bytes())
            assert found.media_type.in_browsers
        assert found.file.closed


def test_an_original_can_be_read_in_parts_from_anywhere(gallery, photograph, tmp_path):
    data = photograph + bytes(3 * 2**20)  # several blocks
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.jpg").write_bytes(data)
    index(gallery, tmp_path / "source")
    random = np.random.default_rng(0)
    with open_original(gallery, 1) as found:
        for start, length in random.integers(0, len(data), (50, 2)).tolist():
            found.file.seek(start)
            assert found.file.read(length) == data[start : start + length]
            assert found.file.tell() == min(start + length, len(data))
        assert found.file.seek(-5, os.SEEK_END) == len(data) - 5
        assert found.file.read() == data[-5:]
        assert found.file.read() == b""
        found.file.seek(0)
        assert b"".join(iter(lambda: found.file.read(2**16), b"")) == data


# Archives and files of many images

# Every character that a place, a uri or a path gives a meaning to, and names in other scripts.
MEMBERS = ["a/0.jpg", "b c/ä#1!.jpg", "b c/!/%2F?&.jpg", "猫/3.jpg"]


def zip_of(path: Path, pictures: list[bytes], method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in zip(MEMBERS, pictures, strict=True):
            archive.writestr(name, data)
    return path


def tar_of(path: Path, pictures: list[bytes], mode: str, names: list[str] = MEMBERS) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in zip(names, pictures, strict=True):
            for member, content in ((name, data), (Path(name).stem + ".json", b"{}")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def parquet_of(path: Path, pictures: list[bytes], structs: bool) -> Path:
    column = (
        pa.array(
            [{"bytes": data, "path": "a.jpg"} for data in pictures],
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        )
        if structs
        else pa.array(pictures, pa.binary())
    )
    pq.write_table(pa.table({"image": column}), path, row_group_size=3)
    return path


CONTAINERS: dict[str, Callable[[Path, list[bytes]], Path]] = {
    "stored.zip": lambda path, pictures: zip_of(path, pictures, zipfile.ZIP_STORED),
    "deflated.zip": lambda path, pictures: zip_of(path, pictures, zipfile.ZIP_DEFLATED),
    "lzma.zip": lambda path, pictures: zip_of(path, pictures, zipfile.ZIP_LZMA),
    "zip without a suffix": lambda path, pictures: zip_of(path, pictures, zipfile.ZIP_STORED),
    "plain.tar": lambda path, pictures: tar_of(path, pictures, "w"),
    "a.tar.gz": lambda path, pictures: tar_of(path, pictures, "w:gz"),
    "a.tar.bz2": lambda path, pictures: tar_of(path, pictures, "w:bz2"),
    "a.tar.xz": lambda path, pictures: tar_of(path, pictures, "w:xz"),
    "dataset-0001.tar": lambda path, pictures: tar_of(
        path, pictures, "w", [f"{number:06}.jpg" for number in range(4)]
    ),
    "bytes.parquet": lambda path, pictures: parquet_of(path, pictures, structs=False),
    "structs.parquet": lambda path, pictures: parquet_of(path, pictures, structs=True),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_members_of_archives_and_rows_of_parquet_are_given(gallery, tmp_path, pictures, name):
    add_source(gallery, CONTAINERS[name](tmp_path / name, pictures))
    found = {}
    for record in records(gallery):
        with open_original(gallery, record.id) as one:
            found[record.path] = (one.file.read(), one.size, one.media_type.name, one.name)
    assert {data for data, *_ in found.values()} == set(pictures)
    for path, (data, size, media_type, shown) in found.items():
        assert size == len(data)
        assert media_type == mime_of(data)
        in_file = path.removeprefix(f"{tmp_path / name}")
        if name.endswith(".parquet"):
            assert shown == f"{Path(name).stem}-{in_file[1:]}.{media_type.partition('/')[2]}"
        else:
            assert shown == in_file.rpartition("/")[2]


def test_a_member_or_an_archive_that_is_not_there_any_more_is_not_given(
    gallery, tmp_path, pictures
):
    path = zip_of(tmp_path / "a.zip", pictures, zipfile.ZIP_STORED)
    add_source(gallery, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/0.jpg", pictures[1])  # another picture of the same name
        archive.writestr("b.jpg", pictures[2])
    reasons = {}
    for record in records(gallery):
        with pytest.raises(OriginalMissing) as caught:
            open_original(gallery, record.id)
        reasons[record.path.removeprefix(f"{path}!/")] = str(caught.value)
    gone = "this image is no longer in its archive"
    assert reasons == dict.fromkeys(MEMBERS, gone) | {"a/0.jpg": CHANGED[1:-1]}
    path.write_bytes(b"PK\3\4 no archive any more")
    with pytest.raises(OriginalMissing, match=r"^the archive of this image is damaged, or another"):
        open_original(gallery, 1)
    path.unlink()
    with pytest.raises(OriginalMissing, match=GONE):
        open_original(gallery, 1)


@pytest.mark.parametrize("name", ["plain.tar", "a.tar.gz", "bytes.parquet"])
def test_an_archive_that_was_replaced_is_read_as_what_it_is_now(
    gallery, tmp_path, pictures, name, photograph
):
    path = CONTAINERS[name](tmp_path / name, pictures)
    add_source(gallery, path)
    CONTAINERS[name](path, [photograph, *pictures[1:]])
    with pytest.raises(OriginalMissing, match=CHANGED):
        open_original(gallery, 1)
    assert original(gallery, 2) in pictures
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with pytest.raises(OriginalMissing, match=r"archive of this image is damaged|" + CHANGED):
        open_original(gallery, 4)
    path.write_bytes(another_png())
    with pytest.raises(OriginalMissing):
        open_original(gallery, 2)


def test_reading_a_tar_archive_forward_can_be_stopped(gallery, tmp_path, pictures):
    add_source(gallery, CONTAINERS["a.tar.gz"](tmp_path / "a.tar.gz", pictures))
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(OriginalMissing, match="too far back in its archive to be read in time"):
        open_original(gallery, 4, stop)
    assert len(asked) == 4  # of what lies before the third member, and after it


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_unpacking_what_lies_before_a_member_can_be_stopped(gallery, tmp_path, pictures, mode):
    path = tmp_path / f"a.tar.{mode[2:]}"
    with tarfile.open(path, mode) as archive:
        for name, data in (("zeros", bytes(2**25)), ("a.jpg", pictures[0])):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    add_source(gallery, path)
    asked: list[int] = []
    with open_original(gallery, 1, lambda: bool(asked.append(1))) as found:
        assert found.file.read() == pictures[0]
    assert len(asked) > 3  # more often than there are members
    asked.clear()
    with pytest.raises(OriginalMissing, match="too far back in its archive to be read in time"):
        open_original(gallery, 1, lambda: bool(asked.append(1)) or len(asked) > 6)


def test_reading_rows_of_parquet_forward_can_be_stopped(gallery, tmp_path, pictures):
    rows = pa.array([*(b"no image" for _ in range(100)), pictures[0]], pa.binary())
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet", use_dictionary=False)
    add_source(gallery, tmp_path / "a.parquet")
    assert original(gallery) == pictures[0]
    with pytest.raises(OriginalMissing, match="too far back in its archive to be read in time"):
        open_original(gallery, 1, lambda: True)


def test_a_member_that_unpacks_to_more_than_it_claims_takes_little_memory(
    gallery, tmp_path, pictures
):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", pictures[0])
    add_source(gallery, path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(2**26))
    data = path.read_bytes()
    path.write_bytes(data.replace((2**26).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(OriginalMissing, match="it is damaged in its archive"):
            open_original(gallery, 1)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


# Images that never had a file


def npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8))
    return folder / "a.npy"


def tiny_images_file(folder: Path) -> Path:
    path = folder / "tiny_images.bin"
    path.write_bytes(np.random.default_rng(0).bytes(3 * 3072))
    return path


def cifar_batches(folder: Path) -> Path:
    random = np.random.default_rng(0)
    (folder / "batches").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / "batches" / f"{name}.bin").write_bytes(b"\1" + random.bytes(3072))
    return folder / "batches"


def cifar_archive(folder: Path) -> Path:
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(cifar_batches(folder), "cifar-10-batches-bin")
    return folder / "cifar.tar.gz"


@pytest.mark.parametrize("make", [npy, tiny_images_file, cifar_batches, cifar_archive])
def test_a_row_of_an_array_has_no_file(gallery, tmp_path, make):
    add_source(gallery, make(tmp_path))
    for record in records(gallery):
        with pytest.raises(OriginalMissing, match=IN_ARRAY):
            open_original(gallery, record.id)


def test_a_sample_photograph_has_a_file_and_a_crop_of_it_has_none(gallery, monkeypatch):
    monkeypatch.setattr("hashsearch.sources.samples.CROPS", {"train": 1})
    monkeypatch.setattr("hashsearch.sources.samples.PHOTOGRAPHS", ("rocket.jpg",))
    index_sources(gallery, [Samples()], workers=1)
    photograph, _ = records(gallery)
    assert original(gallery, photograph.id) == Path(photograph.path).read_bytes()
    with pytest.raises(OriginalMissing, match=IN_ARRAY):
        open_original(gallery, 2)


def test_an_image_added_as_bytes_has_no_file_and_one_added_by_its_path_has(gallery, folder):
    data = another_png()
    image_id, _ = add_image(gallery, gallery.encoder(), data)
    with pytest.raises(OriginalMissing, match=r"^this image was added as bytes, without a file$"):
        open_original(gallery, image_id)
    (folder / "new.png").write_bytes(data)
    add_source(gallery, folder / "new.png")
    assert original(gallery, image_id) == data


# Images that are not there any more


def test_an_unknown_or_removed_image_is_not_in_the_gallery(gallery, folder):
    index(gallery, folder)
    remove(gallery.catalog, Selection(ids=[1]))
    for image_id in (1, 0, -1, 12345):
        with pytest.raises(NotInGallery, match="no image with this id"):
            open_original(gallery, image_id)
    with open_original(gallery, 2):
        pass


def test_a_file_that_was_changed_or_deleted_is_not_given(gallery, folder, pictures):
    index(gallery, folder)
    damage(folder / "a" / "0.jpg")  # of the same size
    with pytest.raises(OriginalMissing, match=CHANGED):
        open_original(gallery, 1)
    (folder / "a" / "0.jpg").write_bytes(b"")
    with pytest.raises(OriginalMissing, match=CHANGED):
        open_original(gallery, 1)
    (folder / "a" / "0.jpg").unlink()
    with pytest.raises(OriginalMissing, match=GONE):
        open_original(gallery, 1)
    shutil.rmtree(folder)
    with pytest.raises(OriginalMissing, match=GONE):
        open_original(gallery, 1)
    folder.write_bytes(b"")  # a file where the folder was
    with pytest.raises(OriginalMissing, match=GONE):
        open_original(gallery, 1)


def test_the_next_place_is_taken_if_the_first_is_gone_or_changed(gallery, folder, pictures):
    for name in ("b", "c"):
        shutil.copytree(folder / "a", folder / name)
    index(gallery, folder)
    damage(folder / "a" / "0.jpg")
    with open_original(gallery, 1) as found:
        assert found.file.read() == pictures[0]
    (folder / "b" / "0.jpg").unlink()
    assert original(gallery) == pictures[0]
    (folder / "c" / "0.jpg").unlink()
    with pytest.raises(OriginalMissing, match=CHANGED):  # the first place's reason
        open_original(gallery, 1)


@pytest.mark.parametrize("at", [0, 2**20 + 5, -1])
def test_a_file_that_is_written_to_while_it_is_given_gives_no_other_bytes(
    gallery, tmp_path, photograph, at
):
    data = photograph + bytes(3 * 2**20)
    path = tmp_path / "source" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(data)
    index(gallery, path.parent)
    with open_original(gallery, 1) as found:
        with path.open("r+b") as file:
            file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
            file.write(b"x")
        given = b""
        # The first block is in memory already, since it tells the format.
        with pytest.raises(OriginalMissing, match=CHANGED) if at else nullcontext():
            while part := found.file.read(2**16):
                given += part
        assert data.startswith(given)
        assert (given == data) == (at == 0)
    path.write_bytes(data)
    with open_original(gallery, 1) as found:
        os.truncate(path, 1000)
        with pytest.raises(OriginalMissing, match=CHANGED):
            found.file.read()
    path.write_bytes(data)
    with open_original(gallery, 1) as found:
        path.unlink()  # or replaced by another, as most programs do
        assert found.file.read() == data


def test_a_large_file_takes_little_memory(gallery, folder):
    index(gallery, folder)
    data = (folder / "a" / "0.jpg").read_bytes() + bytes(2**26)
    (folder / "a" / "0.jpg").write_bytes(data)
    set_place(gallery, "source/a/0.jpg", data)
    wanted = hashlib.sha256(data).hexdigest()
    del data
    tracemalloc.start()
    try:
        with open_original(gallery, 1) as found:
            read = hashlib.sha256()
            while part := found.file.read(2**16):
                read.update(part)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert read.hexdigest() == wanted


def test_a_file_above_the_limit_is_refused_before_it_is_read(gallery, folder, monkeypatch):
    index(gallery, folder)
    os.truncate(folder / "a" / "0.jpg", MAX_FILE_BYTES + 1)  # sparse
    monkeypatch.setattr(originals, "sha256", None)
    message = "has 268,435,457 bytes; at most 268,435,456 are read$"
    with pytest.raises(OriginalMissing, match=message):
        open_original(gallery, 1)


@pytest.mark.parametrize("at", ["a/0.jpg", "a", ""])
def test_a_pipe_is_neither_opened_nor_waited_for(gallery, folder, at):
    index(gallery, folder)
    path = folder / at
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(OriginalMissing, match="not a regular file$" if at == "a/0.jpg" else GONE):
        open_original(gallery, 1)


def test_a_folder_or_a_device_in_the_place_of_a_file_is_refused(gallery, folder):
    index(gallery, folder)
    (folder / "a" / "0.jpg").unlink()
    (folder / "a" / "0.jpg").mkdir()
    with pytest.raises(OriginalMissing, match=r"cannot be read: it is not a regular file$"):
        open_original(gallery, 1)
    for uri in ("source/dev/zero", "source/dev/stdin", "source", "source/", "source/.", "source//"):
        set_place(gallery, uri, b"", "/")
        with pytest.raises(OriginalMissing):
            open_original(gallery, 1)


# Links


def test_links_within_the_source_are_followed(gallery, folder, pictures):
    (folder / "z.jpg").symlink_to("a/0.jpg")
    (folder / "y.jpg").symlink_to(folder / "a" / "1.jpg")  # an absolute one
    (folder / "x.jpg").symlink_to(f"../{folder.name}/a/2.jpg")  # out and in again
    (folder / "w.jpg").symlink_to("z.jpg")  # to a link
    index(gallery, folder)
    for name, data in {"z": 0, "y": 1, "x": 2, "w": 0}.items():
        set_place(gallery, f"source/{name}.jpg", pictures[data])
        with open_original(gallery, 1) as found:
            assert (found.file.read(), found.name) == (pictures[data], f"{name}.jpg")
    (folder / "b").symlink_to("a")  # in the place of a folder that was indexed
    set_place(gallery, "source/b/3.jpg", pictures[3])
    assert original(gallery) == pictures[3]


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_out_of_the_source_are_refused_also_if_they_were_indexed(
    gallery, folder, tmp_path, follow_links, photograph
):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(photograph)
    shutil.copytree(folder, tmp_path / "source-2")  # whose name begins as the source's does
    (folder / "link.jpg").symlink_to(outside)
    add_source(gallery, folder, follow_links)
    links = [record for record in records(gallery) if record.uri == "source/link.jpg"]
    assert len(links) == follow_links
    (folder / "folder").symlink_to("../source-2/a")
    (folder / "twice.jpg").symlink_to("link.jpg")
    for name in ("link.jpg", "twice.jpg", "folder/0.jpg"):
        set_place(gallery, f"source/{name}", (folder / name).read_bytes())
        with pytest.raises(OriginalMissing, match=OUTSIDE):
            open_original(gallery, 1)


def test_a_link_in_the_place_of_an_archive_is_refused(gallery, tmp_path, pictures):
    (tmp_path / "archives").mkdir()
    path = CONTAINERS["plain.tar"](tmp_path / "archives" / "a.tar", pictures)
    add_source(gallery, path)
    path.rename(tmp_path / "elsewhere.tar")
    path.symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(OriginalMissing, match=OUTSIDE):
        open_original(gallery, 1)


def test_links_that_lead_to_themselves_are_refused(gallery, folder):
    index(gallery, folder)
    (folder / "a" / "0.jpg").unlink()
    (folder / "a" / "0.jpg").symlink_to("0.jpg")
    with pytest.raises(OriginalMissing, match="cannot be read: Too many levels"):
        open_original(gallery, 1)


@pytest.mark.parametrize("swapped", ["folder", "file"])
def test_no_link_that_is_swapped_in_meanwhile_leads_outside(tmp_path, swapped):
    """Another program exchanges a folder, or a file, for a link to the outside, and back."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place, data in ((root / "a", b"inside"), (outside, b"outside")):
        place.mkdir(parents=True)
        (place / "0.jpg").write_bytes(data)
    path = root / "a" if swapped == "folder" else root / "a" / "0.jpg"
    away, link = path.with_name("away"), path.with_name("link")
    link.symlink_to(outside if swapped == "folder" else outside / "0.jpg")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            path.rename(away)
            link.rename(path)
            path.rename(link)
            away.rename(path)

    swapper = threading.Thread(target=swap)
    swapper.start()
    given = {b"inside": 0, b"refused": 0}
    try:
        for _ in range(10_000):
            try:
                with open_beneath(root, "a/0.jpg") as file:
                    given[file.read()] += 1
            except OSError:
                given[b"refused"] += 1
    finally:
        done.set()
        swapper.join()
    assert given[b"inside"] > 0
    assert given[b"refused"] > 0  # or it was not there; otherwise nothing was swapped in time


@pytest.mark.parametrize("swapped", ["a", "a/0.jpg"])
def test_a_link_that_appears_after_the_path_was_resolved_is_not_followed(
    tmp_path, monkeypatch, swapped
):
    """The worst moment of all, which a race finds by luck."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place, data in ((root / "a", b"inside"), (outside, b"outside")):
        place.mkdir(parents=True)
        (place / "0.jpg").write_bytes(data)
    resolve = os.path.realpath

    def resolve_and_swap(path: str, **options: bool) -> str:
        found = resolve(path, **options)
        if found.endswith("0.jpg"):
            (root / swapped).rename(tmp_path / "away")
            (root / swapped).symlink_to(outside if swapped == "a" else outside / "0.jpg")
        return found

    monkeypatch.setattr(os.path, "realpath", resolve_and_swap)
    with pytest.raises(OSError, match=r"Not a directory|not a regular file"):
        open_beneath(root, "a/0.jpg")
    assert (root / "a" / "0.jpg").read_bytes() == b"outside"  # as a path, it leads there


# Catalogs that others wrote


URIS = [
    "source/../secret.jpg",
    "source/a/../../secret.jpg",
    "source/%2e%2e/secret.jpg",
    "source/..%2Fsecret.jpg",
    "source/a%2F..%2F..%2Fsecret.jpg",
    "source/{secret}",
    "source//{secret}",
    "source/%2F{secret}",
    "/{secret}",
    "source/../secret.jpg%00.jpg",
    "source/%ff%00%0a",
    "source/../archive.zip!/secret.jpg",
    "source/{archive}!/secret.jpg",
    "elsewhere/secret.jpg",
    "+/../secret.jpg",
    "!",
    "#",
    "source!",
    "source#0",
    "source!/x#1",
    "source/a/0.jpg!/secret.jpg",
    "source/a/0.jpg#0",
    "source/a/0.jpg#-1",
    "source/a/0.jpg/../../../secret.jpg",
]


def test_no_uri_leads_out_of_its_source(gallery, folder, tmp_path, photograph):
    index(gallery, folder)
    secret, archive = tmp_path / "secret.jpg", tmp_path / "archive.zip"
    secret.write_bytes(photograph)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("secret.jpg", photograph)
    for uri in (*URIS, "", "source/" + "a/" * 3000 + "0.jpg", "source/" + "a" * 300):
        set_place(gallery, uri.format(secret=secret, archive=archive), photograph)
        with pytest.raises(OriginalMissing) as caught:
            open_original(gallery, 1)
        assert str(tmp_path) not in str(caught.value)


def test_only_image_files_with_the_catalogs_key_are_given(gallery, folder, pictures):
    """The root of a catalog's source may be any folder, as `/` is."""
    index(gallery, folder)
    passwd = Path("/etc/passwd")
    uri = f"source{folder}/a/2.jpg"
    set_place(gallery, "source/etc/passwd", root="/")
    with pytest.raises(OriginalMissing, match=CHANGED):
        open_original(gallery, 1)
    set_place(gallery, "source/etc/passwd", passwd.read_bytes())
    with pytest.raises(OriginalMissing, match=r"does not begin as an image file does$"):
        open_original(gallery, 1)
    set_place(gallery, uri)
    with pytest.raises(OriginalMissing, match=CHANGED):
        open_original(gallery, 1)
    set_place(gallery, uri, pictures[2])
    assert original(gallery) == pictures[2]


def test_a_file_that_may_not_be_read_is_said_to_be_so(gallery, folder, monkeypatch):
    index(gallery, folder)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "open", refuse)
    message = "^the file of this image cannot be read: Permission denied$"
    with pytest.raises(OriginalMissing, match=message):
        open_original(gallery, 1)


# Names


NAMES = {
    "ä 猫 #1!.JPG": "ä 猫 #1!.JPG",
    "a\nb\r\x7f\u202egpj.png": "a_b___gpj.png",
    'a\\b"c.jpg': 'a_b"c.jpg',
    "a.html": "a.html.jpeg",
    os.fsdecode(b"\xff.jpg"): "_.jpg",
    "x" * 240 + ".jpg": "x" * 196 + ".jpg",
    "..jpg": "..jpg",
}


def test_a_name_is_printable_without_folders_and_ends_as_an_image_does(gallery, folder, photograph):
    index(gallery, folder)
    for name, shown in NAMES.items():
        (folder / "a" / name).write_bytes(photograph)
        set_place(gallery, "source/a/" + quoted(name), photograph)
        with open_original(gallery, 1) as found:
            assert found.name == shown


def quoted(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in os.fsencode(name))


def test_an_original_is_closed_twice_without_harm(gallery, folder):
    index(gallery, folder)
    found = open_original(gallery, 1)
    assert isinstance(found, Original)
    found.close()
    found.close()
    assert found.file.closed
