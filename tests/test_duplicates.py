"""Groups of near-equal pictures: exact, bounded in time and memory, and shown to people."""

import csv
import io
import json
import os
import shutil
import time
import tracemalloc
from dataclasses import asdict, replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

import hashsearch as hs
from hashsearch.errors import CodeShapeError, InvalidQuery
from hashsearch.gallery.changes import Changes, Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import NewImage
from hashsearch.images import decode
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.removing import remove
from hashsearch.models.card import CARD_FILE
from hashsearch.retrieval.duplicates import find_duplicates
from hashsearch.search import linking
from hashsearch.search.linking import linked
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.folder import Folder
from tests.conftest import CLOSENESS
from tests.galleries import index, records
from tests.test_cli import error_of, run

TABLES = {"_SECONDS_TO_SCAN": 1.0}
# Costs and sizes that make each way of comparing the cheapest, and every block small.
WAYS = {
    "as it chooses": {},
    "all pairs": {"_SECONDS_TO_SCAN": 0.0, "_ROWS": 3, "_COLUMNS": 70},
    "tables of one shared part": {**TABLES, "_BLOCK_PAIRS": 100},
    "tables of several shared parts": {**TABLES, "_SECONDS_TO_CHECK": 1e9, "_MOST_SHARED": 3},
    "tables whose buckets are scanned": {**TABLES, "_SCANNED": 2, "_ROWS": 3, "_COLUMNS": 5},
}


def slow_links(codes: np.ndarray, radius: int) -> list[int]:
    """The lowest position that each code is linked with, by a loop over all pairs."""
    numbers = [int.from_bytes(code.tobytes()) for code in codes]
    lowest = list(range(len(numbers)))
    for i, j in combinations(range(len(numbers)), 2):
        if (numbers[i] ^ numbers[j]).bit_count() <= radius and lowest[i] != lowest[j]:
            keep, drop = sorted((lowest[i], lowest[j]))
            lowest = [keep if one == drop else one for one in lowest]
    return lowest


def flipped(code: np.ndarray, bits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Copies of a (32,) code with so many random bits flipped in each."""
    ranks = np.random.default_rng(seed).random((len(bits), 256)).argsort(axis=1)
    return code ^ np.packbits(ranks < bits[:, np.newaxis], axis=1)


def chain(length: int) -> np.ndarray:
    """Codes, each one bit from the next, and the first and the last as far apart as they can be."""
    bits = np.tril(np.ones((256, 256), np.uint8), -1)
    return np.packbits(np.vstack([bits, np.ones(256, np.uint8)]), axis=1)[:length]


@pytest.fixture(scope="module")
def real_codes(cifar10) -> np.ndarray:
    """(1000, 32) uint8: codes of CIFAR-10's test images by the bundled model."""
    images = islice(TarArchive(cifar10, under="cifar10/test/"), 1000)
    return hs.encode(np.stack([decode(image.content).tiny for image in images]))


@pytest.fixture(params=WAYS)
def way(request, monkeypatch) -> str:
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(linking, name, value)
    return request.param


@pytest.mark.parametrize("radius", [0, 1, 12, 16, 70])
def test_real_codes_are_linked_as_a_loop_over_all_pairs_links_them(radius, real_codes, way):
    copies = flipped(real_codes[0], np.arange(30))
    codes = np.concatenate([real_codes[:500], copies, chain(40), ~real_codes[:100]])
    wanted = slow_links(codes, radius)
    assert len(set(wanted)) < len(codes)
    assert_array_equal(linked(codes, radius), wanted)


@pytest.mark.parametrize("radius", [0, 1, 3, 255, 256])
def test_extreme_codes_are_linked_as_a_loop_over_all_pairs_links_them(radius, way):
    equal = np.zeros((50, 32), np.uint8)
    random = np.random.default_rng(0).integers(0, 256, (20, 32)).astype(np.uint8)
    codes = np.concatenate([equal, ~equal[:3], chain(257)[1:-1:2], random])
    assert_array_equal(linked(codes, radius), slow_links(codes, radius))
    for few in (codes[:0], codes[:1], equal):
        assert_array_equal(linked(few, radius), slow_links(few, radius))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**9 - 1), max_size=12), st.integers(0, 9), st.sampled_from(list(WAYS))
)
def test_any_small_set_of_codes_is_linked_as_the_loop_links_it(numbers, radius, way):
    """The nine bits that differ are spread over the code."""
    bits = np.zeros((len(numbers), 256), np.uint8)
    for row, number in enumerate(numbers):
        bits[row, 5:256:28] = [number >> bit & 1 for bit in range(9)]
    codes = np.packbits(bits, axis=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(linking, name, value)
        assert_array_equal(linked(codes, radius), slow_links(codes, radius))


def test_a_chain_is_one_set_of_links_although_its_ends_are_far_apart():
    assert set(linked(chain(257), 1).tolist()) == {0}
    assert_array_equal(linked(chain(257)[::2], 1), np.arange(129))


@pytest.mark.parametrize(
    ("bits", "sets"), [(np.arange(20_000) % 7, 1), (np.full(20_000, 40), 20_000)]
)
def test_a_cluster_of_20000_codes_takes_seconds_and_little_memory(bits, sets, real_codes):
    """Codes within 6 bits of one are all linked; at 40 bits from it, they are 60 or more apart."""
    codes = np.concatenate([flipped(real_codes[0], bits), real_codes[500:]])
    started = time.perf_counter()
    tracemalloc.start()
    found = linked(codes, 12)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(found[:20_000].tolist())) == sets
    assert time.perf_counter() - started < 60  # 2 s on two free cores
    assert most < 500e6


