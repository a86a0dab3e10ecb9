"""Exports to PostgreSQL: real servers, real pgvector, compared with the gallery and its search."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psycopg
import pytest

import hashsearch as hs
from hashsearch.commands import export as command
from hashsearch.errors import ArtifactMismatch, ExportError, GalleryReadOnly, InvalidQuery
from hashsearch.exports import postgres
from hashsearch.exports.state import STATES
from hashsearch.exports.targets import ExportOptions
from hashsearch.gallery import opening
from hashsearch.gallery.changes import Selection, move_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import encode_png
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from tests.galleries import damage, ids, run
from tests.postgres import GUEST, GUESTS_PASSWORD, running_server

TABLE = "hashsearch_images"
DOCS = (Path(__file__).parents[1] / "docs" / "export.md").read_text()


@pytest.fixture(scope="session")
def server():
    with running_server() as started:
        yield started


@pytest.fixture
def database(server) -> str:
    return server.new_database()


@pytest.fixture
def export(server, database, gallery):
    """A function that exports `gallery` to a database of its own."""

    def call(to=None, stop=lambda: False, of=gallery, table=None, index="none"):
        options = ExportOptions(False, table, index, stop)
        return postgres.export_to_postgres(of, to or server.url(database), options)

    return call


@pytest.fixture
def query(server, database):
    return lambda statement: server.execute(statement, database)


def held(gallery: GalleryFolder) -> list[tuple]:
    """What the table of an export is to hold, read image by image."""
    return [
        (one.id, one.uri, one.label, gallery.code(one.id).tobytes(), gallery.catalog.key(one.id))
        for one in gallery.catalog.records(ids(gallery))
    ]


def table(query, name=TABLE) -> list[tuple]:
    """What a table holds, its codes from PostgreSQL's own zeros and ones."""
    found = query(f"SELECT id, uri, label, code::text, key FROM {name} ORDER BY id")
    return [
        (number, uri, label, np.packbits([int(bit) for bit in code]).tobytes(), key)
        for number, uri, label, code, key in found
    ]


def bits(gallery: GalleryFolder, number: int) -> str:
    """An image's code as a constant of SQL."""
    return "B'" + "".join(map(str, np.unpackbits(gallery.code(number)))) + "'"


def state(query) -> dict:
    names = ("table_name", "gallery", "fingerprint", "precision", "generation", "loaded", "index")
    ((*values,),) = query(f"SELECT {', '.join(names)} FROM {STATES}")
    return dict(zip(names, values, strict=True))


def test_the_table_holds_the_gallery_and_says_whose_codes_these_are(export, query, gallery):
    summary = export()
    assert table(query) == held(gallery)
    assert (summary.images, summary.written, summary.removed) == (300, 300, 0)
    assert state(query) == {
        "table_name": TABLE,
        "gallery": gallery.catalog.identity(),
        "fingerprint": gallery.fingerprint,
        "precision": "float32",
        "generation": gallery.catalog.generation(),
        "loaded": None,
        "index": "none",
    }
    again = export()
    assert (again.images, again.written, again.removed) == (300, 0, 0)


def test_the_nearest_by_pgvector_are_those_of_the_exact_search(export, query, gallery):
    export()
    with hs.open(gallery.folder) as opened:
        for number in (3, 77, 250):
            found = query(
                f"SELECT id, (code <~> {bits(gallery, number)})::int AS distance FROM {TABLE} "
                "ORDER BY distance, id LIMIT 20"
            )
            hits = opened.search(gallery.code(number), k=20)
            assert found == [(hit.id, hit.distance) for hit in hits]


@pytest.mark.parametrize(("kind", "lists"), [("hnsw", None), ("ivfflat", "1")])
def test_an_index_answers_and_is_kept_up_to_date(export, query, gallery, kind, lists):
    export(index=kind)
    assert export(index=None).written == 0  # and makes no second index
    ((definition,),) = query(
        f"SELECT indexdef FROM pg_indexes WHERE tablename = '{TABLE}' AND indexdef LIKE '%code%'"
    )
    assert f"USING {kind} (code bit_hamming_ops)" in definition
    assert (f"lists='{lists}'" in definition) == (lists is not None)
    number = add_image(gallery, gallery.encoder(), picture(1))[0]
    assert export(index=None).written == 1
    nearest = f"SELECT id FROM {TABLE} ORDER BY code <~> {bits(gallery, number)} LIMIT 3"
    settings = "SET enable_seqscan = off; SET enable_sort = off;"
    plan = query(f"{settings} EXPLAIN {nearest}")
    assert f"Index Scan using {TABLE}_code_idx" in str(plan)
    assert query(settings + nearest)[0] == (number,)


