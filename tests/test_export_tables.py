"""Tables of exports in real PostgreSQL: which are written to, their indexes, and the docs."""

import re
from urllib.parse import quote

import numpy as np
import pytest

import hashsearch as hs
from hashsearch.errors import ExportError, InvalidQuery
from hashsearch.exports.state import STATES
from hashsearch.exports.table import parsed_name
from hashsearch.gallery.changes import Selection
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from tests.exports import (
    DOCS,
    TABLE,
    bits,
    documented_sql,
    held,
    make_partitions,
    picture,
    relabel,
    table,
)
from tests.galleries import run
from tests.postgres import GUEST, GUESTS_PASSWORD, running_server


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


def test_a_table_that_was_emptied_or_made_again_is_filled(
    export, query, gallery, other_model_folder
):
    export()
    reencode(gallery, other_model_folder)
    query(f"TRUNCATE {TABLE}")
    assert export().written == 300  # though it was of another model
    assert table(query) == held(gallery)
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


ROW = "bigint, uri text, label text, code bit(256), key bytea)"


def test_what_is_no_export_is_never_touched(export, query):
    for made, error in (
        (f"TABLE a (id {ROW}; INSERT INTO a VALUES (1)", "has rows and was not"),
        (f"TABLE b (id {ROW.replace('256', '128')}", r"lacks .*: code bit\(256\);"),
        ("TABLE c (name text)", r"lacks .*: id bigint, uri text, label text, code"),
        ("VIEW d AS SELECT 1 AS id", "is not a table"),
    ):
        query(f"CREATE {made}")
        name = made.split()[1]
        before = query(f"SELECT * FROM {name}")
        with pytest.raises(ExportError, match=error):
            export(table=name)
        assert query(f"SELECT * FROM {name}") == before


def test_an_index_of_other_codes_or_of_some_rows_is_not_taken_for_the_index(export, query):
    query(f"CREATE TABLE {TABLE} (mine bit(256), id {ROW}")
    query(f"CREATE INDEX ON {TABLE} USING hnsw (mine bit_hamming_ops)")
    query(f"CREATE INDEX ON {TABLE} USING hnsw (code bit_hamming_ops) WHERE label = 'cat'")
    export(index="hnsw")
    assert query(
        f"SELECT indexname FROM pg_indexes WHERE tablename = '{TABLE}' "
        "AND indexdef LIKE '%USING hnsw (code bit_hamming_ops)'"
    )


def test_an_empty_table_with_more_columns_is_filled(export, query, gallery):
    query(f"CREATE TABLE {TABLE} (seen timestamptz DEFAULT now(), id {ROW}")
    export()
    assert table(query) == held(gallery)


def test_a_table_of_a_later_format_or_in_no_schema_is_refused(export, query):
    with pytest.raises(ExportError, match=r'schema "nowhere" does not exist$'):
        export(table=f"nowhere.{TABLE}")
    export()
    query(f"UPDATE {STATES} SET format = 9")
    with pytest.raises(ExportError, match="is of format 9; this version of hashsearch writes 1"):
        export()


def test_any_name_of_a_table_is_taken_as_it_is_written(export, query, gallery):
    remove(gallery.catalog, Selection(ids=range(30, 301)))
    for name in ("Select", 'a"b; DROP TABLE y', "grün 图 %s {} a'b $1"):
        quoted = '"' + name.replace('"', '""') + '"'
        query(f"CREATE SCHEMA {quoted}")
        for whole, sql in ((name, f"public.{quoted}"), (f"{name}.{name}", f"{quoted}.{quoted}")):
            export(table=whole, index="hnsw")
            assert export(table=whole, index=None).written == 0
            assert table(query, sql) == held(gallery)
    assert export(table="select").written == 29


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a.b.c", "a\0b", "ü" * 32, "\udc80", STATES])
def test_what_is_no_name_of_a_table_is_refused(name):
    with pytest.raises(InvalidQuery, match=r"a table is named NAME or SCHEMA\.NAME|describes the"):
        parsed_name(name)


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


