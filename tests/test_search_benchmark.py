"""The table of `make bench`: its rows, what is measured of them, and what quotes it."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchmarks.search import __main__ as bench
from benchmarks.search import codes, measure, ours, peers
from benchmarks.search.codes import MILLION, Rows
from benchmarks.search.measure import Measured
from benchmarks.search.report import ROOT, Report, to_lines, to_markdown, with_lines, with_section
from hashsearch.encoder import Encoder
from hashsearch.models.card import PRETRAINED
from hashsearch.search import NO_DISTANCE
from hashsearch.sources import DataFolders
from tests.conftest import is_of_a_bundled_model

PEERS_WITH_PACKAGES = ("usearch", "duckdb")


@pytest.fixture
def folders(tmp_path, tiny_images, monkeypatch):
    """Twenty images with two and a half views, which are encoded in parts of 20."""
    monkeypatch.setattr(codes, "IMAGES", 20)
    monkeypatch.setattr(codes, "MILLION", 50)
    monkeypatch.setattr(codes, "_PART", 20)
    monkeypatch.setattr(codes, "QUERIES", 8)
    monkeypatch.setattr(codes, "gallery_images", lambda folders: tiny_images[:20])
    monkeypatch.setattr(codes, "held_out_images", lambda folders: tiny_images[20:28])
    return DataFolders(None, tmp_path)


def test_views_are_encoded_once_and_an_interrupted_run_goes_on(folders, tiny_images, monkeypatch):
    said: list[str] = []
    real = codes.real_rows(folders, said.append)
    assert len(said) == 5
    columns = Encoder.load(PRETRAINED).columns(tiny_images[:28])
    for name, column in columns.items():
        assert_array_equal(getattr(real.gallery, name)[:20], column[:20])
        assert_array_equal(getattr(real.held_out, name), column[20:])
    assert len(real.gallery.codes) == 50
    assert len(real.copies.codes) == 8
    drawn = np.random.default_rng(1).choice(20, 8, replace=False)  # the images that are copied
    flipped = np.bitwise_count(real.copies.codes ^ real.gallery.codes[drawn]).sum(axis=1)
    assert 0 < flipped.mean() < 25  # 11 in docs/results.md
    next(folders.cache.rglob("rows-20.npy")).unlink()
    again = codes.real_rows(folders, said.append)
    assert [Path(line).name for line in said[5:]] == ["rows-20.npy"]
    for before, after in zip(real, again, strict=True):
        assert_array_equal(before.codes, after.codes)
        assert_array_equal(before.addresses, after.addresses)


def test_more_rows_differ_from_real_ones_as_two_views_of_one_image_do(monkeypatch):
    monkeypatch.setattr(codes, "IMAGES", 4)
    random = np.random.default_rng(0)
    gallery = Rows(
        random.integers(0, 256, (11, 32), np.uint8), random.integers(0, 256, (11, 4), np.uint8)
    )
    made = codes.more_rows(gallery, 30)
    both, real = np.concatenate(made, axis=1), np.concatenate(gallery, axis=1)
    assert_array_equal(both[:11], real)
    flips = {(real[image] ^ real[4 + image]).tobytes() for image in range(4)}
    assert len(both) == 30
    assert {(both[row] ^ real[row % 11]).tobytes() for row in range(11, 30)} == flips
    assert_array_equal(codes.more_rows(gallery, 7).codes, gallery.codes[:7])


def test_recall_counts_the_neighbours_no_farther_than_the_true_tenth():
    tenth = np.array([9, 5], np.int32)
    found = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 9, 9], [5] * 6 + [6, 6, 7, NO_DISTANCE]], np.int32)
    assert measure.recall(found, tenth) == pytest.approx(0.8)


def test_bytes_a_row_are_what_an_index_holds_and_keeps():
    rows = 1_000_000
    array, seconds, row_bytes = measure.built(lambda: np.ones((rows, 64), np.uint8), rows, rows)
    assert len(array) == rows
    assert seconds > 0
    assert row_bytes == pytest.approx(65, rel=0.05)


@pytest.fixture
def given(monkeypatch, tiny_images, tmp_path):
    """3,000 rows made from 300 images; half of these are the queries."""
    monkeypatch.setattr(codes, "IMAGES", 150)
    monkeypatch.setattr(ours, "IMAGES", 300)
    monkeypatch.setattr(ours, "_SLOW", 150)
    monkeypatch.setattr(ours, "gallery_images", lambda folders: tiny_images)
    monkeypatch.setattr(ours, "held_out_images", lambda folders: tiny_images[:150])
    monkeypatch.setattr(peers, "_LISTS", 64)
    monkeypatch.setattr(peers, "usable_cores", faiss.omp_get_max_threads)
    monkeypatch.setattr(measure, "_SECONDS", 0.01)
    monkeypatch.setattr(measure, "_FEWEST", 1)
    real = Rows(**Encoder.load(PRETRAINED).columns(tiny_images))
    queries = Rows(*(column[:150] for column in real))
    rows = codes.more_rows(real, 3000)
    return ours.Given(rows, codes.RealRows(real, queries, queries), DataFolders(None, tmp_path))


def test_every_part_is_measured_and_peers_are_last(given, monkeypatch):
    fixed = {"pixels": (300,), "live": (300,)}
    small = {
        name: part._replace(sizes=fixed.get(name, (3000,)), scales=False)
        for name, part in bench.PARTS.items()
        if name not in PEERS_WITH_PACKAGES or find_spec(name)
    }
    monkeypatch.setattr(bench, "PARTS", small)
    monkeypatch.setattr(measure, "_MOST", 10)
    results, part_seconds = bench.run(given, list(small), sizes=())
    assert list(dict.fromkeys(one.by == "hashsearch" for one in results[1:])) == [True, False]
    assert {one.part for one in results} == set(small)
    assert len(part_seconds) == len(small)
    by_what = {(one.by, one.what): one for one in results}
    assert all(one.single_ms > 0 for one in results)
    assert by_what["hashsearch", "exact"].row_bytes == pytest.approx(32, abs=20)
    for one in results:
        if one.recall is not None:
            assert 0 < one.recall <= 1
    assert by_what["FAISS", "IVF, 128 of 64 lists"].recall == 1  # it visits all
    assert by_what["hashsearch", "ivf, 128 of 64 lists"].recall == 1
    shown = to_markdown(_report(results))
    assert shown.count("\n| 3,000 |") == sum(one.size == 3000 for one in results)


def test_graphs_that_take_too_long_are_searched_as_far_as_they_got(given, monkeypatch):
    monkeypatch.setattr(peers, "_AT_ONCE", 1000)
    monkeypatch.setattr(peers, "_BUILDING_S", 0)
    found = list(peers.faiss_hnsw(given, 3000))
    assert {one.size for one in found} == {1000}
    assert found[-1].recall > 0.9


def test_only_whole_tables_are_published(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search", "--publish", "--only", "exact"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "only the whole table is published" in capsys.readouterr().err


def test_the_published_table_is_what_was_measured():
    published = Report.from_json((ROOT / "docs/search.json").read_text())
    assert is_of_a_bundled_model(published.fingerprint)
    assert {one.part for one in published.results} == set(bench.PARTS)
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert with_section(page, published) == page
    readme = (ROOT / "README.md").read_text()
    assert with_lines(readme, published) == readme


def test_the_table_says_what_was_measured_in_three_digits():
    exact = Measured(10_000_000, "exact", single_ms=12.345, batch_ms=1234.6, part="exact")
    found = Measured(10_000_000, "ivf, 8 of 9 lists", single_ms=0.012345, recall=0.9684, part="ivf")
    shown = to_markdown(_report([exact, replace(found, build_s=1.26, row_bytes=43.7)]))
    assert "\n| 10,000,000* | exact | hashsearch | 12.3 | 1,235 | 1.00 | | | | |\n" in shown
    assert "| ivf, 8 of 9 lists | hashsearch | 0.0123 | | 1,000 | .968 | 1.3 | 44 | |\n" in shown


def test_the_readme_quotes_the_fastest_search_with_enough_recall():
    def ivf(ms, recall):
        return Measured(MILLION, "ivf", single_ms=ms, recall=recall, part="ivf")

    def quoted(*results):
        rows = to_lines(_report(list(results))).splitlines()
        return next(row for row in rows if row.startswith("| ivf"))

    assert quoted(ivf(0.1, 0.9), ivf(0.2, 0.95), ivf(0.3, 0.99)) == "| ivf | 0.200 ms (.950) | |"
    assert quoted(ivf(0.1, 0.9), ivf(0.2, 0.94)) == "| ivf | 0.200 ms (.940) | |"


def _report(results: list[Measured]) -> Report:
    report = Report("python", "2026-11-27", "a processor", 0.0, {}, "0" * 64, 60.0, {}, results)
    assert Report.from_json(report.to_json()) == report
    return report