def stop_after(chunks: int):
    left = iter(range(chunks))
    return lambda: next(left, None) is None


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def relabel(gallery: GalleryFolder, numbers) -> None:
    with gallery.catalog.transaction() as db:
        db.executemany(
            "UPDATE images SET label = 'other', generation = "
            "(SELECT value + 1 FROM settings WHERE name = 'generation') WHERE id = ?",
            ((number,) for number in numbers),
        )
        next_generation(db)


class Life:
    """A gallery to which random things happen, and the table of its exports."""

    def __init__(self, gallery: GalleryFolder, query, models: list[Path], seed: int):
        self.gallery, self.query, self.models = gallery, query, models
        self.chance, self.encoder = random.Random(seed), gallery.encoder()
        self.happenings = [
            *(self.add, self.add, self.remove, self.label, self.move, self.compact),
            *(self.reencode, self.copy, self.put_back, self.drop_index),
        ]

    def happen(self) -> None:
        self.chance.choice(self.happenings)()

    def add(self) -> None:
        """New pictures, and some that were there, or are."""
        for _ in range(self.chance.randrange(1, 9)):
            add_image(self.gallery, self.encoder, picture(self.chance.randrange(60)))

    def remove(self) -> None:
        some = self.chance.sample(ids(self.gallery), self.chance.randrange(0, 6))
        remove(self.gallery.catalog, Selection(ids=some))

    def label(self) -> None:
        label = self.chance.choice(["cat", "a\0b", "ü\n", "", "\\N"])
        add_image(self.gallery, self.encoder, picture(self.chance.randrange(60)), label)

    def move(self) -> None:
        """A file gets another place, as `index` and `relocate` record it."""
        (record,) = self.gallery.catalog.records([self.chance.choice(ids(self.gallery))])
        with self.gallery.catalog.transaction() as db:
            move_place(db, record.uri, f"{record.uri}%{self.chance.randrange(10)}")
            next_generation(db)

    def compact(self) -> None:
        compact(self.gallery)

    def reencode(self) -> None:
        """By another model; then the table is dropped, since an export to it is refused."""
        if self.chance.random() < 0.7:
            return
        reencode(self.gallery, self.chance.choice(self.models))
        self.encoder = self.gallery.encoder()
        self.query(f"DROP TABLE IF EXISTS {TABLE}")

    @property
    def copies(self) -> Path:
        return self.gallery.folder.with_name("copy")

    def copy(self) -> None:
        self.gallery.close()
        shutil.rmtree(self.copies, ignore_errors=True)
        shutil.copytree(self.gallery.folder, self.copies)
        self.gallery = GalleryFolder(self.gallery.folder)

    def put_back(self) -> None:
        if not self.copies.exists():
            return
        fingerprint = self.gallery.fingerprint
        self.gallery.close()
        shutil.rmtree(self.gallery.folder)
        shutil.copytree(self.copies, self.gallery.folder)
        self.gallery = GalleryFolder(self.gallery.folder)
        self.encoder = self.gallery.encoder()
        if self.gallery.fingerprint != fingerprint:
            self.query(f"DROP TABLE IF EXISTS {TABLE}")

    def drop_index(self) -> None:
        self.query(f"DROP INDEX IF EXISTS {TABLE}_code_idx")


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happened_the_next_export_brings_the_table_up_to_date(
    export, query, gallery, model_folder, other_model_folder, monkeypatch, seed
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 10)
    remove(gallery.catalog, Selection(ids=ids(gallery)[60:]))
    life = Life(gallery, query, [model_folder, other_model_folder], seed)
    for _ in range(25):
        for _ in range(life.chance.randrange(4)):
            life.happen()
        chunks = life.chance.choice([0, 1, 3, 1000])
        index = life.chance.choice(["none", "hnsw"])
        if not export(of=life.gallery, stop=stop_after(chunks), index=index).stopped:
            wanted = [
                (*row[:2], row[2] and row[2].replace("\0", "\ufffd"), *row[3:])
                for row in held(life.gallery)
            ]
            assert table(query) == wanted
            found = query(f"SELECT to_regclass('{TABLE}_code_idx') IS NULL")
            assert index == "none" or found == [(False,)]
            assert export(of=life.gallery).written == 0
    assert not export(of=life.gallery).stopped
    assert len(table(query)) == life.gallery.catalog.count()
    life.gallery.close()


