"""`conv256-labelled`: the convolutional autoencoder, whose bits also learn labels."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from hashsearch.codes import ADDRESS_BITS, CODE_BITS
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training.augment import Views
from training.data import Examples
from training.families.base import Start, Work
from training.families.convolutional import (
    CONV,
    ConvolutionalPreset,
    describe_views,
    encoder_stage,
    likeness_terms,
    n_features,
    optimizers,
    refine_decoder,
    total,
    view_terms,
)
from training.labels import Proxies
from training.likeness import Likeness, soft_bits
from training.optimizers import descend_sum
from training.sharpen import centre_code
from training.transform_coding import fit_transform

# From few images, mild views with holes learn more in as many steps (docs/experiments.md).
_MILD = Views(smallest=0.6, jitter=0.3, tint=0.0, grey=0.0, hole=10)


@dataclass(frozen=True)
class LabelledPreset(ConvolutionalPreset):
    """Settings of a convolutional autoencoder that learns labels.

    label_free: weight of the terms that need no labels, beside those of the labels; within
    them, the parent's settings apply. With another model's weights: tuning_views, augmentations
    of both views, in place of the parent's; tuning_rate, a factor of the encoder's learning
    rates; tuning_passes over the labelled images, by the encoder and by the decoder, at most,
    since more would learn few images by heart.
    """

    label_free: float = 0.1
    tuning_views: Views = field(default_factory=lambda: _MILD)
    tuning_rate: float = 0.5
    tuning_passes: tuple[int, int] = (150, 20)

    terms: ClassVar[tuple[str, ...]] = ("labels", *ConvolutionalPreset.terms)

    @property
    def takes_labels(self) -> bool:
        return True

    def start(self, folder: Path | None) -> Start | None:
        """Read a trained model, all of it: its picture bits are kept."""
        return None if folder is None else self.start_from(folder)

    @property
    def images_needed(self) -> int:
        return sum(count for count, _ in self.depths) + 1

    def learn(self, model: ConvolutionalAutoencoder, work: Work) -> None:
        preset = self
        if work.begun:
            kernel_rate, learning_rate = (
                self.tuning_rate * rate for rate in (self.kernel_rate, self.learning_rate)
            )
            preset = replace(
                self,
                kernel_rate=kernel_rate,
                learning_rate=learning_rate,
                views=self.tuning_views,
                other_views=self.tuning_views,
            )
        encoder_passes, decoder_passes = self._passes(work) if work.begun else (None, None)
        learn_labels(model, preset, work, encoder_passes)
        refine_decoder(model, preset, work, decoder_passes)

    def _passes(self, work: Work) -> tuple[int, int]:
        """tuning_passes, fewer where a source is named several times for its labels."""
        labelled = Examples(work.images, work.labels)
        assert work.labels is not None
        distinct = int((labelled.first_copies() & work.labels.known).sum())
        times = work.labels.known.sum() / distinct
        encoder, decoder = self.tuning_passes
        return math.ceil(encoder / times), math.ceil(decoder / times)

    def finish_code(self, model: ConvolutionalAutoencoder, work: Work) -> None:
        if not work.begun:
            fit_transform(model, work.images)
        centre_code(model, work.images)


def learn_labels(
    model: ConvolutionalAutoencoder, preset: LabelledPreset, work: Work, passes: int | None
) -> None:
    """Train trunk, head, code and address on two views of each image, and on its label.

    The code's soft bits and the address's learn the labels. What needs no labels is learned
    from every image, too: a teacher's targets if there is one, otherwise the two views. passes:
    over the images, at most.
    """
    assert work.labels is not None
    images, classes = work.resident(), work.labels.tensor(work.device)
    widths = {"code": CODE_BITS - model.picture_bits, "address": ADDRESS_BITS}
    proxies = {name: Proxies(work.labels, bits, work.device) for name, bits in widths.items()}
    likeness = None
    if work.targets is not None:
        targets = work.targets.of(work.images, work.device)
        likeness = Likeness(targets, n_features(model))
    beside = nn.ModuleDict({**proxies, **({"likeness": likeness} if likeness else {})})
    kernels, others = optimizers(model, preset, work.device, beside=beside)
    sharp = torch.ones((), device=work.device)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        features, logits = describe_views(model, preset, images[rows], random, work.device)
        if likeness is not None:
            terms = likeness_terms(likeness, preset, rows, features, logits, sharp, random)
        else:
            terms = view_terms(preset, logits["head"])
            terms["code"] = total(view_terms(preset, logits["code"]))
            terms["address"] = preset.address * total(view_terms(preset, logits["address"]))
        terms = {name: preset.label_free * term for name, term in terms.items()}
        asked = classes[rows].repeat(2)
        losses = {
            name: one.loss(asked, soft_bits(logits[name], sharp)) for name, one in proxies.items()
        }
        terms["labels"] = losses["code"] + preset.address * losses["address"]
        return descend_sum([kernels, others], terms)

    parts = {"model": model, "beside": beside}
    encoder_stage("labels", parts, (kernels, others), compute, preset, work, sharp, passes)


# The decoder needs minutes, labels hours.
PRESETS = {"conv256-labelled": LabelledPreset(**vars(CONV) | {"encoder_share": 0.93})}
