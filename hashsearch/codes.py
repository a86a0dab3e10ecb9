"""Binary codes: packing and printing them.

A code is `bits` zeros and ones packed eight to a byte; the first bit is the
highest bit of byte 0, as `numpy.packbits` has it.
"""

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import CodeShapeError
from hashsearch.wording import counted

CODE_BITS = 256
CODE_BYTES = CODE_BITS // 8
ADDRESS_BITS = 28
ADDRESS_BYTES = 4


def pack_bits(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack zeros and ones into bytes; the last byte is filled up with zeros.

    bits: (n, n_bits) uint8, each 0 or 1. Returns (n, ceil(n_bits / 8)) uint8.
    """
    return np.packbits(bits, axis=1)


def unpack_bits(codes: NDArray[np.uint8], n_bits: int = CODE_BITS) -> NDArray[np.uint8]:
    """The inverse of `pack_bits`.

    codes: (n, n_bytes) uint8. Returns (n, n_bits) uint8, each 0 or 1.
    Raises CodeShapeError if the codes do not hold `n_bits` in whole bytes.
    """
    require_code_bytes(codes, -(-n_bits // 8))
    return np.unpackbits(codes, axis=1, count=n_bits)


def code_to_hex(code: NDArray[np.uint8]) -> str:
    """Write a code as two lower-case hexadecimal digits per byte."""
    return code.tobytes().hex()


def code_from_hex(text: str, n_bytes: int = CODE_BYTES) -> NDArray[np.uint8]:
    """Read a code written by `code_to_hex`; upper case is read too.

    Returns (n_bytes,) uint8. Raises CodeShapeError on anything but exactly
    2 × n_bytes hexadecimal digits.
    """
    wanted = f"a code is {n_bytes} bytes, written as {2 * n_bytes} hexadecimal digits"
    if len(text) != 2 * n_bytes:
        raise CodeShapeError(f"{wanted}; got {counted(len(text), 'character')}")
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise CodeShapeError(f"{wanted}; got other characters") from error
    if len(raw) != n_bytes:  # bytes.fromhex skips white space
        raise CodeShapeError(f"{wanted}; got white space")
    return np.frombuffer(raw, dtype=np.uint8)


def require_code_bytes(codes: NDArray[np.uint8], n_bytes: int) -> None:
    """Raise CodeShapeError unless `codes` is (n, n_bytes) uint8."""
    if not isinstance(codes, np.ndarray):
        raise CodeShapeError(
            f"an array of shape (n, {n_bytes}) and type uint8 was wanted; "
            f"got an object of type {type(codes).__name__}"
        )
    if codes.ndim != 2 or codes.shape[1] != n_bytes or codes.dtype != np.uint8:
        raise CodeShapeError(
            f"codes of shape (n, {n_bytes}) and type uint8 were wanted; "
            f"got shape {codes.shape} and type {codes.dtype}"
        )
