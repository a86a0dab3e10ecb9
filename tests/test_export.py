"""Exports to Parquet files, compared with the gallery and its exact search."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow
import pyarrow.parquet as pq
import pytest

import hashsearch as hs
from hashsearch import __version__
from hashsearch.errors import ArtifactMismatch, ExportError, InvalidQuery, NotWritable
from hashsearch.exports import parquet
from hashsearch.extras import install_command
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from tests.exports import DOCS, documented_sql, held, rows_in_memory
from tests.galleries import another_png, can_mount, run


@pytest.fixture
def opened(gallery):
    with hs.open(gallery.folder) as opened:
        yield opened


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "codes.parquet"


def rows(file: Path) -> list[tuple]:
    return duckdb.sql(f"SELECT id, uri, label, code, key FROM '{file}' ORDER BY id").fetchall()


def test_the_file_holds_the_gallery_and_says_whose_codes_these_are(
    opened, gallery, file, monkeypatch
):
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 64)
    opened.remove(ids=[1, 64, 65, 300])
    opened.add(another_png(), label="a\0b")
    summary = opened.export(file)
    assert rows(file) == held(gallery)
    assert (summary.images, summary.generation) == (297, gallery.catalog.generation())
    written = pq.ParquetFile(file)
    assert written.num_row_groups == 5
    assert [str(field.type) for field in written.schema_arrow] == [
        *("int64", "string", "string", "fixed_size_binary[32]", "fixed_size_binary[32]")
    ]
    entries = {k.decode(): v.decode() for k, v in written.metadata.metadata.items()}
    assert {k: v for k, v in entries.items() if k.startswith("hashsearch.")} == {
        "hashsearch.format": "1",
        "hashsearch.version": __version__,
        "hashsearch.gallery": gallery.catalog.identity(),
        "hashsearch.fingerprint": gallery.fingerprint,
        "hashsearch.precision": "float32",
        "hashsearch.generation": str(summary.generation),
        "hashsearch.code_bits": "256",
    }
    (query,) = re.findall(r"`(SELECT [^`]* FROM parquet_kv_metadata[^`]*)`", DOCS)
    by_duckdb = duckdb.sql(query.replace("codes.parquet", str(file))).fetchall()
    assert dict(by_duckdb) == {k: v for k, v in entries.items() if k.startswith("hashsearch.")}
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]


def test_the_documented_query_of_duckdb_finds_what_the_exact_search_finds(opened, gallery, file):
    opened.export(file)
    query = documented_sql("SELECT id, bit_count(xor")
    query = query.replace("codes.parquet", str(file)).replace("LIMIT 10", "LIMIT 40")
    (shown,) = re.findall(r"[0-9a-f]{64}", query)
    for number in (1, 150, 299):
        code = gallery.code(number)
        found = duckdb.sql(query.replace(shown, code.tobytes().hex())).fetchall()
        hits = opened.search(code, k=40)
        assert [row[:2] for row in found] == [(hit.id, hit.distance) for hit in hits]
        assert len({distance for _, distance, *_ in found}) < 40  # so that ties are compared too


def test_two_chunks_of_rows_at_most_are_in_memory(opened, file, monkeypatch):
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 30)
    asked, found = iter(range(99)), []

    def stop():
        if next(asked) == 9:
            found.append(rows_in_memory())
        return False

    assert opened.export(file, stop=stop).written == 300
    assert found[0] in (30, 60)


def test_an_empty_gallery_has_a_file_without_rows(empty_gallery, file):
    with hs.open(empty_gallery.folder) as opened:
        assert opened.export(file).images == 0
    assert rows(file) == []


def happening(monkeypatch, what, call: int):
    """Let something happen before one of the calls that read a chunk of 100 images."""
    original, calls = parquet.rows_after, []

    def replaced(*arguments):
        calls.append(1)
        if len(calls) == call:
            what()
        return original(*arguments)

    monkeypatch.setattr(parquet, "CHUNK_ROWS", 100)
    monkeypatch.setattr(parquet, "rows_after", replaced)
    return calls


def test_changes_during_the_export_are_not_half_in_the_file(gallery, opened, file, monkeypatch):
    before = held(gallery)

    def change():
        remove(gallery.catalog, Selection(ids=[5, 150, 290]))
        add_image(gallery, gallery.encoder(), another_png(), "new")

    happening(monkeypatch, change, call=3)
    assert opened.export(file).generation == 1
    assert rows(file) == before
    assert opened.export(file).generation == 3
    assert rows(file) == held(gallery) != before


@pytest.mark.parametrize("job", [compact, reencode])
def test_a_job_that_replaces_shards_during_the_export_makes_it_begin_again(
    gallery, opened, file, monkeypatch, job, other_model_folder
):
    remove(gallery.catalog, Selection(ids=[5, 150, 290]))
    arguments = [other_model_folder] if job is reencode else []
    calls = happening(monkeypatch, lambda: job(gallery, *arguments), call=2)
    summary = opened.export(file)
    assert len(calls) > 4
    assert rows(file) == held(gallery)
    assert (summary.fingerprint, summary.written) == (gallery.fingerprint, 297)


def test_what_came_during_the_export_is_not_replaced(
    gallery, opened, file, tmp_path, monkeypatch, other_model_folder
):
    opened.export(file)
    before = file.read_bytes()
    happening(monkeypatch, lambda: reencode(gallery, other_model_folder), call=2)
    with pytest.raises(ArtifactMismatch, match="has codes of model"):
        opened.export(file)
    assert file.read_bytes() == before
    other = tmp_path / "other.parquet"
    happening(monkeypatch, lambda: other.write_text("of somebody else"), call=2)
    with pytest.raises(ExportError, match="is there and was not made by an export"):
        opened.export(other)
    assert other.read_text() == "of somebody else"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_an_export_has_the_mode_of_the_former_one(opened, file):
    opened.export(file)
    file.chmod(0o600)
    opened.export(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_killed_export_leaves_the_former_file_and_the_next_one_nothing_else(
    gallery, opened, file
):
    opened.export(file)
    before = file.read_bytes()
    opened.add(another_png())
    killed = """