def test_codes_that_were_computed_again_by_the_same_model_are_exported_again(
    export, query, gallery, monkeypatch
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    damage(gallery.shard_folder(1) / "codes.npy")
    export()
    assert reencode(gallery) == 300
    summary = export()
    assert (summary.written, summary.removed) == (1, 0)
    assert table(query) == held(gallery)


def copied(gallery: GalleryFolder, to: Path) -> GalleryFolder:
    """A copy of a closed gallery, open."""
    shutil.copytree(gallery.folder, to)
    return GalleryFolder(to)


def test_a_gallery_that_was_put_back_from_a_copy_takes_the_table_with_it(
    export, query, gallery, tmp_path
):
    gallery.catalog.identity()
    gallery.close()
    with closing(copied(gallery, tmp_path / "copy")) as copy:
        with closing(GalleryFolder(gallery.folder)) as later:
            remove(later.catalog, Selection(ids=[5, 6]))
            number = add_image(later, later.encoder(), picture(1))[0]
            export(of=later)
        summary = export(of=copy)
        assert (summary.written, summary.removed) == (2, 1)
        assert table(query) == held(copy)
        assert number not in ids(copy)


def test_a_copy_that_went_on_past_the_generation_of_the_table_is_noticed(
    export, query, gallery, tmp_path
):
    export()
    gallery.close()
    with closing(copied(gallery, tmp_path / "copy")) as copy:
        with closing(GalleryFolder(gallery.folder)) as later:
            add_image(later, later.encoder(), picture(1))
            export(of=later)
        for seed in (2, 3):  # the first gets the id that the other gallery gave to its own
            add_image(copy, copy.encoder(), picture(seed))
        assert copy.catalog.generation() > state(query)["generation"]
        assert export(of=copy).written == 2
        assert table(query) == held(copy)
        add_image(copy, copy.encoder(), picture(4))
        assert export(of=copy).written == 1


def test_a_gallery_put_back_during_a_first_export_leaves_no_row_of_its_lost_future(
    export, query, gallery, tmp_path, monkeypatch
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    export(stop=stop_after(1))
    gallery.close()
    with closing(copied(gallery, tmp_path / "copy")) as copy:
        with closing(GalleryFolder(gallery.folder)) as later:
            remove(later.catalog, Selection(ids=[107]))
            relabel(later, [109])
            export(of=later, stop=stop_after(1))
        export(of=copy)
        assert table(query) == held(copy)


def test_a_change_keeps_further_columns_and_what_refers_to_the_row(export, query, gallery):
    export()
    query(
        f"ALTER TABLE {TABLE} ADD seen boolean; UPDATE {TABLE} SET seen = true; CREATE TABLE notes "
        f"(image bigint REFERENCES {TABLE} ON DELETE CASCADE); "
        "INSERT INTO notes VALUES (7), (8), (9)"
    )
    relabel(gallery, [7, 8])
    remove(gallery.catalog, Selection(ids=[9]))
    compact(gallery)  # so that all rows are compared
    summary = export()
    assert (summary.written, summary.removed) == (2, 1)
    assert table(query) == held(gallery)
    assert query(f"SELECT count(*) FROM {TABLE} WHERE seen") == [(299,)]
    assert query("SELECT image FROM notes ORDER BY image") == [(7,), (8,)]


def test_a_table_that_was_emptied_or_made_again_is_filled(export, query, gallery):
    export()
    query(f"TRUNCATE {TABLE}")
    assert export().written == 300
    query(f"CREATE TABLE other AS SELECT * FROM {TABLE}; DROP TABLE {TABLE}")
    assert export().written == 300
    query(f"DROP TABLE {TABLE}; ALTER TABLE other RENAME TO {TABLE}")
    with pytest.raises(ExportError, match="has rows and was not made by an export; name another"):
        export()


def test_a_table_is_not_replaced(gallery, server, database, capsys):
    assert run("export", gallery.folder, "--to", server.url(database), "--replace") == 1
    assert capsys.readouterr().err == (
        "hashsearch: only files are replaced; drop the table (DROP TABLE), or name another one\n"
    )


def test_an_export_ends_though_the_gallery_keeps_changing(export, query, gallery, monkeypatch):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    export()
    numbers = []

    def stop():
        if len(numbers) < 20:
            numbers.append(add_image(gallery, gallery.encoder(), picture(len(numbers)))[0])
        return False

    export(stop=stop)
    summary = export(stop=stop)
    assert len(numbers) < 20
    assert summary.images == len(table(query)) == summary.generation + 299
    assert table(query) == held(gallery)[: summary.images]


@pytest.mark.parametrize("when", ["before a commit", "after a commit"])
def test_a_killed_export_leaves_whole_chunks_and_continues(
    export, query, gallery, server, database, when
):
    killed = """
import os, signal, sys
from pathlib import Path
from hashsearch.exports import postgres
from hashsearch.exports.table import Table
from hashsearch.exports.targets import ExportOptions
from hashsearch.gallery.gallery_folder import GalleryFolder
folder, url, when = sys.argv[1:]
postgres.CHUNK_ROWS = 90
place, name = (Table, "put") if when.startswith("before") else (postgres, "rows_after")
original, calls = getattr(place, name), []
def replaced(*arguments):
    done = original(*arguments)
    calls.append(1)
    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(place, name, replaced)
options = ExportOptions(False, None, "hnsw", lambda: False)
postgres.export_to_postgres(GalleryFolder(Path(folder)), url, options)
"""
    program = [sys.executable, "-c", killed, gallery.folder, server.url(database), when]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row[0] for row in table(query)] == list(range(1, 181))
    assert state(query)["loaded"] == 180
    for _ in range(200):  # until the server has seen that the other end is gone
        if not query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
            break
        time.sleep(0.05)
    summary = export(index=None)
    assert (summary.written, summary.removed) == (120, 0)
    assert table(query) == held(gallery)
    assert query(f"SELECT 1 FROM pg_indexes WHERE tablename = '{TABLE}' AND indexdef ~ 'hnsw'")


def test_an_export_that_is_stopped_keeps_its_chunks(export, query, gallery, monkeypatch):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    summary = export(stop=stop_after(2))
    assert (summary.stopped, summary.written, len(table(query))) == (True, 200, 200)
    summary = export()
    assert (summary.stopped, summary.written) == (False, 100)
    assert table(query) == held(gallery)


def test_rows_and_an_index_that_are_being_written_can_be_stopped_and_are_written_next_time(
    export, query, gallery, server, database, monkeypatch
):
    monkeypatch.setattr("hashsearch.exports.database._ASK_EVERY_S", 0.02)
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=1ms")
    assert export(stop=stop_after(0)).stopped  # the table is there, without rows
    with psycopg.connect(server.url(database)) as other:
        other.execute(f"LOCK TABLE {TABLE} IN SHARE MODE")  # lets nobody write until it commits
        summary = export(stop=stop_after(4))
        assert (summary.stopped, summary.written, summary.images) == (True, 0, 0)
    export()
    assert table(query) == held(gallery)
    with psycopg.connect(server.url(database)) as other:
        other.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")  # the same for indexes
        assert export(index="hnsw", stop=stop_after(4)).stopped
        assert state(query)["index"] == "hnsw"
    assert not export(index=None).stopped
    assert query(f"SELECT 1 FROM pg_indexes WHERE tablename = '{TABLE}' AND indexdef ~ 'hnsw'")


def test_of_two_exports_to_a_table_the_second_says_so(export, query, gallery):
    said = []

    def stop():
        with pytest.raises(ExportError) as raised:
            export()
        said.append(str(raised.value))
        assert export(table="another").written == 300
        return True

    export(stop=stop)
    assert said == [
        f"another export writes to the table public.{TABLE}, perhaps a killed one whose index is "
        "still being built; try again later"
    ]
    assert export().written == 300


def test_a_lost_connection_loses_one_chunk(export, query, gallery, monkeypatch):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    asked = iter(range(9))

    def stop():
        if next(asked) == 2:
            query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'hashsearch export'"
            )
        return False

    with pytest.raises(ExportError, match=r"terminating connection.*the same command continues$"):
        export(stop=stop)
    assert len(table(query)) == 200
    assert export().written == 100


