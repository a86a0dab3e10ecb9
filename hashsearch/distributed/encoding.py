"""What runs on the nodes of a cluster: images are decoded and encoded by one worker a core."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hashsearch import __version__
from hashsearch.errors import InvalidImage
from hashsearch.images import read_image_file
from hashsearch.jobs.index.prepare import Prepared, give_way, prepare, unreadable
from hashsearch.models.card import CARD_FILE, WEIGHTS_FILE
from hashsearch.sources.base import SourceImage

NodeResults = list[Prepared | InvalidImage | None]


class Model(NamedTuple):
    """A gallery's model, as it is sent to the nodes: its two files, by name, and the precision."""

    files: Mapping[str, bytes]
    precision: Literal["float32", "bfloat16"]


class Place(NamedTuple):
    """Where a worker runs. device: of the encoder, as torch names it."""

    node: str
    host: str
    device: str
    version: str


class Worker:
    """An actor that decodes images and encodes them, a chunk at a time."""

    def __init__(self, model: Model, thumbnails: bool):
        import torch

        from hashsearch.encoder import Encoder

        give_way()
        torch.set_num_threads(1)  # a worker has one core
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory() as folder:
            for name in (WEIGHTS_FILE, CARD_FILE):
                (Path(folder) / name).write_bytes(model.files[name])
            self._encoder = Encoder.load(Path(folder), device, model.precision)
        self._thumbnails = thumbnails

    def place(self) -> Place:
        """Answer once the worker is ready."""
        import ray

        context = ray.get_runtime_context()
        host = ray.util.get_node_ip_address()
        return Place(context.get_node_id(), host, self._encoder.device, __version__)

    def run(self, images: Sequence[SourceImage]) -> NodeResults:
        """Prepare images, with their columns; None for one whose file this node cannot see."""
        is_here = [_is_here(image) for image in images]
        results = prepare(list(compress(images, is_here)), self._thumbnails)
        good = [one for one in results if isinstance(one, Prepared)]
        if good:
            columns = self._encoder.columns(np.stack([one.tiny for one in good]))
            for row, one in enumerate(good):
                one.columns = {name: values[row] for name, values in columns.items()}
        each = iter(results)
        return [next(each) if here else None for here in is_here]


def read_here(image: SourceImage) -> SourceImage:
    """The image with its file's bytes, or with the reason why they cannot be read."""
    if not isinstance(image.content, Path):
        return image
    content: bytes | InvalidImage
    try:
        content = read_image_file(image.content)
    except InvalidImage as error:
        content = type(error)(str(error))
    except OSError as error:
        content = unreadable(error)
    return replace(image, content=content)


def _is_here(image: SourceImage) -> bool:
    """Whether this node has what is to be decoded: a file as it was found, or what was sent."""
    if not isinstance(image.content, Path):
        return True
    try:
        found = image.content.stat()
    except OSError:
        return False
    same = replace(image, size=found.st_size, mtime=found.st_mtime_ns)
    return (same.size, same.mtime) == (image.size, image.mtime)