def test_codes_of_another_width_are_refused():
    with pytest.raises(CodeShapeError):
        linked(np.zeros((2, 16), np.uint8), 1)


# Groups

AGES = ("younger.png", "second.jpg", "first.jpg", "again.jpg")  # the youngest first


@pytest.fixture
def pictures(tmp_path, photograph, image_files) -> Path:
    """A photograph, a copy of its file, it saved again in three ways, and 20 other pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "first.jpg").write_bytes(photograph)
    (folder / "second.jpg").write_bytes(photograph)
    with Image.open(io.BytesIO(photograph)) as image:
        image.save(folder / "again.jpg", quality=60)
        image.save(folder / "younger.png")
        image.reduce(2).save(folder / "half.jpg", quality=90)
    for age, name in enumerate(AGES):
        os.utime(folder / name, (1_700_000_000 - age,) * 2)
    os.utime(folder / "half.jpg", (1, 1))
    for path in sorted(image_files.rglob("*.*"))[::15]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def copies(empty_gallery, pictures) -> GalleryFolder:
    index(empty_gallery, pictures)
    return empty_gallery


def names(group: hs.DuplicateGroup) -> list[str]:
    return [Path(file.path).name for file in group.files]


def slow_groups(gallery: GalleryFolder, radius: int) -> set[frozenset[str]]:
    """Groups of the files' names, by a loop over all pairs."""
    found = records(gallery)
    codes = np.stack([gallery.code(record.id) for record in found])
    groups: dict[int, set[str]] = {}
    for record, link in zip(found, slow_links(codes, radius), strict=True):
        places = gallery.catalog.places([record.id])[record.id]
        groups.setdefault(link, set()).update(Path(place.path).name for place in places)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


@pytest.mark.parametrize("radius", [0, 3, 12, 60, 100, 256, 1000])
def test_groups_are_those_of_a_loop_over_all_pairs_of_images(copies, radius):
    groups = find_duplicates(copies, radius)
    assert {frozenset(names(group)) for group in groups} == slow_groups(copies, radius)
    order = [(group.diameter, -len(group.files)) for group in groups]
    assert order == sorted(order)
    for group in groups:
        keep, *rest = group.files
        assert keep.keep
        assert not any(file.keep for file in rest)
        codes = [copies.code(file.id) for file in group.files]
        assert group.diameter == max(
            int(np.bitwise_count(a ^ b).sum()) for a in codes for b in codes
        )
        assert not group.diameter_is_lower_bound
        distances = [int(np.bitwise_count(code ^ codes[0]).sum()) for code in codes]
        assert [file.distance for file in group.files] == distances == sorted(distances)
        for file in group.files:
            with Image.open(file.path) as image:
                assert (file.width, file.height) == image.size
            assert file.size == Path(file.path).stat().st_size
            record = copies.catalog.record(file.id)
            assert (file.label, file.missing) == (record.label, False)


def the_group(gallery: GalleryFolder) -> hs.DuplicateGroup:
    """The one of the photograph."""
    (group,) = (one for one in find_duplicates(gallery, 12) if "half.jpg" in names(one))
    return group


def test_of_a_group_the_largest_picture_is_kept_and_of_those_the_oldest(copies, pictures):
    kept = the_group(copies)
    assert set(names(kept)) == {*AGES, "half.jpg"}  # half.jpg is the oldest, and smaller
    assert names(kept)[0] == "again.jpg"
    remove(copies.catalog, Selection(ids=[kept.files[0].id]))
    # The same bytes: the first one found is shown first, and both are as old as the older.
    assert names(the_group(copies))[:2] == ["first.jpg", "second.jpg"]
    os.utime(pictures / "first.jpg", (1_800_000_000,) * 2)
    index(copies, pictures)
    assert names(the_group(copies))[:2] == ["again.jpg", "first.jpg"]