def test_a_table_of_another_model_is_refused_until_it_is_dropped(
    export, query, gallery, other_model_folder
):
    former = gallery.fingerprint
    export(index="ivfflat")
    before = table(query)
    reencode(gallery, other_model_folder)
    with pytest.raises(ArtifactMismatch) as raised:
        export()
    assert str(raised.value) == (
        f"the table public.{TABLE} has codes of model {former[:12]}, and the gallery's are of "
        f"model {gallery.fingerprint[:12]}; name another table with --table, or drop this one "
        "(DROP TABLE)"
    )
    assert table(query) == before
    query(f"DROP TABLE {TABLE}")
    assert export().written == 300
    assert table(query) == held(gallery)
    assert state(query)["fingerprint"] == gallery.fingerprint


def test_a_gallery_that_is_reencoded_during_the_export_does_not_mix_two_models(
    export, query, gallery, other_model_folder, monkeypatch
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    before, asked = held(gallery), iter(range(9))

    def stop():
        if next(asked) == 1:
            reencode(gallery, other_model_folder)
        return False

    with pytest.raises(ArtifactMismatch, match="has codes of model"):
        export(stop=stop)
    assert table(query) == before[:100]


def test_a_table_of_another_gallery_is_refused(export, query, gallery, model_folder, tmp_path):
    other = GalleryFolder.create(tmp_path / "other", model_folder)
    add_image(other, other.encoder(), picture(1))
    export(of=other)
    with pytest.raises(ArtifactMismatch, match=r"is of another gallery .*--table, or drop this"):
        export()
    assert table(query) == held(other)
    other.close()


ROW = "bigint, uri text, label text, code bit(256), key bytea)"


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (f"CREATE TABLE {TABLE} (id {ROW}; INSERT INTO {TABLE} VALUES (1)", "has rows and was not"),
        (f"CREATE TABLE {TABLE} (id {ROW.replace('256', '128')}", r"lacks .*: code bit\(256\);"),
        (f"CREATE TABLE {TABLE} (name text)", r"lacks .*: id bigint, uri text, label text, code"),
        (f"CREATE VIEW {TABLE} AS SELECT 1 AS id", "is not a table"),
    ],
)
def test_what_is_no_export_is_never_touched(export, query, made, error):
    query(made)
    before = query(f"SELECT * FROM {TABLE}")
    with pytest.raises(ExportError, match=error):
        export()
    assert query(f"SELECT * FROM {TABLE}") == before


