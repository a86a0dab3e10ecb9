import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hashsearch.errors import HashSearchError, InvalidSource
from hashsearch.sources import open_source
from hashsearch.sources.archive import TarArchive
from tests.test_archive import OF_PYTHON, tar_with

BLOCK = 512


@pytest.fixture
def pictures(image_files) -> list[bytes]:
    return [path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:6]]


@pytest.fixture
def whole(pictures, tmp_path) -> bytes:
    """A plain archive of six pictures."""
    files = [(f"c/{number}.jpg", data) for number, data in enumerate(pictures)]
    return tar_with(tmp_path / "whole.tar", files).read_bytes()


def header(kind: bytes, size: int, name: str = "x.jpg") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def with_checksum(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def sparse_header(archived: int, size: int) -> bytes:
    """Of a file in GNU's old sparse format without a single part."""
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, archived))
    block[483:495] = b"%011o\0" % size
    return with_checksum(bytes(block))


def found_before_damage(path: Path) -> list[bytes]:
    found = []
    with pytest.raises(InvalidSource, match=f"{path.name} is no tar archive, or a damaged one"):
        found.extend(image.content for image in TarArchive(path))
    return found


def test_a_plain_archive_cut_anywhere_yields_what_is_whole_and_then_says_so(
    whole, pictures, tmp_path
):
    path = tmp_path / "cut.tar"
    for number in range(1, 6):
        begin = whole.index(b"c/%d.jpg" % number)
        for length in (begin, begin + 1, begin + 200, begin + BLOCK, begin + BLOCK + 50):
            path.write_bytes(whole[:length])
            assert found_before_damage(path) == pictures[:number]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_header_is_no_end_of_the_archive(pack, whole, pictures, tmp_path):
    damaged = bytearray(whole)
    damaged[whole.index(b"c/4.jpg") + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(pack(damaged))
    assert found_before_damage(tmp_path / "a.tar") == pictures[:4]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("step", [BLOCK, 3000])
def test_an_archive_compressed_in_several_parts_is_whole(
    compress, step, whole, pictures, tmp_path, folders
):
    """As pbzip2, pixz, bgzip and `cat a.gz b.gz` write it."""
    parts = [compress(whole[begin : begin + step]) for begin in range(0, len(whole), step)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    source = open_source(str(tmp_path / "a.tar"), folders)
    assert [image.content for image in source] == pictures


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("blocks", [1, 2, 20, 2048])
def test_archives_that_follow_one_another_are_read_as_tar_reads_them(
    pack, blocks, pictures, tmp_path, folders
):
    """As `cat a.tar b.tar` writes them, compressed before or not, their records of any size."""
    parts = []
    for number in range(3):
        files = [(f"{number}/{n}.jpg", data) for n, data in enumerate(pictures[number::3])]
        part = tar_with(tmp_path / "part.tar", files).read_bytes().rstrip(b"\0")
        part += bytes(-len(part) % BLOCK)
        parts.append(part + bytes(blocks * BLOCK))
    (tmp_path / "a.tar").write_bytes(b"".join(map(pack, parts)))
    (tmp_path / "plain.tar").write_bytes(b"".join(parts))
    source = open_source(str(tmp_path / "a.tar"), folders)
    found = [(image.place.removeprefix("!/"), image.content) for image in source]
    command = ["tar", "--ignore-zeros", "-f", tmp_path / "plain.tar"]
    names = subprocess.run([*command, "-t"], capture_output=True, text=True, check=True).stdout
    assert [name for name, _ in found] == names.split()
    (tmp_path / "out").mkdir()
    subprocess.run([*command, "-x", "-C", tmp_path / "out"], check=True)
    assert found == [(name, (tmp_path / "out" / name).read_bytes()) for name in names.split()]
    assert source.estimate() == 6


def test_headers_for_all_members_are_for_those_of_their_archive(pictures, tmp_path):
    of_all = tarfile.TarInfo.create_pax_global_header({"path": "renamed.jpg"})
    one, two = (
        tar_with(tmp_path / "a.tar", [(name, data)]).read_bytes()
        for name, data in zip(("one.jpg", "two.jpg"), pictures, strict=False)
    )
    (tmp_path / "a.tar").write_bytes(of_all + one + two)
    images = list(TarArchive(tmp_path / "a.tar"))
    assert [image.place for image in images] == ["!/renamed.jpg", "!/two.jpg"]
    assert [image.content for image in images] == pictures[:2]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damage_in_a_second_archive_is_reported(pack, whole, pictures, tmp_path):
    path = tmp_path / "a.tar"
    files = [(f"d/{number}.jpg", data) for number, data in enumerate(pictures)]
    other = tar_with(path, files).read_bytes()
    for second, found in (
        (b"D" + other[1:], pictures),  # damaged in its first header
        (other[:300], pictures),
        (other[: other.index(b"d/3.jpg") + 100], pictures + pictures[:3]),
        (b"other bytes", pictures),
    ):
        path.write_bytes(pack(whole + second))
        assert found_before_damage(path) == found


def test_zeros_behind_an_archive_are_read_some_way_only(whole, pictures, tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(whole)
        for _ in range(80):
            file.write(bytes(2**20))
        file.write(b"never reached")
    assert [image.content for image in TarArchive(tmp_path / "a.tar.gz")] == pictures


def test_the_way_to_the_next_member_ends_with_the_file(whole, pictures, tmp_path):
    claim = header(tarfile.REGTYPE, 2**39, "a.bin")
    for pack in (bytes, gzip.compress):
        (tmp_path / "a.tar").write_bytes(pack(whole[: whole.index(b"c/3.jpg")] + claim))
        assert found_before_damage(tmp_path / "a.tar") == pictures[:3]


def test_files_with_holes_are_refused_and_the_rest_goes_on(pictures, whole, tmp_path):
    size = 200 * 2**20
    note = sparse_header(0, size).replace(b"x.jpg", b"x.cls")
    (tmp_path / "a.tar").write_bytes(sparse_header(0, size) + with_checksum(note) + whole)
    refused, *images = TarArchive(tmp_path / "a.tar")
    assert str(refused.content) == "it is stored as a file with holes"
    assert [image.content for image in images] == pictures


LONG = (b"x", b"g", b"L", b"K", b"X")  # the kinds of headers that are read whole
HOSTILE = {
    "a negative size": header(tarfile.REGTYPE, -4096),
    "a size beyond any file": header(tarfile.REGTYPE, 2**60),
    "a sparse file's": sparse_header(2**60, 0),
    "names without end": (header(b"L", 5) + b"name".ljust(BLOCK, b"\0")) * 2000,
    "names some way": (header(b"L", 5) + b"name".ljust(BLOCK, b"\0")) * 500,
    **{f"{kind}, negative": header(kind, -1024) for kind in LONG},
    **{f"{kind}, large": header(kind, 2**20 + 1) + bytes(2**21) for kind in LONG},
    **{f"{kind}, endless": header(kind, 2**60) for kind in LONG},
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("before", [0, 3])
def test_a_hostile_header_is_the_end_and_no_error_of_another_kind(
    hostile, before, whole, pictures, tmp_path, folders
):
    begin = whole.index(b"c/%d.jpg" % before)
    path = tmp_path / "a.tar"
    path.write_bytes(whole[:begin] + hostile + whole[begin:])
    assert found_before_damage(path) == pictures[:before]
    if not before:
        with pytest.raises(InvalidSource, match=r"a\.tar is not a source of images"):
            open_source(str(path), folders)


@pytest.mark.parametrize("kind", LONG)
def test_a_long_header_in_a_small_archive_takes_no_memory(kind, tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(header(kind, 2**26))
        file.write(bytes(2**26))
    tracemalloc.start()
    found_before_damage(tmp_path / "a.tar.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < OF_PYTHON + 4 * 2**20  # of 64


def test_headers_for_all_members_do_not_pile_up(pictures, tmp_path):
    def of_all(number: int) -> bytes:
        return tarfile.TarInfo.create_pax_global_header({f"k{number}": "x" * 2**19})

    one = tar_with(tmp_path / "a.tar", [("a.jpg", pictures[0])]).read_bytes()[: -2 * BLOCK]
    one = one[: BLOCK + -(-len(pictures[0]) // BLOCK) * BLOCK]
    (tmp_path / "a.tar").write_bytes(b"".join(of_all(n) + one for n in range(4)))
    assert found_before_damage(tmp_path / "a.tar") == pictures[:1]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_cut_anywhere_is_no_source_or_one_cut_short(
    compress, whole, tmp_path, folders
):
    packed = compress(whole)
    for length in (*range(1, 40), 60, 100, len(packed) - 1):
        (tmp_path / "a.tgz").write_bytes(packed[:length])
        with pytest.raises(
            InvalidSource, match=r"a\.tgz is (not a source of images|no tar archive)"
        ):
            list(open_source(str(tmp_path / "a.tgz"), folders))


def test_garbage_anywhere_in_the_headers_gives_images_or_our_own_error(pictures, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, data in enumerate(pictures):
            member = tarfile.TarInfo(f"{'é' * 60}/{number}.jpg")
            member.size, member.pax_headers = len(data), {"mtime": "1.5", "size": str(len(data))}
            archive.addfile(member, io.BytesIO(data))
    whole = buffer.getvalue()
    rng = np.random.default_rng(0)
    headers = [at for at in range(0, len(whole), BLOCK) if whole[at + 257 : at + 262] == b"ustar"]
    for _ in range(300):
        damaged = bytearray(whole)
        begin = int(rng.choice(headers))
        for at in rng.integers(BLOCK, size=3):
            damaged[begin + at] = rng.choice([0, 48, 255, rng.integers(256)])
        damaged[begin : begin + BLOCK] = with_checksum(bytes(damaged[begin : begin + BLOCK]))
        (tmp_path / "a.tar").write_bytes(damaged)
        try:
            assert len(list(TarArchive(tmp_path / "a.tar"))) <= 6
        except HashSearchError:
            continue
