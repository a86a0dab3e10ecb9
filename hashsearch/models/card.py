"""A model's card: what it is, how it was made, and how it is told from others.

What need not compute codes reads cards without torch.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.errors import InvalidModel
from hashsearch.images import PREPROCESSING

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)

PRETRAINED = Path(__file__).with_name("pretrained")  # the model that comes with the package
WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"


@dataclass(frozen=True, slots=True)
class Card:
    """What stands in a model folder's `card.json`.

    kind, architecture: the class of autoencoder and the settings it is built
    with. preprocessing: the version of `images.decode`'s rules. bits: of the
    code; address_bits: of the second, shorter code, 0 where the model has none.
    fingerprint: see `fingerprint`. training: the preset, its settings, data,
    seed, time and hardware. metrics: what was measured, by name.
    """

    kind: str
    architecture: dict[str, Any]
    bits: int
    fingerprint: str
    preprocessing: str = PREPROCESSING
    address_bits: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


_KINDS = {
    "kind": str,
    "architecture": dict,
    "bits": int,
    "address_bits": int,
    "fingerprint": str,
    "preprocessing": str,
    "training": dict,
    "metrics": dict,
}


def card_from_json(text: str) -> Card:
    """Read a card. Raises InvalidModel, saying what is wrong with it."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"card.json is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format_version") not in READ_VERSIONS:
        version = raw.get("format_version") if isinstance(raw, dict) else None
        raise InvalidModel(
            f"card.json is of format {version!r}; this version of hashsearch reads "
            f"{' and '.join(map(str, READ_VERSIONS))}"
        )
    wanted = {entry.name for entry in fields(Card)}
    if raw.keys() != wanted:
        odd = ", ".join(sorted(raw.keys() ^ wanted))
        raise InvalidModel(f"card.json lacks, or has beyond the format, the entries: {odd}")
    for name, kind in _KINDS.items():
        if not isinstance(raw[name], kind):
            raise InvalidModel(f"card.json has a {name} that is no {kind.__name__}")
    return Card(**raw)


def read_card(folder: Path) -> Card:
    """Read a model folder's card alone. Raises InvalidModel."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(
            f"{folder} is no model folder: {CARD_FILE} cannot be read ({type(error).__name__})"
        ) from error
    return card_from_json(text)


def copy_model(folder: Path, target: Path) -> None:
    """Copy a model folder's two files into a new folder."""
    target.mkdir()
    for name in (WEIGHTS_FILE, CARD_FILE):
        shutil.copyfile(folder / name, target / name)


def fingerprint(kind: str, architecture: Mapping[str, Any], weights: "Mapping[str, Tensor]") -> str:
    """SHA-256, in hexadecimal, over architecture, preprocessing and weights as stored.

    Two models of one fingerprint give the same codes; the training notes and
    metrics beside them do not count.
    """
    import torch

    settings = {
        "kind": kind,
        "architecture": architecture,
        "preprocessing": PREPROCESSING,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
