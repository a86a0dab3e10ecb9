"""Where the codes of a part are stored: pieces of the shards' files, as they are sent to nodes."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES
from hashsearch.search import Block

Numbers = range | NDArray[np.unsignedinteger[Any]]  # rows or positions, in few bytes


class Piece(NamedTuple):
    """Rows of a stored file of codes, and their positions in a part.

    path, sha256: of the file. rows, positions: as many of each.
    """

    path: str
    sha256: str
    rows: Numbers
    positions: Numbers


def pieces_of(
    blocks: Sequence[Block], ranges: Sequence[tuple[int, int]]
) -> list[list[tuple[Piece, NDArray[np.uint8]]]]:
    """The pieces of each range of positions, each with the stored array that it is of.

    ranges: each a start and an end; they follow each other and cover all positions.
    """
    found: list[list[tuple[Piece, NDArray[np.uint8]]]] = [[] for _ in ranges]
    ends = np.array([end for _, end in ranges])
    for block in blocks:
        if len(block.rows) == 0:
            continue
        assert block.stored is not None
        within = np.searchsorted(ends, block.positions, side="right")
        for number in range(int(within.min()), int(within.max()) + 1):
            chosen = within == number
            if chosen.any():
                positions = block.positions[chosen] - ranges[number][0]
                piece = Piece(
                    str(block.stored.path.absolute()),
                    block.stored.sha256,
                    _numbers(block.rows[chosen]),
                    _numbers(positions),
                )
                found[number].append((piece, block.values))
    return found


def _numbers(values: NDArray[np.int64]) -> Numbers:
    first, last = int(values[0]), int(values[-1])
    if last - first == len(values) - 1 and bool((np.diff(values) == 1).all()):
        return range(first, last + 1)
    return values.astype(np.min_scalar_type(int(values.max())))


def indices(numbers: Numbers) -> slice | NDArray[np.unsignedinteger[Any]]:
    """What these rows or positions are chosen by from an array."""
    if isinstance(numbers, range):
        return slice(numbers.start, numbers.stop)
    return numbers


def read_pieces(pieces: Sequence[Piece], size: int) -> NDArray[np.uint8]:
    """Read the codes of a part, (size, 32) uint8, from files that must have their checksums.

    Raises OSError if a file cannot be read, or is another one.
    """
    codes = np.empty((size, CODE_BYTES), np.uint8)
    for piece in pieces:
        data = Path(piece.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != piece.sha256:
            raise OSError(f"{piece.path} is another file here: its checksum differs")
        stored = npy.read_array(BytesIO(data), allow_pickle=False)
        codes[indices(piece.positions)] = stored[indices(piece.rows)]
    return codes