def test_an_empty_table_is_filled_whatever_it_held(export, query, gallery, other_model_folder):
    export()
    reencode(gallery, other_model_folder)
    query(f"TRUNCATE {TABLE}")
    assert export().written == 300
    assert table(query) == held(gallery)


def test_an_index_of_other_codes_or_of_some_rows_is_not_taken_for_the_index(export, query):
    query(f"CREATE TABLE {TABLE} (mine bit(256), id {ROW}")
    query(f"CREATE INDEX ON {TABLE} USING hnsw (mine bit_hamming_ops)")
    query(f"CREATE INDEX ON {TABLE} USING hnsw (code bit_hamming_ops) WHERE label = 'cat'")
    export(index="hnsw")
    assert query(
        f"SELECT indexname FROM pg_indexes WHERE tablename = '{TABLE}' "
        "AND indexdef LIKE '%USING hnsw (code bit_hamming_ops)'"
    )


def test_an_empty_table_with_more_columns_and_a_dropped_one_are_filled(export, query, gallery):
    query(f"CREATE TABLE {TABLE} (seen timestamptz DEFAULT now(), id {ROW}")
    export()
    assert table(query) == held(gallery)
    query(f"DROP TABLE {TABLE}")
    assert export().written == 300
    assert table(query) == held(gallery)


