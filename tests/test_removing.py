"""Removing images from a gallery."""

import os
import pty
import subprocess
import sys

import pytest

from hashsearch.gallery.changes import Selection
from hashsearch.jobs import removing
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.sources.folder import Folder
from tests.galleries import content, ids, run, served


@pytest.mark.parametrize("by", ["id", "uri", "label", "shard"])
def test_images_are_removed_by_id_uri_label_or_shard(by, gallery, client, capsys):
    records = gallery.catalog.records(ids(gallery))
    label = records[0].label
    chosen, arguments = {
        "id": ({records[3].id, records[7].id}, [records[3].id, records[7].id]),
        "uri": (
            {r.id for r in records if r.uri.startswith(f"pictures/{label}/")},
            [f"pictures/{label}"],
        ),
        "label": ({r.id for r in records if r.label == label}, [label]),
        "shard": ({r.id for r in records}, [1]),
    }[by]
    assert run("gallery", "remove", gallery.folder, f"--{by}", *arguments) == 0
    assert set(ids(gallery)) == {r.id for r in records} - chosen
    assert f"{len(chosen):,} removed" in capsys.readouterr().out
    assert served(client) == 300 - len(chosen)
    for image_id in chosen:
        assert client.get(f"/v1/images/{image_id}/thumbnail").status_code == 404


def test_a_label_that_no_image_has_removes_nothing_and_fails(gallery, capsys):
    generation = gallery.catalog.generation()
    assert run("gallery", "remove", gallery.folder, "--label", "unicorn") == 1
    assert "no image matches 'unicorn'" in capsys.readouterr().err
    assert gallery.catalog.generation() == generation


def test_many_images_are_removed_in_several_transactions(gallery, monkeypatch):
    monkeypatch.setattr(removing, "_AT_ONCE", 7)
    assert removing.remove(gallery.catalog, Selection(shard=1)).images == 300
    assert ids(gallery) == []


@pytest.mark.parametrize(
    "arguments", [("--uri", ""), ("--id", "-1"), ("--id", 10**30), ("--shard", "x"), ()]
)
def test_a_removal_without_a_valid_criterion_is_refused(arguments, gallery, capsys):
    try:
        status = run("gallery", "remove", gallery.folder, *arguments)
    except SystemExit as stopped:  # raised by argparse
        status = stopped.code
    assert status != 0
    assert len(capsys.readouterr().err) > 20
    assert gallery.catalog.count() == 300


def test_a_prefix_may_be_typed_as_a_path(gallery, image_files, tmp_path, photograph):
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / "a%b é.jpg").write_bytes(photograph)
    index_sources(gallery, [Folder(tmp_path / "my photos")], workers=1)
    assert run("gallery", "remove", gallery.folder, "--uri", "my photos/") == 0
    assert gallery.catalog.count() == 300


def test_removed_images_come_back_if_their_source_is_indexed_again(gallery, image_files):
    before = content(gallery)
    run("gallery", "remove", gallery.folder, "--id", *ids(gallery)[:10])
    summary = index_sources(gallery, [Folder(image_files)], workers=1)
    assert (summary.indexed, summary.unchanged) == (10, 290)
    assert content(gallery) == before


@pytest.mark.parametrize(
    ("answer", "extra", "left"), [("n", (), 300), ("y", (), 0), (None, ("--yes",), 0)]
)
def test_on_a_terminal_it_asks_before_it_removes_more_than_a_few(answer, extra, left, gallery):
    ours, theirs = pty.openpty()
    command = (sys.executable, "-m", "hashsearch.cli", "gallery", "remove", gallery.folder)
    with subprocess.Popen(
        [*command, "--shard", "1", *extra],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if answer is not None:
            os.write(ours, f"{answer}\n".encode())
        _, err = process.communicate()
    os.close(ours)
    os.close(theirs)
    assert ("remove 300 images? [y/N]" in err) == (answer is not None)
    assert ("nothing was removed" in err) == (left > 0)
    assert gallery.catalog.count() == left


def test_a_few_images_are_removed_without_a_question(gallery, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # it would fail if it were read
    assert run("gallery", "remove", gallery.folder, "--id", *ids(gallery)[:3]) == 0


def test_ids_are_separated_by_spaces_or_commas(gallery):
    first, second, third, fourth, *others = ids(gallery)
    given = (f"{first},{second},", third, f"{fourth}")
    assert run("gallery", "remove", gallery.folder, "--id", *given) == 0
    assert ids(gallery) == others


def test_a_single_image_is_counted_in_the_singular(gallery, capsys):
    first, *others = ids(gallery)
    assert run("gallery", "remove", gallery.folder, "--id", *others) == 0
    assert f"{gallery.folder}: 1 image; 299 removed" in capsys.readouterr().out
    assert ids(gallery) == [first]
