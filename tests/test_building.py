"""Building indexes of a gallery, and what is stored of them."""

import json
import shutil
import sqlite3
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import GalleryBusy, InvalidGallery, InvalidQuery
from hashsearch.gallery import built as stored_indexes
from hashsearch.gallery.built import (
    built_index,
    built_indexes,
    damaged_indexes,
    load,
    recorded_kinds,
)
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.jobs import building
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.building import build_index, buildable, drop_index
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from hashsearch.models.card import PRETRAINED
from hashsearch.retrieval.kinds import KINDS
from hashsearch.search import Index
from hashsearch.search.exact import ExactIndex
from hashsearch.search.ivf import assign
from tests.galleries import another_png, damage, run, run_killed


def loaded(gallery: GalleryFolder, kind: str = "ivf"):
    rows = gallery.catalog.rows()
    found = load(gallery.folder, gallery.catalog, kind, rows.fingerprint, rows.ids)
    assert found is not None
    return found


def opened(gallery: GalleryFolder, nprobe: int | None = None) -> tuple[Index, np.ndarray]:
    """The stored index as a searcher builds it, and the gallery's codes."""
    built, arrays = loaded(gallery)
    codes = gallery.column("codes", gallery.catalog.rows())
    parameters = built.parameters | ({"nprobe": nprobe} if nprobe else {})
    return KINDS["ivf"].build({"codes": codes}, arrays, parameters, ExactIndex(codes)), codes


def names(gallery: GalleryFolder) -> set[str]:
    return {path.name for path in (gallery.folder / "indexes").iterdir()}


def named(gallery: GalleryFolder) -> set[str]:
    records = built_indexes(gallery.catalog).values()
    return {file.name for built in records for file in built.files.values()}


def test_what_is_measured_is_recorded(gallery):
    generation = gallery.catalog.generation()
    built = build_index(gallery, "ivf", 0.9)
    assert built_indexes(gallery.catalog) == {"ivf": built}
    assert (built.images, built.generation, built.wanted_recall) == (300, generation, 0.9)
    assert (built.fingerprint, built.by_image) == (gallery.fingerprint, ["lists"])
    assert 0.75 <= built.recall <= 1
    assert 40 < built.image_bytes < 50
    assert min(built.query_ms, built.exact_ms, built.build_seconds) > 0
    index, codes = opened(gallery)
    assert index.lists.nprobe == built.parameters["nprobe"]
    near = ExactIndex(codes).search(codes, 11)[1]
    found = index.search(codes, 11)[1]
    assert (found[:, 1:] <= near[:, 10:]).mean() == pytest.approx(built.recall, abs=0.1)
    job = last_job(gallery.catalog)
    assert (job.kind, job.state) == ("build", "done")
    assert gallery.catalog.generation() == generation


def test_visiting_all_lists_of_a_stored_index_is_exact_search(gallery):
    build_index(gallery, "ivf")
    lists = len(loaded(gallery)[1]["centroids"])
    index, codes = opened(gallery, nprobe=lists)
    for found, expected in zip(
        index.search(codes, 12), ExactIndex(codes).search(codes, 12), strict=True
    ):
        assert_array_equal(found, expected)


def test_a_kind_that_stores_nothing_is_only_measured(gallery):
    built = build_index(gallery, "exact")
    assert (built.recall, built.files, built.parameters) == (1.0, {}, {})
    assert loaded(gallery, "exact") == (built, {})


def test_building_twice_stores_the_same_and_leaves_no_earlier_files(gallery):
    first = build_index(gallery, "ivf").files
    assert names(gallery) == {file.name for file in first.values()}
    assert build_index(gallery, "ivf").files == first
    remove(gallery.catalog, Selection(ids=[5, 9]))
    again = build_index(gallery, "ivf").files
    assert again != first
    assert names(gallery) == {file.name for file in again.values()}