import os, signal, sys
from pathlib import Path
import hashsearch
Path.replace = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
hashsearch.open(sys.argv[1]).export(sys.argv[2])
"""
    program = [sys.executable, "-c", killed, gallery.folder, file]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert file.read_bytes() == before
    assert file.with_name(".codes.parquet.unfinished").exists()
    assert opened.export(file).written == 301
    assert rows(file) == held(gallery)
    assert not file.with_name(".codes.parquet.unfinished").exists()


def test_an_export_that_is_stopped_leaves_the_former_file(gallery, opened, file, monkeypatch):
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 100)
    file.write_bytes(b"older")
    asked = iter([False, False])
    summary = opened.export(file, replace=True, stop=lambda: next(asked, True))
    assert (summary.stopped, summary.written) == (True, 0)
    assert file.read_bytes() == b"older"
    assert not file.with_name(".codes.parquet.unfinished").exists()


def test_of_two_exports_to_a_file_the_second_says_so(opened, file):
    said = []

    def stop():
        with pytest.raises(ExportError, match=rf"^another process is exporting to {file}$"):
            opened.export(file)
        said.append(1)
        return False

    assert opened.export(file, stop=stop).written == 300
    assert said


def test_a_file_of_other_codes_or_of_something_else_is_kept_unless_replaced(
    gallery, opened, file, tmp_path, model_folder, other_model_folder, capsys
):
    former = gallery.fingerprint
    opened.export(file)
    reencode(gallery, other_model_folder)
    refused = [(file, ArtifactMismatch, f"{former[:12]}.*{gallery.fingerprint[:12]}; .*--replace")]
    with hs.open(tmp_path / "other", create=True, model=other_model_folder) as other:
        other.export(tmp_path / "other.parquet")
    refused.append((tmp_path / "other.parquet", ArtifactMismatch, "from another gallery than"))
    (tmp_path / "text.parquet").write_text("hello")
    refused.append((tmp_path / "text.parquet", ExportError, "is there and was not made by an exp"))
    duckdb.sql(f"COPY (SELECT 1 AS id) TO '{tmp_path / 'a.parquet'}' (FORMAT PARQUET)")
    refused.append((tmp_path / "a.parquet", ExportError, "is there and was not made by an export"))
    table = pyarrow.table({"id": [1]}).replace_schema_metadata({"hashsearch.fingerprint": b"\xff"})
    pq.write_table(table, tmp_path / "b.parquet")
    refused.append((tmp_path / "b.parquet", ArtifactMismatch, "has codes of model \ufffd, and the"))
    for path, error, message in refused:
        before = path.read_bytes()
        with pytest.raises(error, match=message):
            opened.export(path)
        assert path.read_bytes() == before
        opened.export(path, replace=True)
        assert rows(path) == held(gallery)


def test_what_is_no_target_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.parquet").mkdir()
    os.mkfifo("pipe.parquet")
    Path("itself.parquet").symlink_to("itself.parquet")
    for to, error, message in (
        (
            "codes.csv",
            InvalidQuery,
            r"goes to FILE\.parquet or postgresql://…; 'codes.csv' is neither$",
        ),
        *(  # nothing that may be a password is shown
            (f"{start}guest:secret@home/x", InvalidQuery, rf"….*; {shown} is neither$")
            for start, shown in (
                ("mysql://", "mysql://…"),
                ("POSTGRESQL://", "POSTGRESQL://…"),
                ("a:b://", "what was given"),
                ("postgresql:", "what was given"),
                ("host=/tmp password=", "what was given"),
            )
        ),
        ("passwords=secret", InvalidQuery, "what was given is neither$"),
        ("", InvalidQuery, "an empty path came"),
        (b"codes.parquet", InvalidQuery, "an object of type bytes came"),
        ("/proc/codes.parquet", NotWritable, r"codes\.parquet.*: no file can be made in /proc$"),
        ("nowhere/codes.parquet", NotWritable, "nowhere does not exist; the folder of codes"),
        ("folder.parquet", ExportError, "is not a file; the path of a Parquet file is wanted"),
        ("pipe.parquet", ExportError, "is not a file; the path of a Parquet file is wanted"),
        (
            "itself.parquet",
            NotWritable,
            "is not the path of a file: Symlink loop|cannot be written",
        ),
        ("a\0b.parquet", NotWritable, "is not the path of a file: embedded null"),
        ("a" * 255 + ".parquet", NotWritable, "cannot be written: File name too long"),
        ("a" * 240 + ".parquet", NotWritable, "cannot be written: File name too long"),
    ):
        for replaced in (False, True):
            with pytest.raises(error, match=message):
                opened.export(to, replace=replaced)


def test_what_is_for_databases_is_refused_for_files(opened, file):
    for options, message in (
        ({"table": "x"}, "a file has no table"),
        ({"index": "none"}, "a file has no index"),
        ({"index": "tree"}, "an index is hnsw, ivfflat, none; got 'tree'"),
        ({"stop": True}, "stop is a function; got True"),
    ):
        with pytest.raises(InvalidQuery, match=message):
            opened.export(file, **options)
    assert not file.exists()


def test_a_link_keeps_leading_to_the_file(opened, gallery, file, tmp_path):
    (tmp_path / "link.parquet").symlink_to(file)
    opened.export(tmp_path / "link.parquet")
    opened.export(tmp_path / "link.parquet")
    assert (tmp_path / "link.parquet").is_symlink()
    assert rows(file) == held(gallery)


@pytest.mark.parametrize(
    ("link", "error"),
    [(Path.symlink_to, "cannot be written: "), (Path.hardlink_to, "unfinished is in the way: ")],
)
def test_what_a_link_in_the_place_of_the_unfinished_file_leads_to_is_kept(
    opened, file, tmp_path, link, error
):
    (tmp_path / "precious").write_text("older")
    link(file.with_name(".codes.parquet.unfinished"), tmp_path / "precious")
    with pytest.raises(NotWritable, match=rf"codes\.parquet(\.| ){error}"):
        opened.export(file)
    assert (tmp_path / "precious").read_text() == "older"


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted here")
def test_a_full_disk_leaves_the_former_file(gallery, tmp_path):
    (tmp_path / "disk").mkdir()
    script = """