def test_a_table_of_a_later_format_is_left_alone(export, query):
    export()
    query(f"UPDATE {STATES} SET format = 9")
    with pytest.raises(ExportError, match="is of format 9; this version of hashsearch writes 1"):
        export()


def test_any_name_of_a_table_is_taken_as_it_is_written(export, query, gallery):
    remove(gallery.catalog, Selection(ids=range(30, 301)))
    for name in ("Bilder", 'a"b', "x; DROP TABLE y", "grün 图", "select", "%s {}", "a'b", "$1"):
        quoted = '"' + name.replace('"', '""') + '"'
        query(f"CREATE SCHEMA {quoted}")
        for whole, sql in ((name, f"public.{quoted}"), (f"{name}.{name}", f"{quoted}.{quoted}")):
            export(table=whole, index="hnsw")
            assert export(table=whole, index=None).written == 0
            assert table(query, sql) == held(gallery)
    assert export(table="bilder").written == 29


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a.b.c", "a\0b", "ü" * 32, "\udc80", STATES])
def test_what_is_no_name_of_a_table_is_refused(export, name):
    with pytest.raises(InvalidQuery, match=r"a table is named NAME or SCHEMA\.NAME|describes the"):
        export(table=name)


def test_a_schema_that_does_not_exist_is_an_error_in_a_sentence(export):
    with pytest.raises(ExportError, match=r'schema "nowhere" does not exist$'):
        export(table="nowhere.pictures")


def test_an_older_gallery_gets_an_identity_where_it_can_be_written_to(
    export, query, gallery, monkeypatch
):
    with gallery.catalog.transaction() as db:
        db.execute("DELETE FROM settings WHERE name = 'identity'")
    with monkeypatch.context() as patch:
        patch.setattr(opening, "_can_write", lambda path: False)
        locked = GalleryFolder(gallery.folder)
        with pytest.raises(GalleryReadOnly, match=r"lacks the identity .*export it once where it"):
            export(of=locked)
        locked.close()
    export()
    assert re.fullmatch("[0-9a-f]{32}", state(query)["gallery"])
    monkeypatch.setattr(opening, "_can_write", lambda path: False)
    locked = GalleryFolder(gallery.folder)
    assert export(of=locked).written == 0
    locked.close()


def test_passwords_are_found_where_postgresql_looks_for_them_and_never_shown(
    gallery, server, database, query, capsys, caplog, tmp_path, monkeypatch
):
    query(f"GRANT CREATE ON SCHEMA public TO {GUEST}")
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))

    def said(to: str) -> str:
        run("export", gallery.folder, "--to", to, "--index", "none")
        text = "".join(capsys.readouterr()) + caplog.text
        assert GUESTS_PASSWORD not in text
        assert quote(GUESTS_PASSWORD, safe="") not in text
        return text

    url, exported = f"postgresql://{GUEST}@/{database}", ", table public.hashsearch_images: 300 "
    assert "no password supplied" in said(url)
    assert "authentication failed" in said(url.replace("@", ":wrong@"))
    assert said(url.replace("@", f":{quote(GUESTS_PASSWORD, safe='')}@")).startswith(url + exported)
    (tmp_path / "passwords").write_text(f"*:*:*:{GUEST}:{GUESTS_PASSWORD}\n")
    (tmp_path / "passwords").chmod(0o600)
    assert said(url).startswith(url + exported)
    service = f"[pictures]\nuser={GUEST}\npassword={GUESTS_PASSWORD}\ndbname={database}\n"
    (tmp_path / "services").write_text(service)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    url = "postgresql:///?service=pictures"
    assert said(url).startswith(url + exported)


def test_a_url_that_is_given_as_the_gallery_is_not_shown(capsys):
    url = f"postgresql://guest:{GUESTS_PASSWORD}@home/x"
    assert run("export", url, "--to", "codes.parquet") == 1
    assert capsys.readouterr().err == (
        "hashsearch: a gallery is a folder; what was given as its path is a URL\n"
    )


