"""The sample photographs that scikit-image ships, whole and in crops: they need no network."""

from collections import Counter
from collections.abc import Iterator
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from hashsearch.errors import InvalidSource
from hashsearch.extras import missing
from hashsearch.sources.base import SourceImage

# The photographs in scikit-image's wheel; its others need a download.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
CROPS = {"train": 300, "test": 20}  # of each photograph
_SEEDS = {"train": 0, "test": 1}
_CROP_SIDES = (0.3, 0.9)  # least and greatest, as shares of the photograph's shorter side
_SIDE = 128  # pixels of a crop: as many as a thumbnail has


class Samples:
    """Each photograph, and seeded square crops of it, labelled by its name.

    The test split has other crops, and no whole photographs.
    """

    def __init__(self, split: str = "train"):
        if find_spec("skimage") is None:
            raise InvalidSource(missing("scikit-image", "the sample photographs come with"))
        with as_file(files("skimage") / "data") as folder:
            self.root = Path(folder).resolve()
        self.split = split
        self.passed_over: Counter[str] = Counter()
        self.is_whole = False
        self.is_folder = False
        self.remarks: list[str] = []

    def estimate(self) -> int:
        return (CROPS[self.split] + (self.split == "train")) * len(PHOTOGRAPHS)

    def __iter__(self) -> Iterator[SourceImage]:
        for name in PHOTOGRAPHS:
            path = self.root / name
            stat = path.stat()
            if self.split == "train":
                yield SourceImage(f"/{name}", path.stem, stat.st_size, stat.st_mtime_ns, path)
            with Image.open(path) as photograph:
                rgb = photograph.convert("RGB")
            random = np.random.default_rng([_SEEDS[self.split], PHOTOGRAPHS.index(name)])
            for number in range(CROPS[self.split]):
                side = round(random.uniform(*_CROP_SIDES) * min(rgb.size))
                left = int(random.integers(rgb.width - side, endpoint=True))
                top = int(random.integers(rgb.height - side, endpoint=True))
                crop = np.asarray(
                    rgb.resize(
                        (_SIDE, _SIDE),
                        Image.Resampling.BOX,
                        box=(left, top, left + side, top + side),
                    )
                )
                yield SourceImage(
                    place=f"/{name}#{self.split}-{number}",
                    label=path.stem,
                    size=crop.nbytes,
                    mtime=stat.st_mtime_ns,
                    content=crop,
                )
