import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.codes import (
    code_from_hex,
    code_to_hex,
    pack_bits,
    unpack_bits,
)
from hashsearch.errors import CodeShapeError

bits = arrays(np.uint8, (4, 256), elements=st.integers(0, 1))
codes = arrays(np.uint8, (5, 32))


@given(bits)
def test_unpacking_returns_the_packed_bits(bits):
    assert_array_equal(unpack_bits(pack_bits(bits)), bits)


@given(arrays(np.uint8, (4, 28), elements=st.integers(0, 1)))
def test_an_address_is_four_bytes_with_four_zero_bits_last(bits):
    packed = pack_bits(bits)
    assert packed.shape == (4, 4)
    assert not (packed[:, 3] & 0x0F).any()
    assert_array_equal(unpack_bits(packed, 28), bits)


def test_the_first_bit_is_the_highest_of_byte_0():
    bits = np.zeros((1, 256), np.uint8)
    bits[0, 0] = bits[0, 15] = 1
    assert pack_bits(bits)[0, :2].tolist() == [0x80, 0x01]


@given(codes)
def test_hexadecimal_returns_the_code(codes):
    text = code_to_hex(codes[0])
    assert len(text) == 64
    assert_array_equal(code_from_hex(text), codes[0])
    assert_array_equal(code_from_hex(text.upper()), codes[0])


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab " * 21 + "a", "é" * 64])
def test_a_text_that_is_no_code_is_refused(text):
    with pytest.raises(CodeShapeError, match="32 bytes, written as 64 hexadecimal digits"):
        code_from_hex(text)


@pytest.mark.parametrize("shape", [(31,), (2, 31), (2, 33)])
def test_codes_of_another_width_are_refused(shape):
    with pytest.raises(CodeShapeError, match="were wanted"):
        unpack_bits(np.zeros(shape, np.uint8))