def test_images_added_later_are_assigned_and_removed_ones_ignored(gallery):
    build_index(gallery, "ivf")
    before = dict(
        zip(gallery.catalog.rows().ids.tolist(), loaded(gallery)[1]["lists"], strict=True)
    )
    remove(gallery.catalog, Selection(ids=[1, 17, 300]))
    added, _ = add_image(gallery, gallery.encoder(), another_png())
    compact(gallery)  # moves rows, not ids
    _, arrays = loaded(gallery)
    ids = gallery.catalog.rows().ids.tolist()
    assert [before.get(one, -1) for one in ids] == arrays["lists"].tolist()
    assert arrays["lists"][ids.index(added)] == -1
    index, codes = opened(gallery)
    new = codes[ids.index(added)]
    assert len(index) == 298
    assert index.search(new[np.newaxis], 1)[0].tolist() == [[ids.index(added)]]
    index, codes = opened(gallery, nprobe=1)
    own = assign(codes, arrays["centroids"])
    in_own = np.flatnonzero(own == own[ids.index(added)])
    assert set(index.search_radius(new, 256)[0]) == set(in_own)


def test_an_index_of_another_model_is_not_used_and_can_be_built_again(
    gallery, other_model_folder, capsys
):
    earlier = build_index(gallery, "ivf")
    reencode(gallery, other_model_folder)
    rows = gallery.catalog.rows()
    assert load(gallery.folder, gallery.catalog, "ivf", rows.fingerprint, rows.ids) is None
    assert names(gallery) == set()
    assert run("gallery", "info", gallery.folder) == 0
    again = f"hashsearch gallery build {gallery.folder} --kind ivf"
    out = capsys.readouterr().out
    assert f"built for another model; to build it again: {again}" in out
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 0
    capsys.readouterr()
    assert run("gallery", "build", gallery.folder, "--kind", "ivf") == 0
    assert loaded(gallery)[0].fingerprint == gallery.fingerprint != earlier.fingerprint
    assert run("gallery", "info", gallery.folder) == 0
    assert "built for another model" not in capsys.readouterr().out


@pytest.mark.parametrize("which", ["centroids", "lists", "ids"])
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_a_damaged_file_is_found_named_and_repaired(which, how, gallery, capsys):
    file = build_index(gallery, "ivf").files[which]
    path = gallery.folder / "indexes" / file.name
    if how == "changed":
        damage(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    command = f"hashsearch gallery build {gallery.folder} --kind ivf"
    with pytest.raises(InvalidGallery) as caught:
        loaded(gallery)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(f"; to repair it: {command}")
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 1
    output = capsys.readouterr().out
    state = "is missing" if how == "missing" else "differs from what was stored"
    assert f"{path} {state}\n  to repair it: {command}" in output
    assert run("gallery", "build", gallery.folder, "--kind", "ivf") == 0
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 0
    loaded(gallery)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def header_of(kind: str, shape: object) -> bytes:
    return header(f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (header_of("|u1", (10**15,)) + bytes(64), "does not fit the 64 bytes that follow"),
        (header_of("|u1", (2**40, 2**40)) + bytes(64), "does not fit"),
        (header_of("|u1", (0, 10**30)), ""),
        (header_of("|u1", (-8, -8)) + bytes(64), "does not fit"),
        (header_of("|u1", (63,)) + bytes(64), "does not fit"),
        (header_of("|O", (8,)) + bytes(64), "it holds object, and not numbers"),
        (header_of("|V0", (10**15,)), "not numbers"),
        (header_of("|u1", "{[]: 1}"), "its header is damaged"),
        (header("(" * 9000), "its header is damaged"),
        (b"\x93NUMPY\x09\x00", "its header is damaged"),
        (b"", "its header is damaged"),
    ],
)
def test_a_hostile_file_is_refused_before_memory_is_spent(data, why, gallery):
    """Even if the catalog vouches for it. Arrays with objects are never unpickled."""
    build_index(gallery, "ivf")
    entries = record(gallery)
    (gallery.folder / "indexes" / entries["files"]["centroids"]["name"]).write_bytes(data)
    entries["files"]["centroids"] |= {"size": len(data), "sha256": sha256(data).hexdigest()}
    write_record(gallery, entries)
    with pytest.raises(InvalidGallery, match=rf"cannot be read: .*{why}"):
        loaded(gallery)


def record(gallery: GalleryFolder, kind: str = "ivf") -> dict:
    return json.loads(gallery.catalog.setting(f"index:{kind}"))