set -e
mount -t tmpfs -o size=16k tmpfs disk
printf older > disk/a.parquet
"$0" -m hashsearch.cli export "$1" --to disk/a.parquet --replace || cat disk/a.parquet
ls -A disk
"""
    done = subprocess.run(
        [
            *["unshare", "--map-root-user", "--mount", "sh", "-c"],
            script,
            sys.executable,
            gallery.folder,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "oldera.parquet\n"
    assert re.search(r"hashsearch: .*a\.parquet cannot be written: .*[Nn]o space", done.stderr)


def test_the_command_says_what_it_wrote(gallery, file, capsys, monkeypatch):
    monkeypatch.setenv("HASHSEARCH_GALLERY", str(gallery.folder))
    assert run("export", "--to", file) == 0
    assert re.fullmatch(
        rf"{file}: 300 images of generation 1, in \d+\.\d s\n", capsys.readouterr().out
    )
    assert run("export", gallery.folder, "--to", file, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["to"], answer["table"], answer["images"]) == (str(file), None, 300)
    file.write_bytes(b"x")
    assert run("export", "--to", file) == 1
    assert capsys.readouterr().err.endswith("name another file, or replace it with --replace\n")
    assert run("export", "--to", file, "--replace") == 0


def test_a_url_that_is_given_as_the_gallery_is_not_shown(capsys):
    url = "postgresql://guest:secret@home/x"
    assert run("export", url, "--to", "codes.parquet") == 1
    assert capsys.readouterr().err == (
        "hashsearch: a gallery is a folder; what was given as its path is a URL\n"
    )


@pytest.mark.parametrize(
    ("to", "hidden", "error"),
    [
        ("codes.parquet", "pyarrow", "Parquet files are written by pyarrow"),
        ("postgresql:///x", "psycopg", "exports to PostgreSQL need the package psycopg[binary]"),
        ("postgresql:///x", "psycopg.pq", "exports to PostgreSQL need the package psycopg[binary]"),
    ],
)
def test_without_a_package_it_is_told_what_to_install(
    gallery, to, hidden, error, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    ours = (f"hashsearch.exports.{name}" for name in ("parquet", "postgres", "database"))
    for name in ("pyarrow", "psycopg", *ours):  # so that they are imported again
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, hidden, None)
    assert run("export", gallery.folder, "--to", to) == 1
    package = error.split()[-1]
    assert capsys.readouterr().err == (
        f"hashsearch: {error}, which is not installed: {install_command(package)}\n"
    )


def test_every_gallery_has_an_identity_of_its_own(tmp_path, model_folder):
    found = set()
    for name in ("a", "b"):
        created = GalleryFolder.create(tmp_path / name, model_folder)
        assert created.catalog.settings("identity") == {"identity": created.catalog.identity()}
        found.add(created.catalog.identity())
        created.close()
    assert len(found) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)
