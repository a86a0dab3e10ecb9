"""The tables of `make bench` on the service: what is measured, and the page that shows it."""

import shutil
import sys
from dataclasses import replace

import pytest

from benchmarks import machine
from benchmarks.search.codes import Rows
from benchmarks.search.live import write_gallery
from benchmarks.service import __main__ as bench
from benchmarks.service import gallery as kept
from benchmarks.service.measure import (
    IDS,
    PHOTOGRAPHS,
    READY,
    Kind,
    Load,
    Stages,
    loaded,
    stages_of,
)
from benchmarks.service.report import (
    CONNECTIONS,
    ROOT,
    SECONDS,
    WANTED,
    WANTED_P99_MS,
    Report,
    missed,
    published,
    to_markdown,
    with_section,
)
from benchmarks.service.servers import started
from hashsearch.encoder import Encoder
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.models.card import PRETRAINED
from hashsearch.sources import DataFolders
from tests.conftest import is_of_a_bundled_model

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@pytest.fixture(scope="module")
def rows(tiny_images):
    return Rows(**Encoder.load(PRETRAINED).columns(tiny_images))


@pytest.fixture
def given(tmp_path, rows, image_files):
    write_gallery(tmp_path / "gallery", rows, ["cat", None])
    return bench.Given(tmp_path / "gallery", sorted(image_files.rglob("*.jpg"))[:20], tmp_path)


def test_the_gallery_is_written_once_with_the_labels_of_its_images(tmp_path, rows, monkeypatch):
    class Real:
        gallery = rows

    class Image:
        label = "cat"

    said: list[str] = []
    monkeypatch.setattr(kept, "real_rows", lambda folders, say: Real)
    monkeypatch.setattr(kept, "open_source", lambda name, folders: [Image])
    folders = DataFolders(None, tmp_path)
    folder = kept.kept_gallery(folders, said.append)
    assert kept.kept_gallery(folders, said.append) == folder
    assert len(said) == 1
    opened = GalleryFolder(folder)
    records = opened.catalog.records(range(1, 301))
    assert [record.label for record in records] == ["cat"] * 300
    assert (opened.code(300) == rows.codes[299]).all()
    assert not opened.keeps("pixels")
    opened.close()


@needs_wrk
def test_service_and_peers_are_measured(given):
    if not given.photographs:
        pytest.skip("the test images are no JPEG files")
    loads, stages = bench.run(given, seconds=1)
    assert [(one.by, one.what, one.connections) for one in loads] == [
        ("hashsearch serve", PHOTOGRAPHS, CONNECTIONS),
        ("hashsearch serve", IDS, CONNECTIONS),
        ("hashsearch serve", PHOTOGRAPHS, 1),
        ("hashsearch serve", IDS, 1),
        ("hashsearch serve", IDS, 1),
        ("hashsearch serve", READY, 1),
        ("FastAPI alone", PHOTOGRAPHS, CONNECTIONS),
        ("FastAPI alone", IDS, CONNECTIONS),
        ("library, in one thread", PHOTOGRAPHS, 1),
        ("library, in one thread", IDS, 1),
    ]
    for one in loads:
        assert 0 < one.p50_ms <= one.p90_ms <= one.p99_ms <= one.max_ms
        assert one.rate > 0
        assert one.server_ms is None or one.server_ms > 0
    assert [(one.by, one.what) for one in stages] == [
        (by, what) for by in ("hashsearch serve", "FastAPI alone") for what in (PHOTOGRAPHS, IDS)
    ]
    assert all(one.stages for one in stages[:2])
    assert all(sum(one.stages.values()) < one.whole_ms for one in stages)


@needs_wrk
def test_a_failed_request_fails_the_benchmark(given):
    answer = given.folder / "answer.json"
    answer.write_bytes(b"{}")
    with (
        started("FastAPI alone", "benchmarks.service.servers", str(answer)) as server,
        pytest.raises(SystemExit, match=r"FastAPI alone failed under load \(\d+ × status\)"),
    ):
        loaded(server, Kind("/nowhere"), 2, 1)


def test_other_hits_than_the_librarys_fail_the_benchmark():
    bench.require_same([[4, 2]], [b'{"hits": [{"id": 4}, {"id": 2}]}'])
    with pytest.raises(SystemExit, match=r"the service found \[2, 4\], and the library \[4, 2\]"):
        bench.require_same([[4, 2]], [b'{"hits": [{"id": 2}, {"id": 4}]}'])