def test_an_index_can_get_new_lists_while_the_table_is_searched(export, query, gallery):
    export(index="ivfflat")
    for statement in documented_sql("ALTER INDEX").splitlines():  # not in one transaction
        query(statement)
    assert query(f"SELECT reloptions FROM pg_class WHERE oid = '{TABLE}_code_idx'::regclass") == [
        (["lists=2000"],)
    ]
    nearest = f"SELECT id FROM {TABLE} ORDER BY code <~> {bits(gallery, 7)} LIMIT 1"
    assert query(f"SET enable_seqscan = off; SET ivfflat.probes = 2000; {nearest}") == [(7,)]
    export(index=None)
    assert query(f"SELECT count(*) FROM pg_indexes WHERE tablename = '{TABLE}'") == [(2,)]


def test_an_index_of_another_kind_stays_beside_the_new_one(export, query):
    """Under the names that docs/export.md gives them."""
    for kind in ("hnsw", "ivfflat", "hnsw"):
        export(index=kind)
    kinds = "SELECT indexname, indexdef FROM pg_indexes WHERE indexdef ~ ' USING (hnsw|ivf)'"
    assert {name: re.findall("USING ([a-z]+)", made) for name, made in query(kinds)} == {
        f"{TABLE}_code_idx": ["hnsw"],
        f"{TABLE}_code_idx1": ["ivfflat"],
    }


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


def test_the_documented_searches_are_right(export, query, gallery):
    export(index="hnsw")
    nearest, of_stored = (
        documented_sql("SELECT id, code <~> x"),
        documented_sql("SELECT id, code <~> ("),
    )
    settings = documented_sql("SET")
    (shown,) = set(re.findall(r"[0-9a-f]{64}", nearest))
    code = gallery.code(9)
    with hs.open(gallery.folder) as opened:
        by_code, by_id = opened.search(code), opened.search(7)
    found = query(settings + nearest.replace(shown, code.tobytes().hex()))
    assert [row[1] for row in found] == [hit.distance for hit in by_code]
    assert found[0] == (9, 0.0, gallery.catalog.record(9).label, gallery.catalog.record(9).uri)
    assert [row[1] for row in query(settings + of_stored)] == [hit.distance for hit in by_id]
    prepared = "SELECT ('x' || '" + code.tobytes().hex() + "')::bit(256)"
    assert query(f"SELECT id FROM {TABLE} WHERE code = ({prepared})") == [(9,)]


def test_the_documented_exact_search_is_exact_where_postgresql_prefers_the_index(export, query):
    export()
    query(  # so many rows that an index is worth it
        f"INSERT INTO {TABLE} SELECT 1000 + n, 'x', NULL, "
        f"('x' || md5(n::text) || md5('y' || n))::bit(256), '' FROM generate_series(1, 900) n"
    )
    export(index="hnsw")
    query(f"ANALYZE {TABLE}")
    nearest, exact = (
        documented_sql("SELECT id, code <~> x"),
        documented_sql("SELECT id, bit_count(code #"),
    )
    assert f"Index Scan using {TABLE}_code_idx" in str(query(f"EXPLAIN {nearest}"))
    wanted = np.frombuffer(bytes.fromhex(re.findall(r"[0-9a-f]{64}", exact)[0]), np.uint8)
    distances = sorted(
        (int(np.bitwise_count(np.frombuffer(code, np.uint8) ^ wanted).sum()), number)
        for number, _, _, code, _ in table(query)
    )
    assert [(distance, number) for number, distance, *_ in query(exact)] == distances[:10]


# Prints the plans of all statements.
EXPLAINING = (
    "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 "
    "-c auto_explain.log_verbose=on -c client_min_messages=log"
)


def test_the_documented_partitions_over_two_servers_find_the_nearest(
    export, query, gallery, server, monkeypatch
):
    with running_server(like=server) as other:
        make_partitions(query, other)
        export(index="hnsw")
        other.execute(documented_sql("CREATE INDEX"))
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
