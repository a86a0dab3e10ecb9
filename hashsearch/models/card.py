"""A model's card: its architecture, training, metrics and fingerprint.

Reading a card needs no torch.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.closeness import Closeness, closeness_from
from hashsearch.errors import ArtifactMismatch, InvalidModel
from hashsearch.images import PREPROCESSING

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 3
READ_VERSIONS = (1, 2, 3)

# The models that come with the package, by the names that stand for their folders.
BUNDLED = "bundled"
PRETRAINED_MODELS = {
    name: Path(__file__).with_name("pretrained") / name for name in (BUNDLED, "general")
}
PRETRAINED = PRETRAINED_MODELS[BUNDLED]  # the default
A_MODEL = f"a model's folder, {' or '.join(map(repr, PRETRAINED_MODELS))}"
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
    """A model's folder; None means the default, and a name a model that comes with the package.

    Only a str is a name: Path("general") is a folder.
    """
    if model is None:
        return PRETRAINED
    named = PRETRAINED_MODELS.get(model) if isinstance(model, str) else None
    return named or Path(model)


def model_name(folder: Path) -> str:
    """The inverse of `model_folder`: a name such as "bundled", or the folder's path."""
    for name, pretrained in PRETRAINED_MODELS.items():
        if folder == pretrained:
            return name
    return f"./{folder}" if str(folder) in PRETRAINED_MODELS else str(folder)


def pretrained_name(fingerprint: str) -> str | None:
    """The name of the model with this fingerprint, if it came with the package."""
    return _names_by_fingerprint().get(fingerprint)


@cache
def _names_by_fingerprint() -> dict[str, str]:
    return {read_card(folder).fingerprint: name for name, folder in PRETRAINED_MODELS.items()}


def trainings_of(training: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A card's entry `training`, and those of the models that it started from, newest first."""
    step: Any = training
    while isinstance(step, dict):
        yield step
        start = step.get("start")
        step = start.get("training") if isinstance(start, dict) else None


def data_sets(training: Mapping[str, Any]) -> list[str]:
    """Names of the data that a model, and those it started from, were trained on."""
    names = [str(one.get("data", "unknown data")).split(" + ") for one in trainings_of(training)]
    return list(dict.fromkeys(name for part in names for name in part))


def label_sets(training: Mapping[str, Any]) -> list[str]:
    """Names of the data whose labels a model, or one that it started from, has learned."""
    found: dict[str, None] = {}
    for one in trainings_of(training):
        labels = one.get("labels")
        classes = labels.get("classes") if isinstance(labels, dict) else None
        found |= dict.fromkeys(map(str, classes)) if isinstance(classes, dict) else {}
    return list(found)


def read_card(folder: Path) -> Card:
    """Read a model folder's card, but not its weights. Raises InvalidModel."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(
            f"{model_name(folder)} is no model folder: {CARD_FILE} cannot be read "
            f"({type(error).__name__})"
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
