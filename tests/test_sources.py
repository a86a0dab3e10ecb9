import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidSource
from hashsearch.sources import locate, open_source
from hashsearch.sources.base import decode_path, encode_path
from hashsearch.sources.samples import CROPS, PHOTOGRAPHS, Samples


@given(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)
)
def test_any_file_name_can_be_encoded_and_comes_back(name):
    path = os.fsdecode(name)
    encoded = encode_path(path)
    assert encoded.isascii()
    assert not set(encoded) & set(" !#%/") - {"%"}
    assert os.fsencode(decode_path(encoded)) == name


@pytest.mark.parametrize(
    ("root", "place", "path"),
    [
        ("/photos", "/a%20b/c.jpg", "/photos/a b/c.jpg"),
        ("/photos", "/100%25%23%21.jpg", "/photos/100%#!.jpg"),
        ("/x.tar", "!/a/b.jpg", "/x.tar!/a/b.jpg"),
        ("/x.tar", "!/batches/data_batch_1#7", "/x.tar!/batches/data_batch_1#7"),
        ("/batches", "/test_batch.bin#0", "/batches/test_batch.bin#0"),
        ("/photos", "/%FF.jpg", "/photos/\udcff.jpg"),
    ],
)
def test_an_image_is_located_by_a_path_that_opens_where_there_is_one(root, place, path):
    assert locate(root, place) == path


def test_the_samples_are_the_same_every_time_and_their_splits_differ(folders):
    first, again = (list(open_source("samples", folders)) for _ in range(2))
    test = list(Samples("test"))
    assert len(first) == CROPS["train"] * len(PHOTOGRAPHS)
    assert len(test) == CROPS["test"] * len(PHOTOGRAPHS)
    for one, other in zip(first, again, strict=True):
        assert_array_equal(one.content, other.content)
    seen = {image.content.tobytes() for image in first}
    assert not any(image.content.tobytes() in seen for image in test)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "nowhere does not exist; a folder, a tar archive"),
        ("nowhere:test", "nowhere:test does not exist; a folder"),
        ("cifar10:validation", "a split is one of train, test"),
        ("{picture}", "neither a folder nor a tar archive; to index a picture, name its folder"),
        ("{folder}:test", "has no splits"),
    ],
)
def test_a_source_that_is_none_is_refused(spec, message, image_files, folders):
    picture = sorted(image_files.rglob("*.*"))[0]
    with pytest.raises(InvalidSource, match=message):
        open_source(spec.format(picture=picture, folder=image_files), folders)
