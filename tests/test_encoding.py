"""An encoder on every core, loaded when it is wanted."""

import numpy as np
import pytest
import torch

from hashsearch.encoder import Encoder
from hashsearch.jobs.index.encoding import EncodingPool


def test_the_codes_are_those_of_the_encoder_alone(tiny_images, model_folder):
    encoder = Encoder.load(model_folder)
    threads = torch.get_num_threads()
    with EncodingPool(lambda: Encoder.load(model_folder), 3) as pool:
        parts = [pool.submit(part) for part in np.array_split(tiny_images, 7)]
        codes = np.concatenate([part.result()["codes"] for part in parts])
    np.testing.assert_array_equal(codes, encoder.encode(tiny_images))
    assert torch.get_num_threads() == threads


def test_nothing_is_loaded_where_nothing_is_encoded():
    def load() -> Encoder:
        pytest.fail("there was no need")

    with EncodingPool(load, 2):
        pass


def test_what_loading_raises_is_what_the_codes_raise(tiny_images):
    def load() -> Encoder:
        raise OSError("the disk is gone")

    with EncodingPool(load, 2) as pool:
        for waiting in [pool.submit(tiny_images[:1]) for _ in range(3)]:
            with pytest.raises(OSError, match="the disk is gone"):
                waiting.result()
