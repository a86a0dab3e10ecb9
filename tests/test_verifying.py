"""Verification: it finds damage, and the command it names repairs it."""

import hashlib
import json

import numpy as np
import pytest

from hashsearch.jobs.verifying import verify
from hashsearch.wording import counted
from tests.galleries import (
    damage,
    everything,
    run,
)


def test_an_undamaged_gallery_has_no_findings(gallery, capsys):
    assert run("gallery", "verify", gallery.folder) == 0
    out = capsys.readouterr().out
    assert "are whole; of 256 codes computed again, none differs" in out


def test_a_single_code_is_counted_in_the_singular(gallery, capsys):
    assert run("gallery", "verify", gallery.folder, "--sample", 1) == 0
    assert "are whole; of 1 code computed again, none differs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["codes.npy", "pixels.npy", "thumbnails.bin"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_file_is_found_and_repaired_by_the_command_that_verify_names(
    name, how, scattered, image_files, capsys
):
    number, size = list(scattered.catalog.shard_rows().items())[-1]  # the shard of the photograph
    path = scattered.shard_folder(number) / name
    before = {one[1:] for one in everything(scattered)}
    damage(path) if how == "changed" else path.unlink()
    assert run("gallery", "verify", scattered.folder) == 1
    output = capsys.readouterr().out
    state = "differs from what was committed" if how == "changed" else "is missing"
    assert f"{path} {state} ({counted(size, 'image')})" in output
    if name == "codes.npy":
        assert f"hashsearch gallery reencode {scattered.folder}" in output
        assert run("gallery", "reencode", scattered.folder) == 0
        assert f"{counted(size, 'code')} computed again, same model" in capsys.readouterr().out
        assert {one[1:] for one in everything(scattered)} == before
    else:
        assert f"hashsearch gallery remove {scattered.folder} --shard {number}" in output
        assert run("gallery", "remove", scattered.folder, "--shard", number) == 0
        assert scattered.catalog.count() == 241 - size
        assert run("gallery", "verify", scattered.folder) == 1
        assert f"hashsearch gallery compact {scattered.folder}" in capsys.readouterr().out
        assert run("gallery", "compact", scattered.folder) == 0
    assert run("gallery", "verify", scattered.folder) == 0


def test_codes_of_another_model_are_found(gallery, capsys):
    """As if the shards and checksums of another gallery had been restored."""
    path = gallery.shard_folder(1) / "codes.npy"
    codes = np.load(path)
    np.save(path, codes[::-1].copy())
    with gallery.catalog.transaction() as db:
        (text,) = db.execute("SELECT checksums FROM shards").fetchone()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        checksums = json.dumps(json.loads(text) | {"codes.npy": digest})
        db.execute("UPDATE shards SET checksums = ?", (checksums,))
    assert run("gallery", "verify", gallery.folder, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["encoded"], len(result["findings"])) == (256, 1)
    assert result["different"] > 200
    assert "codes computed again differ from the stored ones" in result["findings"][0]["what"]
    assert result["findings"][0]["mend"] == f"hashsearch gallery reencode {gallery.folder}"
    assert run("gallery", "reencode", gallery.folder) == 0
    assert run("gallery", "verify", gallery.folder) == 0


def test_a_damaged_model_is_found(gallery, capsys):
    damage(gallery.model_folder / "weights.safetensors")
    assert run("gallery", "verify", gallery.folder) == 1
    assert f"copy model {gallery.fingerprint[:12]} to" in capsys.readouterr().out


def test_impossible_rows_in_the_catalog_are_found(gallery):
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET row = 5000 WHERE id = 7")
        db.execute("UPDATE images SET row = 0 WHERE id = 9")
    whats = [finding.what for finding in verify(gallery, 0).findings]
    assert whats == [
        "the catalog names 1 row that no shard has",
        "the catalog names 1 row for more than one image",
    ]