def test_equally_old_pictures_of_one_size_are_kept_by_id(empty_gallery, pictures):
    for path in pictures.iterdir():
        os.utime(path, (1_700_000_000,) * 2)
    index(empty_gallery, pictures)
    group = the_group(empty_gallery)
    assert group.files[0].id == min(file.id for file in group.files if file.width == 640)


def test_equal_files_are_a_group_even_if_no_other_picture_is_near(empty_gallery, pictures):
    for name in ("younger.png", "again.jpg", "half.jpg"):
        (pictures / name).unlink()
    index(empty_gallery, pictures)
    (group,) = (one for one in find_duplicates(empty_gallery, 0) if "second.jpg" in names(one))
    first, second = group.files
    assert (first.id, first.distance, second.distance) == (second.id, 0, 0)
    assert names(group) == ["first.jpg", "second.jpg"]
    assert group.diameter == 0
    assert [first.keep, second.keep] == [True, False]


def test_a_file_that_is_gone_is_no_duplicate_and_not_the_one_to_keep(copies, pictures):
    (pictures / "second.jpg").unlink()
    assert {"first.jpg", "again.jpg"} <= set(names(found := the_group(copies)))
    assert "second.jpg" not in names(found)
    (pictures / "again.jpg").unlink()
    group = the_group(copies)
    assert names(group)[0] == "first.jpg"
    assert [file.missing for file in group.files] == ["again" in file.path for file in group.files]
    (pictures / "first.jpg").rename(pictures / "moved.jpg")
    index(copies, pictures)
    assert "first.jpg" not in names(the_group(copies))


def filled(gallery: GalleryFolder, codes: np.ndarray) -> GalleryFolder:
    """Add images of 32×32 pixels without files, which have these codes."""
    writer = gallery.new_shard(["codes", "pixels"])
    pixels = np.zeros((len(codes), 3072), np.uint8)
    writer.append({"codes": codes, "pixels": pixels}, [None] * len(codes))
    images = [
        NewImage(n.to_bytes(32), f"made/{n}.jpg", None, 32, 32, 1000, n) for n in range(len(codes))
    ]
    gallery.commit(Changes(images=images), writer, gallery.fingerprint)
    return gallery


@pytest.mark.parametrize("size", [64, 65, 1000])
def test_the_diameter_shows_a_chain(empty_gallery, size):
    codes = np.concatenate([chain(min(size, 257)), flipped(chain(1)[0], np.ones(size, int))])
    codes = np.unique(codes, axis=0)[:size]
    (group,) = find_duplicates(filled(empty_gallery, np.repeat(codes, 2, axis=0)), 256)
    numbers = [int.from_bytes(code.tobytes()) for code in codes]
    wanted = max((a ^ b).bit_count() for a, b in combinations(numbers, 2))
    assert (group.diameter, group.diameter_is_lower_bound) == (wanted, False)
    assert len(group.files) == 2 * len(codes)  # equal codes count once, not as distinct ones


def test_above_1000_distinct_codes_the_diameter_is_a_lower_bound(empty_gallery):
    codes = np.concatenate([chain(257), flipped(np.zeros(32, np.uint8), np.arange(1200) % 20)])
    assert len(np.unique(codes, axis=0)) > 1000
    (group,) = find_duplicates(filled(empty_gallery, codes), 12)
    assert group.diameter_is_lower_bound
    assert 128 <= group.diameter <= 256  # the farthest from any code is at least half as far


def test_the_smallest_diameter_comes_first_and_then_the_most_files(empty_gallery):
    random = np.random.default_rng(0).integers(0, 256, (4, 32)).astype(np.uint8)
    sizes, bits = (2, 3, 4, 2), (0, 0, 5, 1)
    codes = [
        np.concatenate([code[np.newaxis], flipped(code, np.full(size - 1, most))])
        for code, size, most in zip(random, sizes, bits, strict=True)
    ]
    groups = find_duplicates(filled(empty_gallery, np.concatenate(codes)), 12)
    assert [len(group.files) for group in groups] == [3, 2, 2, 4]
    assert groups[0].diameter == groups[1].diameter == 0


def test_an_empty_gallery_has_no_duplicates(empty_gallery):
    assert find_duplicates(empty_gallery, 12) == []


# The command, and the library's face