def write_record(gallery: GalleryFolder, entries: object, kind: str = "ivf") -> None:
    text = entries if isinstance(entries, str) else json.dumps(entries)
    with gallery.catalog.transaction() as db:
        db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (f"index:{kind}", text))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "5", "[" * 100_000, '{"files": {"ids": {"name": "../x"}}}']
)
def test_a_damaged_record_is_named_and_repaired(text, gallery, capsys):
    build_index(gallery, "ivf")
    multihash = build_index(gallery, "multihash")
    write_record(gallery, text)
    sentence = "the catalog's record of the index ivf is damaged"
    with pytest.raises(InvalidGallery, match=sentence):
        built_index(gallery.catalog, "ivf")
    with pytest.raises(InvalidGallery, match=sentence):
        loaded(gallery)
    assert damaged_indexes(gallery.catalog) == ["ivf"]
    assert built_indexes(gallery.catalog) == {"multihash": multihash}
    assert loaded(gallery, "multihash") == (multihash, {})
    again = f"hashsearch gallery build {gallery.folder} --kind ivf"
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 1
    assert f"{sentence}\n  to repair it: {again}" in capsys.readouterr().out
    assert run("gallery", "info", gallery.folder) == 0
    output = capsys.readouterr().out
    assert f"its record is damaged; to build it again: {again}; to delete it, add --drop" in output
    assert run("gallery", "info", gallery.folder, "--json") == 0
    indexes = json.loads(capsys.readouterr().out)["indexes"]
    assert indexes["ivf"] == {"title": KINDS["ivf"].title, "usable": False, "damaged": True}
    assert (indexes["multihash"]["usable"], indexes["multihash"]["damaged"]) == (True, False)
    build_index(gallery, "ivf")
    assert damaged_indexes(gallery.catalog) == []
    assert names(gallery) == named(gallery)
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": None},
        {"parameters": {"nprobe": "x"}},
        {"parameters": {"nprobe": True}},
        {"parameters": {"nprobe": 1.5}},
        {"parameters": {"nprobe": -1}},
        {"parameters": {"\x1b[2J": 1}},
        {"by_image": 5},
        {"by_image": ["other"]},
        {"files": []},
        {"recall": "x"},
        {"recall": 1.01},
        {"wanted_recall": float("nan")},
        {"query_ms": float("inf")},
        {"exact_ms": -1},
        {"build_seconds": 10**400},
        {"image_bytes": None},
        {"images": 2**63},
        {"generation": -1},
        {"time": "yesterday"},
        {"fingerprint": 7},
    ],
    ids=str,
)
def test_a_record_with_a_wrong_value_is_damaged(changes, gallery):
    build_index(gallery, "ivf")
    write_record(gallery, record(gallery) | changes)
    with pytest.raises(InvalidGallery, match="record of the index ivf is damaged; to build it"):
        built_index(gallery.catalog, "ivf")
    assert damaged_indexes(gallery.catalog) == ["ivf"]


def test_fields_of_a_later_version_are_ignored(gallery):
    built = build_index(gallery, "ivf")
    entries = record(gallery)
    entries["files"]["ids"]["codec"] = "zstd"
    write_record(gallery, entries | {"seed": 3, "recall": 1})
    assert loaded(gallery)[0] == replace(built, recall=1.0)


def test_a_kind_of_a_later_version_is_shown_kept_and_dropped(gallery, capsys):
    build_index(gallery, "exact")
    write_record(gallery, record(gallery, "exact"), "tree")
    write_record(gallery, "{}", "wood")
    assert damaged_indexes(gallery.catalog) == ["wood"]
    assert run("gallery", "info", gallery.folder) == 0
    output = capsys.readouterr().out
    for kind in ("tree", "wood"):
        drop = f"hashsearch gallery build {gallery.folder} --kind {kind} --drop"
        assert f"not known to this version of hashsearch; to delete it: {drop}" in output
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 1
    assert f"to repair it: {drop}" in capsys.readouterr().out
    assert run("gallery", "build", gallery.folder, "--kind", "wood", "--drop") == 0
    assert "dropped wood" in capsys.readouterr().out
    assert recorded_kinds(gallery.catalog) == ["exact", "tree"]
    assert run("gallery", "build", gallery.folder, "--drop") == 0
    assert recorded_kinds(gallery.catalog) == []
    assert run("gallery", "build", gallery.folder, "--kind", "tree", "--drop") != 0
    assert "there is no index 'tree'" in capsys.readouterr().err