def test_a_database_without_pgvector_is_exported_to_without_an_index(export, query, server):
    query("DROP EXTENSION vector")
    query(f"GRANT CREATE ON SCHEMA public TO {GUEST}")
    name = query("SELECT current_database()")[0][0]
    as_guest = server.url(name, f"{GUEST}:{quote(GUESTS_PASSWORD, safe='')}")
    with pytest.raises(
        ExportError, match=r"an administrator runs CREATE EXTENSION vector, or --in"
    ):
        export(to=as_guest, index="hnsw")
    assert query(f"SELECT to_regclass('{TABLE}')") == [(None,)]
    export(to=as_guest)
    ((nearest,),) = query(
        f"SELECT array_agg(id ORDER BY bit_count(code # q), id) FROM {TABLE}, "
        f"(SELECT code AS q FROM {TABLE} WHERE id = 7)"
    )
    assert nearest[0] == 7
    export(index="hnsw")  # by a user who may add the extension
    assert query("SELECT extname FROM pg_extension WHERE extname = 'vector'")


def test_a_user_who_may_not_write_is_told_so(export, server, database):
    url = server.url(database, f"{GUEST}:{quote(GUESTS_PASSWORD, safe='')}")
    with pytest.raises(ExportError) as raised:
        export(to=url)
    assert str(raised.value) == (
        f"postgresql://guest@/{database}?host={server.folder}: permission denied for schema "
        "public; grant it to this user"
    )


def test_a_server_that_does_not_answer_is_named(export, tmp_path):
    with pytest.raises(
        ExportError, match=r"^postgresql://x@/y\?host=/nowhere: connection is bad: "
    ):
        export(to="postgresql://x@/y?host=/nowhere")


