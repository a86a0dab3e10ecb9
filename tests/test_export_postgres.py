"""Exports to real PostgreSQL with pgvector, compared with the gallery, whatever happens to both."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import psycopg
import pytest

from hashsearch.commands import export as command
from hashsearch.errors import ArtifactMismatch, ExportError, GalleryReadOnly
from hashsearch.exports import postgres
from hashsearch.gallery import opening
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from tests.exports import (
    TABLE,
    documented_sql,
    held,
    picture,
    relabel,
    rows_in_memory,
    state,
    stop_after,
    table,
)
from tests.galleries import damage, ids, run
from tests.lives import Life


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


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 9))]
)
def test_whatever_happened_the_next_export_brings_the_table_up_to_date(
    export, query, gallery, model_folder, other_model_folder, monkeypatch, seed
):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 10)
    remove(gallery.catalog, Selection(ids=ids(gallery)[40:]))
    life = Life(gallery, query, [model_folder, other_model_folder], seed)
    for _ in range(10):
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


def test_a_change_keeps_further_columns_and_rows_and_what_refers_to_them(export, query, gallery):
    export()
    mine = f"INSERT INTO {TABLE} SELECT 1000 + id, uri, 'mine', code, key FROM {TABLE} LIMIT 1;"
    query(
        f"{mine} ALTER TABLE {TABLE} ADD seen boolean; UPDATE {TABLE} SET seen = true; "
        f"CREATE TABLE notes (image bigint REFERENCES {TABLE} ON DELETE CASCADE); "
        "INSERT INTO notes VALUES (7), (8), (9)"
    )
    relabel(gallery, [7, 8])
    remove(gallery.catalog, Selection(ids=[9]))
    summary = export()
    assert (summary.written, summary.removed) == (2, 1)
    assert table(query)[:-1] == held(gallery)
    assert query(f"SELECT label FROM {TABLE} WHERE id > 1000") == [("mine",)]
    assert query(f"SELECT count(*) FROM {TABLE} WHERE seen") == [(300,)]
    assert query("SELECT image FROM notes ORDER BY image") == [(7,), (8,)]


@pytest.mark.parametrize("why", ["compact", "the mark was taken away"])
def test_a_comparison_of_all_rows_deletes_those_that_the_gallery_lacks_and_undoes_edits(
    export, query, gallery, why
):
    export()
    query(
        f"ALTER TABLE {TABLE} ADD seen boolean; UPDATE {TABLE} SET seen = true; "
        f"INSERT INTO {TABLE} SELECT 1000, uri, label, code, key, true FROM {TABLE} WHERE id = 1; "
        f"UPDATE {TABLE} SET label = 'mine' WHERE id = 2; DELETE FROM {TABLE} WHERE id = 3"
    )
    if why == "compact":
        remove(gallery.catalog, Selection(ids=[9]))
        compact(gallery)
    else:
        query(documented_sql("UPDATE hashsearch_exports SET mark"))
    removed = 1 + (why == "compact")
    summary = export()
    assert (summary.written, summary.removed) == (2, removed)
    assert table(query) == held(gallery)
    assert query(f"SELECT count(*) FROM {TABLE} WHERE seen") == [(301 - 1 - removed,)]


def test_a_table_that_was_restored_from_a_dump_can_be_adopted(export, query, gallery):
    export()
    query(f"CREATE TABLE other (LIKE {TABLE} INCLUDING ALL); INSERT INTO other TABLE {TABLE}")
    relabel(gallery, [7, 8])
    export()
    query(f"DROP TABLE {TABLE}; ALTER TABLE other RENAME TO {TABLE}")
    with pytest.raises(ExportError, match="has rows and was not made by an export"):
        export()
    query(documented_sql("UPDATE hashsearch_exports SET relation"))
    assert export().written == 2
    assert table(query) == held(gallery)


def test_two_chunks_of_rows_at_most_are_in_memory(export, monkeypatch):
    monkeypatch.setattr(postgres, "CHUNK_ROWS", 30)
    asked, found = iter(range(99)), []

    def stop():
        if next(asked) == 9:
            found.append(rows_in_memory())
        return False

    assert export(stop=stop).written == 300
    assert found[0] in (30, 60)


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


def test_a_killed_export_leaves_whole_chunks_and_continues(export, gallery, server):
    killed = """
import os, signal, sys
from pathlib import Path
from hashsearch.exports import postgres
from hashsearch.exports.table import Table
from hashsearch.exports.targets import ExportOptions
from hashsearch.gallery.gallery_folder import GalleryFolder
folder, *urls = sys.argv[1:]
postgres.CHUNK_ROWS = 90
def die_at_third_call(place, name):
    original, calls = getattr(place, name), []
    def replaced(*arguments):
        done = original(*arguments)
        calls.append(1)
        if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(place, name, replaced)
for url, place, name in zip(urls, (Table, postgres), ("put", "rows_after")):
    process = os.fork()
    if not process:
        die_at_third_call(place, name)
        options = ExportOptions(False, None, "hnsw", lambda: False)
        postgres.export_to_postgres(GalleryFolder(Path(folder)), url, options)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
"""
    databases = [server.new_database(), server.new_database()]  # before a commit, and after one
    program = [sys.executable, "-c", killed, gallery.folder, *map(server.url, databases)]
    subprocess.run(program, check=True)
    for database in databases:
        query = partial(server.execute, database=database)
        assert [row[0] for row in table(query)] == list(range(1, 181))
        assert state(query)["loaded"] == 180
        for _ in range(200):  # until the server has seen that the other end is gone
            if not query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
                break
            time.sleep(0.05)
        summary = export(to=server.url(database), index=None)
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