def test_files_of_a_damaged_record_are_kept_only_while_they_may_be_of_use(
    gallery, other_model_folder
):
    build_index(gallery, "ivf")
    entries = record(gallery)
    folder = gallery.folder / "indexes"
    of_it = names(gallery)
    orphans = ("ivf-lists-0123456789abcdef.npy", ".ivf-lists")

    def after_a_job() -> set[str]:
        for name in orphans:
            (folder / name).touch()
        compact(gallery)
        return names(gallery)

    assert after_a_job() == of_it
    later = entries | {"recall": {"at 10": 0.9}}  # as a later version might write it
    write_record(gallery, later)
    assert damaged_indexes(gallery.catalog) == ["ivf"]
    assert after_a_job() == of_it
    assert drop_index(gallery, "ivf")
    assert names(gallery) == set()
    build_index(gallery, "ivf")
    write_record(gallery, later)
    reencode(gallery, other_model_folder)
    assert names(gallery) == set()
    build_index(gallery, "ivf")
    write_record(gallery, "{}")  # names no file
    assert after_a_job() == set()


def test_a_record_may_not_name_files_elsewhere(gallery):
    build_index(gallery, "ivf")
    entries = record(gallery)
    entries["files"]["lists"]["name"] = "../catalog.sqlite"
    write_record(gallery, entries)
    with pytest.raises(InvalidGallery, match="is damaged"):
        loaded(gallery)


@pytest.mark.parametrize(
    ("point", "is_stored"),
    [
        (("hashsearch.gallery.built", "_write", "after", "1"), False),
        (("hashsearch.gallery.built", "_write", "after", "3"), False),
        (("hashsearch.gallery.built", "drop_unnamed", "before", "1"), True),
    ],
)
def test_a_killed_build_leaves_the_gallery_whole(point, is_stored, gallery):
    earlier = build_index(gallery, "ivf", 0.5)
    remove(gallery.catalog, Selection(ids=[5, 9]))
    run_killed("build", "ivf", gallery, *point)
    built, arrays = loaded(gallery)
    assert (built != earlier) == is_stored
    assert len(arrays["lists"]) == 298
    assert run("gallery", "verify", gallery.folder, "--sample", 0) == 0
    compact(gallery)  # any job deletes what a killed one left
    assert names(gallery) == named(gallery)
    assert last_job(gallery.catalog).kind == "compact"


def test_an_interrupted_build_keeps_the_earlier_index(gallery, monkeypatch):
    earlier = build_index(gallery, "ivf")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored_indexes, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(gallery, "ivf")
    assert loaded(gallery)[0] == earlier
    assert last_job(gallery.catalog).state == "stopped"


def test_a_reader_whose_files_are_replaced_reads_the_new_ones(gallery, monkeypatch):
    build_index(gallery, "ivf")
    read = stored_indexes._array
    calls = []

    def replaced_meanwhile(*arguments):
        if not calls:
            calls.append(1)
            remove(gallery.catalog, Selection(ids=[3]))
            build_index(gallery, "ivf")
        return read(*arguments)

    monkeypatch.setattr(stored_indexes, "_array", replaced_meanwhile)
    assert loaded(gallery)[0].images == 299


