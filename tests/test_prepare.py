import hashlib

import numpy as np
import pytest

from hashsearch.errors import InvalidImage
from hashsearch.jobs.index.prepare import prepare
from hashsearch.sources import loading
from hashsearch.sources.arrays import NpyArray
from hashsearch.sources.base import SourceImage


def test_the_key_of_tiny_pixels_is_the_hash_of_their_bytes(tiny_images, tmp_path):
    np.save(tmp_path / "a.npy", tiny_images)
    prepared = prepare(list(NpyArray(tmp_path / "a.npy")))
    expected = [hashlib.sha256(image.tobytes()).digest() for image in tiny_images]
    assert [one.key for one in prepared] == expected


def test_equal_bytes_of_another_shape_have_another_key(tiny_images):
    upright = np.concatenate([tiny_images[0], tiny_images[1]])
    lying = upright.reshape(32, 64, 3)
    one, other, again = prepare(
        [SourceImage(f"#{n}", None, 0, 0, a) for n, a in enumerate([upright, lying, upright])]
    )
    assert one.key == again.key != other.key


@pytest.mark.parametrize("step", ["from_pixels", "read_image_file"])
def test_an_image_that_memory_does_not_hold_is_a_failure_of_its_own(
    step, tiny_images, image_files, monkeypatch
):
    def refuse(*_, **__):
        raise MemoryError

    file = sorted(image_files.rglob("*.*"))[0]
    contents = [file, file.read_bytes(), tiny_images[0]]
    monkeypatch.setattr(loading, step, refuse)
    prepared = prepare([SourceImage("/a", None, 0, 0, content) for content in contents])
    (failed,) = [one for one in prepared if isinstance(one, InvalidImage)]
    assert failed is prepared[2 if step == "from_pixels" else 0]
    assert str(failed) == "there is not enough memory to decode the image"
