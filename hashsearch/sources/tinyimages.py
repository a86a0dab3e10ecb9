"""The binary file of the Tiny Images data set, for people who have a copy.

Its authors withdrew the set in 2020 and ask people not to use it any more;
nothing here downloads it.
Source: the layout that the Matlab toolbox of the set reads.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hashsearch.errors import InvalidSource
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.sources.base import SourceImage
from hashsearch.wording import counted

_BLOCK_IMAGES = 1024  # 3 MB mapped at a time


class TinyImagesFile:
    """Images of 3,072 bytes: the red, green and blue planes, each column by column.

    They have no labels.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.is_folder = False
        self.remarks: list[str] = []

    def estimate(self) -> int:
        return self.root.stat().st_size // TINY_BYTES

    def __iter__(self) -> Iterator[SourceImage]:
        status = self.root.stat()
        count, rest = divmod(status.st_size, TINY_BYTES)
        if rest:
            raise InvalidSource(
                f"{self.root} has {counted(status.st_size, 'byte')}; "
                "images of 3,072 bytes each were wanted"
            )
        for start in range(0, count, _BLOCK_IMAGES):
            shape = (min(_BLOCK_IMAGES, count - start), 3, TINY_SIDE, TINY_SIDE)
            planes = np.memmap(self.root, np.uint8, "r", start * TINY_BYTES, shape)
            colours = (np.asarray(planes[:, colour]).transpose(0, 2, 1) for colour in range(3))
            images = np.stack(list(colours), axis=-1)
            for row, image in enumerate(images, start):
                yield SourceImage(f"#{row}", None, TINY_BYTES, status.st_mtime_ns, image)


def is_tiny_images(path: Path) -> bool:
    """Whether a file is named as Tiny Images' binary is."""
    return path.name.startswith("tiny_images") and path.suffix == ".bin"