def test_the_command_builds_shows_and_drops(gallery, capsys):
    assert buildable(gallery) == [
        name for name, kind in KINDS.items() if set(kind.columns) <= {"codes"}
    ]
    assert run("gallery", "build", gallery.folder, "--recall", "0.9") == 0
    output = capsys.readouterr().out
    assert "exact: recall@10 1.000, " in output
    assert "ms; 4" in output
    assert run("gallery", "info", gallery.folder) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    built = built_indexes(gallery.catalog)["ivf"]
    expected = f"recall@10 {built.recall:.3f} at nprobe {built.parameters['nprobe']}, "
    assert expected in lines["index ivf"]
    assert lines["index ivf"].endswith("bytes an image; built of 300 images")
    assert "indexes " in lines["on disk"]
    assert run("gallery", "info", gallery.folder, "--json") == 0
    ivf = json.loads(capsys.readouterr().out)["indexes"]["ivf"]
    assert (ivf["title"], ivf["usable"]) == (KINDS["ivf"].title, True)
    assert (ivf["recall"], ivf["wanted_recall"], ivf["images"]) == (built.recall, 0.9, 300)
    assert ivf["stored_bytes"] == sum(
        path.stat().st_size for path in (gallery.folder / "indexes").iterdir()
    )
    assert run("gallery", "build", gallery.folder, "--kind", "ivf", "--drop", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dropped": ["ivf"]}
    assert names(gallery) == set()
    assert run("gallery", "build", gallery.folder, "--drop") == 0
    assert "dropped exact" in capsys.readouterr().out
    assert built_indexes(gallery.catalog) == {}
    assert not drop_index(gallery, "ivf")


def test_what_cannot_be_built_is_refused_with_a_sentence(gallery):
    with pytest.raises(InvalidQuery, match="there is no index 'tree'; there are exact, ivf"):
        build_index(gallery, "tree")
    for recall in (0, 1.01, float("nan"), "0.9"):
        with pytest.raises(InvalidQuery, match="a recall is a number above 0 and at most 1"):
            build_index(gallery, "ivf", recall)
    with gallery.job_lock(), pytest.raises(GalleryBusy):
        build_index(gallery, "ivf")
    remove(gallery.catalog, Selection(ids=list(range(2, 301))))
    with pytest.raises(InvalidGallery, match="fewer than the two images"):
        build_index(gallery, "ivf")


def test_advice_on_a_lacking_column_is_true(gallery, monkeypatch, capsys):
    """The gallery's model makes no addresses, the bundled one does."""

    def advice() -> str:
        with pytest.raises(InvalidGallery, match="lacks addresses, which the index buckets") as e:
            build_index(gallery, "buckets")
        (sentence,) = str(e.value).split("needs; ")[1:]
        monkeypatch.setattr(building, "build_index", lambda *_: loaded(gallery, "exact")[0])
        assert run("gallery", "build", gallery.folder) == 0
        left_out = f"buckets: left out: the gallery lacks addresses; {sentence}\n"
        assert left_out in capsys.readouterr().out
        assert run("gallery", "build", gallery.folder, "--json") == 0
        answers = json.loads(capsys.readouterr().out)
        assert list(answers) == list(KINDS)
        assert answers["buckets"] == {
            "title": KINDS["buckets"].title,
            "usable": False,
            "left_out": left_out.removeprefix("buckets: ").strip(),
        }
        monkeypatch.setattr(building, "build_index", build_index)
        return sentence

    build_index(gallery, "exact")
    assert "buckets" not in buildable(gallery)
    reencoding = f"hashsearch gallery reencode {gallery.folder}"
    assert f"{reencoding} --model bundled makes them" in advice()
    card = gallery.card()
    monkeypatch.setattr(building, "read_card", lambda _: card)
    assert advice() == "its model makes none"
    with_addresses = replace(card, address_bits=28)
    monkeypatch.setattr(GalleryFolder, "card", lambda _: with_addresses)
    assert advice() == f"{reencoding} makes them"
    monkeypatch.setattr(GalleryFolder, "keeps", lambda *_: False)
    assert "which the gallery does not keep either" in advice()


def test_addresses_by_the_bundled_model_make_buckets_buildable(gallery):
    """As the advice says."""
    remove(gallery.catalog, Selection(ids=list(range(31, 301))))
    assert "buckets" not in buildable(gallery)
    reencode(gallery, PRETRAINED)
    assert buildable(gallery) == list(KINDS)
    assert build_index(gallery, "buckets").images == 30


@pytest.mark.parametrize("images", [2, 3, 5])
def test_a_gallery_of_a_few_images_can_be_built(images, gallery):
    remove(gallery.catalog, Selection(ids=list(range(images + 1, 301))))
    assert build_index(gallery, "ivf").recall == 1.0
    index, codes = opened(gallery)
    assert_array_equal(index.search(codes, 1)[1], np.zeros((images, 1)))


def test_a_copied_gallery_keeps_its_indexes(gallery, tmp_path):
    build_index(gallery, "ivf")
    gallery.close()
    shutil.copytree(gallery.folder, tmp_path / "copy")
    copy = GalleryFolder(tmp_path / "copy")
    assert loaded(copy)[0].images == 300
    copy.close()
    with sqlite3.connect(tmp_path / "copy" / "catalog.sqlite") as db:
        assert db.execute("SELECT count(*) FROM settings WHERE name = 'index:ivf'").fetchone() == (
            1,
        )