def test_the_command_says_what_it_did_and_continues_when_stopped(
    query, server, database, gallery, capsys, monkeypatch
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 100)
    url = server.url(database)
    with monkeypatch.context() as patch:
        patch.setattr(command, "stop_requested", lambda: nullcontext(stop_after(1)))
        assert run("export", gallery.folder, "--to", url, "--table", "pictures") == 130
    assert capsys.readouterr().err.endswith(
        "stopped; what was committed is safe, and the same command continues\n"
    )
    assert run("export", gallery.folder, "--to", url, "--table", "pictures", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("seconds") >= 0
    assert answer == {
        "to": url,
        "table": "public.pictures",
        "images": 300,
        "written": 200,
        "removed": 0,
        "generation": 1,
        "fingerprint": gallery.fingerprint,
        "stopped": False,
        "remarks": [],
    }
    assert run("export", gallery.folder, "--to", url, "--table", "pictures") == 0
    line = f"{url}, table public.pictures: 300 images of generation 1; 0 written, 0 removed, in "
    assert capsys.readouterr().out.startswith(line)


def test_a_dropped_extension_is_added_again_with_the_index(export, query, gallery):
    export(index="hnsw")
    query("DROP EXTENSION vector CASCADE")
    assert export(index=None).written == 0
    assert query(f"SELECT 1 FROM pg_indexes WHERE tablename = '{TABLE}' AND indexdef ~ 'hnsw'")


def test_memory_that_is_too_small_for_an_index_is_named(export, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c maintenance_work_mem=64kB")
    with pytest.raises(ExportError) as raised:
        export(index="ivfflat")
    assert re.fullmatch(
        r"the ivfflat index cannot be built: memory required is \d+ MB, maintenance_work_mem is "
        r"\d+ MB; set more before the command: PGOPTIONS='-c maintenance_work_mem=2GB'",
        str(raised.value),
    )


def test_what_the_database_remarks_on_an_index_is_passed_on(
    server, database, gallery, capsys, monkeypatch
):
    monkeypatch.setenv("PGOPTIONS", "-c maintenance_work_mem=64kB")
    assert run("export", gallery.folder, "--to", server.url(database)) == 0
    assert re.search(
        r"^hnsw graph no longer fits into maintenance_work_mem after \d+ tuples; Increase",
        capsys.readouterr().err,
        re.MULTILINE,
    )


def blocks(language: str) -> list[str]:
    """The blocks of a language in docs/export.md, below the heading PostgreSQL."""
    part = DOCS.partition("## PostgreSQL")[2]
    return re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)


def test_the_documented_searches_are_right(export, query, gallery):
    export(index="hnsw")
    nearest, of_stored, exact, settings, *_ = blocks("sql")
    (shown,) = set(re.findall(r"[0-9a-f]{64}", nearest))
    code = gallery.code(9)
    with hs.open(gallery.folder) as opened:
        by_code, by_id = opened.search(code), opened.search(7)
    found = query(settings + nearest.replace(shown, code.tobytes().hex()))
    assert [row[1] for row in found] == [hit.distance for hit in by_code]
    assert found[0] == (9, 0.0, gallery.catalog.record(9).label, gallery.catalog.record(9).uri)
    assert [row[1] for row in query(settings + of_stored)] == [hit.distance for hit in by_id]
    query(f"ANALYZE {TABLE}")
    for number in (9, 77, 250):
        code = gallery.code(number)
        found = query("SET enable_seqscan = off;" + exact.replace(shown, code.tobytes().hex()))
        with hs.open(gallery.folder) as opened:
            hits = opened.search(code, k=10)
        assert [row[:2] for row in found] == [(hit.id, hit.distance) for hit in hits]
    prepared = "SELECT ('x' || '" + code.tobytes().hex() + "')::bit(256)"
    assert query(f"SELECT id FROM {TABLE} WHERE code = ({prepared})") == [(250,)]


# Prints the plans of all statements.
EXPLAINING = (
    "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 "
    "-c auto_explain.log_verbose=on -c client_min_messages=log"
)


def test_the_documented_partitions_over_two_servers_find_the_nearest(
    export, query, gallery, server, database, monkeypatch
):
    there, here, index = blocks("sql")[4:]
    with running_server() as other:
        other.execute(there)
        mapped = here.replace("db2.example", str(other.folder)).replace("'pictures'", "'postgres'")
        query("DROP EXTENSION vector")
        query(mapped.replace("user 'me'", "user 'postgres'"))
        export(index="hnsw")
        other.execute(index)
        shares = (
            query("SELECT count(*) FROM images_0"),
            other.execute("SELECT count(*) FROM images_1"),
        )
        assert min(shares) > [(100,)]
        remove(gallery.catalog, Selection(ids=list(range(20, 60))))
        add_image(gallery, gallery.encoder(), picture(1), "new")
        relabel(gallery, range(100, 130))  # on both servers
        monkeypatch.setenv("PGOPTIONS", EXPLAINING)
        summary = export(index=None)
        assert (summary.written, summary.removed) == (31, 40)
        asked = re.findall("Remote SQL: SELECT (.*)", "\n".join(summary.remarks))
        whole = ["NULL FROM public.images_1", "count(*) FROM public.images_1"]  # is it empty?
        assert [one for one in asked if "WHERE ((id = ANY" not in one] == whole
        assert table(query) == held(gallery)
        query("ANALYZE hashsearch_images")
        order = f"ORDER BY code <~> {bits(gallery, 7)} LIMIT 10"
        found = query(f"SELECT id, (code <~> {bits(gallery, 7)})::int FROM {TABLE} {order}")
        with hs.open(gallery.folder) as opened:
            hits = opened.search(gallery.code(7))
        assert [distance for _, distance in found] == [hit.distance for hit in hits]
        plan = str(query(f"EXPLAIN VERBOSE SELECT id FROM {TABLE} {order}"))
        assert "Merge Append" in plan
        assert re.search(r"Remote SQL: .* ORDER BY \(code OPERATOR\(public\.<~>\)", plan)


def test_the_documented_commands_say_what_they_are_shown_to_say(
    server, gallery, tmp_path, monkeypatch, capsys
):
    """With other numbers, and another server and database."""
    monkeypatch.chdir(gallery.folder.parent)
    block = re.search(r"```console\n(.*?)```", DOCS, re.DOTALL)[1]
    shown = "postgresql://me@db.example/pictures"
    url = server.url(server.new_database())
    for command_line, said in re.findall(r"^\$ hashsearch (.*)\n(.*)$", block, re.MULTILINE):
        assert run(*command_line.replace(shown, url).split()) == 0
        found = capsys.readouterr().out.replace(url, shown).rstrip("\n")
        assert re.sub(r"\d[\d.]*", "N", found) == re.sub(r"\d[\d.]*", "N", said)
