"""A model's card: its architecture, training, metrics and fingerprint.

Reading a card needs no torch.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.closeness import Closeness, closeness_from
from hashsearch.errors import ArtifactMismatch, InvalidModel
from hashsearch.images import PREPROCESSING

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 3
READ_VERSIONS = (1, 2, 3)

PRETRAINED = Path(__file__).with_name("pretrained")  # the bundled model
BUNDLED = "bundled"  # its name
WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"


@dataclass(frozen=True, slots=True)
class Card:
    """The content of a model folder's `card.json`.

    kind, architecture: the model family and the settings it is built with.
    preprocessing: the version of the rules of `images.decode`. bits: of a code;
    address_bits: of an address, 0 if the model has none. fingerprint: see `fingerprint`.
    training: the preset, its settings, data, seed, time and hardware. metrics: the
    measured values by name. closeness: what distances between the codes mean; None if it was
    not measured, and in formats 1 and 2.
    """

    kind: str
    architecture: dict[str, Any]
    bits: int
    fingerprint: str
    preprocessing: str = PREPROCESSING
    address_bits: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    closeness: Closeness | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


_TYPES = {  # of the entries
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
    """Parse a card. Raises InvalidModel with the reason if it is not a valid one."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"card.json is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format_version") not in READ_VERSIONS:
        version = raw.get("format_version") if isinstance(raw, dict) else None
        raise InvalidModel(
            f"card.json is of format {version!r}; this version of hashsearch reads "
            f"{READ_VERSIONS[0]} to {READ_VERSIONS[-1]}"
        )
    wanted = {entry.name for entry in fields(Card)}
    if raw["format_version"] < 3:
        wanted.remove("closeness")
    if raw.keys() != wanted:
        odd = ", ".join(sorted(raw.keys() ^ wanted))
        raise InvalidModel(f"card.json has missing or unknown entries: {odd}")
    for name, wanted_type in _TYPES.items():
        if not isinstance(raw[name], wanted_type):
            raise InvalidModel(f"{name} in card.json is not a {wanted_type.__name__}")
    return Card(**raw | {"closeness": _closeness(raw)})


def _closeness(raw: dict[str, Any]) -> Closeness | None:
    """The entry closeness of a card of any format. Raises InvalidModel."""
    entry = raw.get("closeness")
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InvalidModel("closeness in card.json is neither a dict nor null")
    try:
        return closeness_from(entry)
    except ValueError as error:
        raise InvalidModel(f"closeness in card.json cannot be used: {error}") from error


def model_folder(model: str | PathLike[str] | None) -> Path:
    """A model's folder; "bundled" and None mean the model that comes with the package."""
    return PRETRAINED if model is None or fspath(model) == BUNDLED else Path(model)


def model_name(folder: Path) -> str:
    """The inverse of `model_folder`: "bundled", or the folder's path."""
    return BUNDLED if folder == PRETRAINED else str(folder)


def read_card(folder: Path) -> Card:
    """Read a model folder's card, but not its weights. Raises InvalidModel."""
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


def require_todays_rules(card: Card, what: object, remedy: str) -> None:
    """Raise ArtifactMismatch if a model was trained on pictures of earlier image rules.

    what: the model or gallery, and remedy: what to do, for the message.
    """
    if card.preprocessing != PREPROCESSING:
        raise ArtifactMismatch(f"{what} {of_other_rules(card.preprocessing)}; {remedy}")


def of_other_rules(preprocessing: str) -> str:
    """What is wrong with a model or gallery of other image rules, as a part of a sentence."""
    return (
        f"was made by version {preprocessing} of the image rules, and pictures are decoded by "
        f"version {PREPROCESSING}"
    )


def fingerprint(
    kind: str,
    architecture: Mapping[str, Any],
    weights: "Mapping[str, Tensor]",
    preprocessing: str = PREPROCESSING,
) -> str:
    """SHA-256, in hexadecimal, over kind, architecture, preprocessing and stored weights.

    Models with the same fingerprint make the same codes. The card's training and metrics
    do not affect it.
    """
    import torch

    settings = {
        "kind": kind,
        "architecture": architecture,
        "preprocessing": preprocessing,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