@pytest.fixture
def shown(copies) -> Path:
    copies.close()
    return copies.folder


def test_people_see_each_group_with_the_one_to_keep(shown, pictures):
    before = sorted(pictures.iterdir())
    done = run("gallery", "duplicates", shown, "--radius", 12)
    assert (done.returncode, done.stderr) == (0, "")
    with hs.open(shown) as gallery:
        groups = gallery.duplicates(radius=12)
    title, *lines = done.stdout.splitlines()
    count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    files = sum(len(group.files) for group in groups)
    assert title == f"{count} of {files} files within 12 bits; nothing is deleted"
    expected = []
    for number, group in enumerate(groups, 1):
        unit = "bit" if group.diameter == 1 else "bits"
        expected.append(
            f"group {number}: {len(group.files)} files, diameter {group.diameter} {unit}"
        )
        for file in group.files:
            mark = ["keep"] if file.keep else []
            size = f"{file.width}×{file.height}"
            expected.append(" ".join([*mark, f"{file.distance}", size, file.path]))
    assert [" ".join(line.split()) for line in lines if line] == expected
    assert sorted(pictures.iterdir()) == before


def test_csv_has_one_row_for_each_file(shown):
    done = run("gallery", "duplicates", shown, "--radius", 12, "--csv")
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["group", "keep", "distance", "path", "width", "height", "size", "id"]
    with hs.open(shown) as gallery:
        groups = gallery.duplicates(radius=12)
    assert rows == [
        [
            str(value)
            for value in (
                *(number, int(file.keep), file.distance, file.path),
                *(file.width, file.height, file.size, file.id),
            )
        ]
        for number, group in enumerate(groups, 1)
        for file in group.files
    ]


def test_json_has_the_groups_as_the_library_returns_them(shown):
    done = run("gallery", "duplicates", shown, "--radius", 12, "--json")
    with hs.open(shown) as gallery:
        groups = gallery.duplicates(radius=12)
    assert json.loads(done.stdout) == {"radius": 12, "groups": [asdict(group) for group in groups]}


def test_a_gallery_without_duplicates_is_no_error(empty_gallery):
    done = run("gallery", "duplicates", empty_gallery.folder, "--radius", 1)
    assert (done.returncode, done.stdout) == (0, "no duplicates within 1 bit\n")
    done = run("gallery", "duplicates", empty_gallery.folder, "--radius", 1, "--csv")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    done = run("gallery", "duplicates", empty_gallery.folder, "--radius", 1, "--json")
    assert json.loads(done.stdout) == {"radius": 1, "groups": []}


def test_the_default_radius_is_what_the_card_says_of_copies(measured_gallery_folder):
    done = run("gallery", "duplicates", measured_gallery_folder, "--json")
    assert json.loads(done.stdout)["radius"] == CLOSENESS.same
    with hs.open(measured_gallery_folder) as gallery:
        assert gallery.duplicates() == gallery.duplicates(CLOSENESS.same)


def test_a_model_that_was_not_measured_needs_a_radius(gallery):
    card = replace(gallery.card(), closeness=None)
    (gallery.model_folder / CARD_FILE).write_text(card.to_json())
    sentence = "the gallery's model does not say how near copies lie; give a radius"
    assert error_of(run("gallery", "duplicates", gallery.folder)) == sentence
    with hs.open(gallery.folder) as opened, pytest.raises(InvalidQuery, match=sentence):
        opened.duplicates()


def test_one_file_that_two_sources_hold_is_no_duplicate_of_itself(
    empty_gallery, image_files, tmp_path
):
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    one = next(image_files.rglob("*.*"))
    shutil.copy(one, inner / "a.jpg")
    sources = [Folder(inner.parent), Folder(inner)]
    index_sources(empty_gallery, sources, workers=1)
    assert find_duplicates(empty_gallery, 0) == []
    shutil.copy(one, inner / "b.jpg")
    index_sources(empty_gallery, sources, workers=1)
    (group,) = find_duplicates(empty_gallery, 0)
    assert [file.path for file in group.files] == [str(inner / "a.jpg"), str(inner / "b.jpg")]


def test_progress_is_reported_up_to_the_number_of_distinct_codes(shown):
    calls = []
    with hs.open(shown) as gallery:
        gallery.duplicates(12, progress=lambda *call: calls.append(call))
        codes = {bytes(gallery._storage.code(record.id)) for record in gallery}
        for wrong in (-1, "12", 1.5):
            with pytest.raises(InvalidQuery):
                gallery.duplicates(wrong)
    assert calls[-1] == ("comparing codes", len(codes), len(codes))