def test_without_wrk_a_sentence_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["service"])
    bench.main()
    assert "`apt-get install wrk` installs it" in capsys.readouterr().out


def test_only_loads_of_a_minute_are_published(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["service", "--publish", "--seconds", "6"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "only loads of 60 seconds are published" in capsys.readouterr().err


def test_what_other_programs_used_is_a_share_of_all_processors_and_never_below_0(monkeypatch):
    monkeypatch.setattr(machine, "seconds_of_others", lambda: 106.0)
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 4)
    assert machine.percent_of_others(before=100.0, seconds=10.0) == pytest.approx(15)
    assert machine.percent_of_others(before=106.1, seconds=10.0) == 0


def test_stages_are_read_from_the_header():
    assert stages_of('decode;dur=1.25, search;desc="exact";dur=0.7,cache') == {
        "decode": 1.25,
        "search": 0.7,
    }
    assert stages_of("") == {}


def test_the_published_section_is_what_was_measured():
    page, report = (ROOT / "docs/benchmarks.md").read_text(), published()
    assert with_section(page, report) == page
    assert report.load_seconds == SECONDS
    assert is_of_a_bundled_model(report.fingerprint)
    main = {one.what: one for one in report.loads if one.by == "hashsearch serve"
            and one.connections == CONNECTIONS}  # fmt: skip
    assert all(main[what].rate >= wanted for what, wanted in WANTED.items())
    assert main[PHOTOGRAPHS].p99_ms < WANTED_P99_MS
    readme = (ROOT / "README.md").read_text()
    rates = f"{main[PHOTOGRAPHS].rate:.0f} photographs a second (16 connections, 99 of 100"
    assert f"{rates} within {main[PHOTOGRAPHS].p99_ms:.0f} ms)" in readme
    assert f"{main[IDS].rate:.0f} queries by id" in readme


def test_the_table_says_what_the_cores_allow():
    load = Load(IDS, "hashsearch serve", 16, 800.4, 1.0, 2.5, 9.996, 123.4, 1.5, 0.5)
    beside = replace(load, server_ms=None, wrk_ms=None, beside="16 × photograph")
    shown = to_markdown(
        _report([load, beside], [Stages(IDS, "us", 3.5, {"search": 1, "catalog": 0.5})])
    )
    assert (
        "\n| id | hashsearch serve | 16 | 800 | 1.00 | 2.50 | 10.00 | 123 | 1.50 | 0.50 | "
        "1.60 | 1,000 |\n| id, beside 16 × photograph |"
    ) in shown
    assert "\n| request | by | whole | search | catalog | the rest |\n" in shown
    assert "\n| id | us | 3.50 | 1.00 | 0.50 | 2.00 |\n" in shown
    shown = to_markdown(_report([load], [Stages(IDS, "us", 3.5, {})]))
    assert "\n| request | by | whole |\n| --- | --- | --- |\n| id | us | 3.50 |\n" in shown


def test_missed_targets_on_two_cores_are_named():
    fine = Load(PHOTOGRAPHS, "hashsearch serve", CONNECTIONS, 251, 50, 90, 99, 120, 5, 0.5)
    ids = Load(IDS, "hashsearch serve", CONNECTIONS, 800, 10, 20, 90, 500, 1, 0.5)
    assert missed(_report([fine, ids], [])) == []
    slow = replace(fine, rate=249.4, p99_ms=100.0)
    assert missed(_report([slow, replace(ids, rate=799)], [])) == [
        "photograph: 249 answers a second, not 250",
        "photograph: p99 100 ms, not under 100",
        "id: 799 answers a second, not 800",
    ]
    alone = [replace(slow, connections=1), replace(slow, beside="ids"), replace(slow, by="FastAPI")]
    assert missed(_report(alone, [])) == []
    assert missed(replace(_report([slow], []), cores=4)) == []


def _report(loads, stages):
    report = Report(
        "python", "2026-11-27", "a processor", 2, 0.0, {}, "0" * 64, 60.0, 60, 200, 9, loads, stages
    )
    assert Report.from_json(report.to_json()) == report
    return report
