"""Addresses, which are stored and replaced with the codes."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.gallery.changes import change_files
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.shards import sha256_of_file
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.verifying import verify
from hashsearch.models.card import PRETRAINED
from hashsearch.sources.folder import Folder
from tests.galleries import another_png, damage, has_no_litter, ids


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, image_files):
    """A gallery folder of 60 images and the bundled model, which has an address head."""
    folder = tmp_path_factory.mktemp("addresses") / "gallery"
    (folder.parent / "pictures").mkdir()
    for path in sorted(image_files.rglob("*.*"))[::5]:
        shutil.copy(path, folder.parent / "pictures")
    gallery = GalleryFolder.create(folder, PRETRAINED)
    index_sources(gallery, [Folder(folder.parent / "pictures")], workers=1)
    gallery.close()
    return folder


@pytest.fixture
def gallery(indexed, tmp_path):
    shutil.copytree(indexed, tmp_path / "gallery")
    opened = GalleryFolder(tmp_path / "gallery")
    yield opened
    opened.close()


def check(gallery: GalleryFolder) -> None:
    """Every stored address is that of the model, computed from the stored pixels."""
    rows = gallery.catalog.rows()
    tiny = gallery.column("pixels", rows).reshape(-1, 32, 32, 3)
    encoder = gallery.encoder()
    assert_array_equal(gallery.column("codes", rows), encoder.encode(tiny))
    if encoder.model.address_bits:
        assert_array_equal(gallery.column("addresses", rows), encoder.addresses(tiny))
    else:
        assert gallery.column("addresses", rows) is None
    assert verify(gallery, 61).findings == []
    assert has_no_litter(gallery)


def without_addresses(gallery: GalleryFolder) -> None:
    """Make it a gallery as earlier versions wrote them."""
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE shards SET checksums = json_remove(checksums, '$.\"addresses.npy\"')")
    for shard in gallery.every_shard().values():
        (shard.folder / "addresses.npy").unlink()


def test_index_and_add_store_the_addresses_of_a_model_that_has_them(gallery):
    add_image(gallery, gallery.encoder(), another_png())
    assert len(ids(gallery)) == 61
    check(gallery)
    compact(gallery)
    assert len(gallery.every_shard()) == 1
    check(gallery)


def test_reencoding_drops_and_writes_addresses_with_the_model(gallery, model_folder):
    reencode(gallery, model_folder)
    check(gallery)
    assert "addresses" not in gallery.disk_bytes()
    reencode(gallery, PRETRAINED)
    check(gallery)
    assert gallery.disk_bytes()["addresses"] > 4 * 60


@pytest.mark.parametrize("shards", [1, 2])
def test_a_gallery_of_an_earlier_version_gets_its_addresses_by_reencoding(gallery, shards):
    without_addresses(gallery)
    if shards == 2:  # added since, so with addresses
        add_image(gallery, gallery.encoder(), another_png())
        compact(gallery)  # does not join what has different columns
        assert len(gallery.every_shard()) == 2
    assert gallery.column("addresses", gallery.catalog.rows()) is None
    assert reencode(gallery) == 60
    check(gallery)
    assert reencode(gallery) == 0


def test_addresses_that_the_model_does_not_make_are_found(gallery):
    (shard,) = gallery.every_shard().values()
    wrong = 255 - np.load(shard.folder / "addresses.npy")
    wrong[:, 3] &= 0xF0
    np.save(shard.folder / "addresses.npy", wrong)
    with gallery.catalog.transaction() as db:  # as if it had been committed so
        digest = sha256_of_file(shard.folder / "addresses.npy")
        change_files(db, 1, {**shard.checksums, "addresses.npy": digest})
    found = verify(gallery, 50)
    assert (found.different, found.most_bits) == (50, 28)
    assert reencode(gallery) == 60
    check(gallery)


def test_a_damaged_file_of_addresses_is_found_and_mended(gallery):
    (shard,) = gallery.every_shard().values()
    damage(shard.folder / "addresses.npy")
    (finding,) = verify(gallery, 0).findings
    assert "addresses.npy differs from what was committed" in finding.what
    assert finding.mend == f"hashsearch gallery reencode {gallery.folder}"
    assert reencode(gallery) == 60
    check(gallery)
