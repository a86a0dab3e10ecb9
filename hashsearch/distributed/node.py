"""What runs on the nodes of a cluster: actors that decode images and encode them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import compress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import features

from hashsearch import __version__
from hashsearch.errors import InvalidImage
from hashsearch.images import read_image_file
from hashsearch.jobs.index.prepare import Prepared, give_way, prepare, unreadable
from hashsearch.models.card import CARD_FILE, WEIGHTS_FILE
from hashsearch.sources.base import SourceImage

_PACKAGES = ("pillow", "pillow-heif", "torch")
_DECODERS = ("avif", "jpg", "jpg_2000", "libtiff", "webp", "zlib")  # as Pillow names them


class Model(NamedTuple):
    """A gallery's model, as it is sent to the nodes: its two files, by name, and the precision."""

    files: Mapping[str, bytes]
    precision: Literal["float32", "bfloat16"]


class Node(NamedTuple):
    """Where an actor runs.

    id: Ray's. host: its address. device: of the encoder, as torch names it. software: versions
    of what decodes and encodes there, by name.
    """

    id: str
    host: str
    device: str
    software: dict[str, str]


class Answer(NamedTuple):
    """What an actor makes of images: None for one whose file the node does not see.

    sees: whether it saw the file that it was asked about.
    """

    results: list[Prepared | InvalidImage | None]
    sees: bool


class NodeWorker:
    """An actor that decodes images and encodes them, a chunk at a time."""

    def __init__(self, model: Model, thumbnails: bool):
        import ray
        import torch
        from ray._private import worker

        from hashsearch.encoder import Encoder

        give_way()
        torch.set_num_threads(1)  # an actor has one core
        torch.backends.cudnn.allow_tf32 = False  # whose products are less exact than float32's
        device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
        node: Any = worker._global_node
        # If this process is killed meanwhile, the folder goes with Ray's.
        with tempfile.TemporaryDirectory(dir=node.get_session_dir_path()) as folder:
            for name in (WEIGHTS_FILE, CARD_FILE):
                (Path(folder) / name).write_bytes(model.files[name])
            self._encoder = Encoder.load(Path(folder), device, model.precision)
        self._thumbnails = thumbnails

    def node(self) -> Node:
        """Answer once the actor is ready."""
        import ray

        number = ray.get_runtime_context().get_node_id()
        return Node(number, ray.util.get_node_ip_address(), self._encoder.device, software())

    def run(self, images: Sequence[SourceImage], probe: SourceImage | None = None) -> Answer:
        """Prepare images, with their columns. probe: a file to look for."""
        here = [is_here(image) for image in images]
        results = prepare(list(compress(images, here)), self._thumbnails)
        good = [one for one in results if isinstance(one, Prepared)]
        columns = self._encoder.columns(np.stack([one.tiny for one in good])) if good else {}
        with_columns = iter(
            [
                replace(one, columns={name: values[row] for name, values in columns.items()})
                for row, one in enumerate(good)
            ]
        )
        encoded = iter(
            [next(with_columns) if isinstance(one, Prepared) else one for one in results]
        )
        answers = [next(encoded) if is_seen else None for is_seen in here]
        return Answer(answers, probe is not None and is_here(probe))


def software() -> dict[str, str]:
    """Versions of what decodes and encodes here, by name; "none" for what is missing."""
    found = {"hashsearch": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found | {name: features.version(name) or "none" for name in _DECODERS}


def is_here(image: SourceImage) -> bool:
    """Whether this machine has what is to be decoded: the file that was found, or its content."""
    if not isinstance(image.content, Path):
        return True
    try:
        found = image.content.stat()
    except OSError:
        return False
    same = replace(image, size=found.st_size, mtime=found.st_mtime_ns)  # within the same limits
    return (same.size, same.mtime) == (image.size, image.mtime)


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
