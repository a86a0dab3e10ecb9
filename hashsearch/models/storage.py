"""Model folders: `weights.safetensors` and `card.json`, written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hashsearch.durable import sync_folder, sync_tree
from hashsearch.errors import ArtifactMismatch, InvalidModel
from hashsearch.images import PREPROCESSING
from hashsearch.models import AUTOENCODERS
from hashsearch.models.autoencoder import Autoencoder, StoredModel
from hashsearch.models.card import CARD_FILE, WEIGHTS_FILE, Card, fingerprint, read_card

S = TypeVar("S", bound=StoredModel)
_FLOATS = {torch.float16, torch.bfloat16, torch.float32}  # that weights may be stored in


def save_model(
    folder: Path,
    model: StoredModel,
    *,
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    beside: Iterable[Path] = (),
) -> Card:
    """Write a model folder; it appears under its name when it is complete.

    beside: files and folders of the same file system that are moved into it.
    Raises InvalidModel if something already lies there.
    """
    weights = _stored(model)
    card = Card(
        kind=model.kind,
        architecture=model.architecture(),
        bits=model.bits,
        address_bits=model.address_bits,
        fingerprint=fingerprint(model.kind, model.architecture(), weights),
        training=dict(training),
        metrics=dict(metrics),
    )
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file(weights, temporary / WEIGHTS_FILE)
        (temporary / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it the owner's alone
        (temporary / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        for path in beside:
            path.replace(temporary / path.name)
        temporary.chmod(0o755)  # mkdtemp makes it the owner's alone
        sync_tree(temporary)
        temporary.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return card


def round_as_stored(model: StoredModel) -> None:
    """Make a model compute what it will when it was saved and loaded again."""
    model.load_state_dict(_stored(model))


def _stored(model: StoredModel) -> dict[str, Tensor]:
    """Weights by name: kernels and matrices as the model has them stored, all else as it is."""
    return {
        name: (tensor.to(model.stored) if tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }


def load_model(folder: Path) -> tuple[Autoencoder, Card]:
    """Read an autoencoder's folder, on the CPU and ready for inference.

    Raises InvalidModel if it is missing, damaged or of an unknown format, and
    ArtifactMismatch if its weights are not those that its card describes.
    """
    kinds: dict[str, type[Autoencoder]] = {k: resolve_name(c) for k, c in AUTOENCODERS.items()}
    return load_saved(folder, kinds)


def load_saved(folder: Path, kinds: Mapping[str, type[S]]) -> tuple[S, Card]:
    """The same for models of these kinds."""
    card = read_card(folder)
    if card.kind not in kinds:
        raise InvalidModel(
            f"{folder} is a model of kind {card.kind!r}; wanted is {' or '.join(sorted(kinds))}"
        )
    if card.format_version < kinds[card.kind].oldest_format:
        raise InvalidModel(
            f"{folder} is a {card.kind} model of format {card.format_version}, whose layout this "
            "version no longer reads; train it again, or index into a new gallery with the "
            "bundled model"
        )
    if card.preprocessing != PREPROCESSING:
        raise ArtifactMismatch(
            f"{folder} was trained for version {card.preprocessing} of the image rules; "
            f"this is version {PREPROCESSING}"
        )
    try:
        with torch.device("meta"):  # nothing is allocated for what the card may claim
            model = kinds[card.kind](**card.architecture)
    except (InvalidModel, TypeError) as error:
        raise InvalidModel(
            f"{folder} is a {card.kind} model that this version of hashsearch cannot build: {error}"
        ) from error
    try:
        weights = load_file(folder / WEIGHTS_FILE)
        _require_alike(model.state_dict(), weights)
        # Stored in fewer bits or not, they compute in float32.
        state = {
            name: part.float() if part.is_floating_point() else part
            for name, part in weights.items()
        }
        model.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError, InvalidModel) as error:
        raise InvalidModel(f"{folder} holds no usable {WEIGHTS_FILE}: {error}") from error
    found = fingerprint(card.kind, card.architecture, weights)
    if found != card.fingerprint:
        raise ArtifactMismatch(
            f"{folder}: the weights have fingerprint {found[:12]}, "
            f"the card tells of {card.fingerprint[:12]}"
        )
    if (card.bits, card.address_bits) != (model.bits, model.address_bits):
        raise InvalidModel(
            f"{folder}: the card tells of {card.bits} bits and {card.address_bits} address bits, "
            f"the model has {model.bits} and {model.address_bits}"
        )
    return model.requires_grad_(False).eval(), card


def _require_alike(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise InvalidModel, naming the first difference in names, shapes and kinds of numbers."""
    for name in sorted(wanted.keys() | found.keys()):
        ours, theirs = wanted.get(name), found.get(name)
        if ours is None or theirs is None:
            raise InvalidModel(f"{name} is {'missing' if theirs is None else 'not of this model'}")
        dtypes = _FLOATS if ours.is_floating_point() else {ours.dtype}
        if theirs.shape != ours.shape or theirs.dtype not in dtypes:
            raise InvalidModel(
                f"{name} is {tuple(theirs.shape)} {theirs.dtype}; "
                f"{tuple(ours.shape)} {ours.dtype} was wanted"
            )


def require_free(folder: Path) -> None:
    """Raise InvalidModel if something already lies where a model should be saved."""
    if folder.exists():
        raise InvalidModel(f"{folder} already exists; a model is saved under a new name")
