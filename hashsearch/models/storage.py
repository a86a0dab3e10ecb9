"""Model folders: `weights.safetensors` and `card.json`, written completely or not at all."""

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

from hashsearch.closeness import Closeness
from hashsearch.durable import require_writable, sync_folder, sync_tree
from hashsearch.errors import ArtifactMismatch, InvalidModel
from hashsearch.images import READ_PREPROCESSINGS
from hashsearch.models import AUTOENCODERS
from hashsearch.models.autoencoder import Autoencoder, StoredModel
from hashsearch.models.card import (
    CARD_FILE,
    WEIGHTS_FILE,
    Card,
    fingerprint,
    model_name,
    read_card,
)

S = TypeVar("S", bound=StoredModel)
_FLOATS = {torch.float16, torch.bfloat16, torch.float32}  # types that weights may be stored in


def save_model(
    folder: Path,
    model: StoredModel,
    *,
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    closeness: Closeness | None = None,
    beside: Iterable[Path] = (),
) -> Card:
    """Write a model folder, which appears under its name when it is complete.

    beside: files and folders on the same file system, which are moved into it.
    Raises InvalidModel if `folder` exists.
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
        closeness=closeness,
    )
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file(weights, temporary / WEIGHTS_FILE)
        (temporary / WEIGHTS_FILE).chmod(0o644)  # safetensors lets only the owner read it
        (temporary / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        for path in beside:
            path.replace(temporary / path.name)
        temporary.chmod(0o755)  # mkdtemp lets only the owner read it
        sync_tree(temporary)
        temporary.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return card


def round_as_stored(model: StoredModel) -> None:
    """Round the weights as saving does, so that the model computes what the loaded one will."""
    model.load_state_dict(_stored(model))


def _stored(model: StoredModel) -> dict[str, Tensor]:
    """Weights by name: kernels and matrices in the type `stored`, other tensors unchanged."""
    return {
        name: (tensor.to(model.stored) if tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }


def read_model(folder: Path) -> tuple[Autoencoder, Card]:
    """Read an autoencoder's folder; the model is on the CPU and in evaluation mode.

    Raises InvalidModel if the folder is missing, damaged or of an unknown format, and
    ArtifactMismatch if it is for an unknown version of the image rules, or if weights and
    card do not match.
    """
    kinds: dict[str, type[Autoencoder]] = {k: resolve_name(c) for k, c in AUTOENCODERS.items()}
    return load_saved(folder, kinds)


def load_saved(folder: Path, kinds: Mapping[str, type[S]]) -> tuple[S, Card]:
    """Like `read_model`, for a model of one of these kinds."""
    card, named = read_card(folder), model_name(folder)
    if card.kind not in kinds:
        raise InvalidModel(
            f"{named} is a model of kind {card.kind!r}; expected {' or '.join(sorted(kinds))}"
        )
    if card.format_version < kinds[card.kind].oldest_format:
        raise InvalidModel(
            f"{named} is a {card.kind} model of format {card.format_version}, whose layout this "
            "version no longer reads; train it again, or index into a new gallery with the "
            "bundled model"
        )
    if card.preprocessing not in READ_PREPROCESSINGS:
        raise ArtifactMismatch(
            f"{named} was trained for version {card.preprocessing} of the image rules; "
            f"this version of hashsearch knows {' and '.join(READ_PREPROCESSINGS)}"
        )
    try:
        with torch.device("meta"):  # allocates no memory, however large the card claims
            model = kinds[card.kind](**card.architecture)
    except (InvalidModel, TypeError) as error:
        raise InvalidModel(
            f"{named} is a {card.kind} model that this version of hashsearch cannot build: {error}"
        ) from error
    try:
        weights = load_file(folder / WEIGHTS_FILE)
        _require_alike(model.state_dict(), weights)
        # Weights compute in float32, whatever type they are stored in.
        state = {
            name: part.float() if part.is_floating_point() else part
            for name, part in weights.items()
        }
        model.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError, InvalidModel) as error:
        raise InvalidModel(f"{named} holds no usable {WEIGHTS_FILE}: {error}") from error
    found = fingerprint(card.kind, card.architecture, weights, card.preprocessing)
    if found != card.fingerprint:
        raise ArtifactMismatch(
            f"{named}: the weights have fingerprint {found[:12]}, "
            f"the card says {card.fingerprint[:12]}"
        )
    if (card.bits, card.address_bits) != (model.bits, model.address_bits):
        raise InvalidModel(
            f"{named}: the card says {card.bits} bits and {card.address_bits} address bits, "
            f"the model has {model.bits} and {model.address_bits}"
        )
    return model.requires_grad_(False).eval(), card


def _require_alike(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise InvalidModel at the first tensor whose name, shape or type differs."""
    for name in sorted(wanted.keys() | found.keys()):
        ours, theirs = wanted.get(name), found.get(name)
        if ours is None or theirs is None:
            raise InvalidModel(
                f"{name} is {'missing' if theirs is None else 'not part of this model'}"
            )
        dtypes = _FLOATS if ours.is_floating_point() else {ours.dtype}
        if theirs.shape != ours.shape or theirs.dtype not in dtypes:
            raise InvalidModel(
                f"{name} is {tuple(theirs.shape)} {theirs.dtype}; "
                f"{tuple(ours.shape)} {ours.dtype} was wanted"
            )


def require_free(folder: Path) -> None:
    """Raise InvalidModel if the folder of a new model exists, and NotWritable."""
    if folder.exists():
        raise InvalidModel(f"{folder} already exists; choose a new name for the model")
    require_writable(folder)
