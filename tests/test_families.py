"""The two tables of model families, and what an additional family takes: a line in each."""

from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from hashsearch.encoder import Encoder
from hashsearch.models import AUTOENCODERS
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.storage import read_model
from tests.galleries import run
from tests.test_imports import imports_without
from training import job
from training.families import PRESETS
from training.families.base import AutoencoderPreset
from training.optimizers import adam, descend


class ToyAutoencoder(Autoencoder):
    """A linear layer to 8 bits and back, and another one to addresses of 12 bits."""

    kind = "toy"
    bits = 8
    address_bits = 12

    def __init__(self, gain: float):
        super().__init__()
        self.gain = gain
        self.register_buffer("pixel_mean", torch.zeros(3))
        self.register_buffer("pixel_std", torch.ones(()))
        self.encode, self.decode = nn.Linear(3072, 8), nn.Linear(8, 3072)
        self.address = nn.Linear(3072, 12)

    def architecture(self):
        return {"gain": self.gain}

    def standardize(self, tiny):
        return ((tiny - self.pixel_mean) / self.pixel_std).flatten(1)

    def code_logits(self, tiny):
        return self.gain * self.encode(self.standardize(tiny))

    def address_logits(self, tiny):
        return self.address(self.standardize(tiny))

    def reconstruct(self, bits):
        pixels = self.decode(bits).unflatten(1, (32, 32, 3))
        return pixels * self.pixel_std + self.pixel_mean


@dataclass(frozen=True)
class ToyPreset(AutoencoderPreset[ToyAutoencoder]):
    gain: float

    def build(self):
        return ToyAutoencoder(self.gain)

    @property
    def images_needed(self):
        return 32

    def learn(self, model, work):
        images, optimizer = work.resident(), adam(model.parameters(), work.device, decay=0.0)

        def compute(rows, random):
            pixels = model.standardize(images[rows])
            decoded = model.decode(torch.sigmoid(model.encode(pixels)))
            return {"loss": descend([optimizer], (decoded - pixels).square().mean())}

        optimizers = {"adam": (optimizer, 1e-3)}
        work.stage("toy", {"model": model}, optimizers, compute, batch=32, steps=1, part=0)

    def filters(self, model):
        return model.encode.weight.detach().numpy().reshape(-1, 32, 32, 3)


def test_a_line_in_each_table_adds_a_family(tiny_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(AUTOENCODERS, "toy", f"{__name__}:ToyAutoencoder")
    monkeypatch.setitem(PRESETS, "toy8", ToyPreset(gain=2.0))
    folder = tmp_path / "model"
    job.train("toy8", PRESETS["toy8"], tiny_images, folder, data="tests", seed=0, device="cpu")
    model, card = read_model(folder)
    assert type(model) is ToyAutoencoder
    assert (card.kind, card.bits, card.address_bits) == ("toy", 8, 12)
    assert card.training["steps"] == {"toy": 1}
    assert card.metrics["psnr_db"] > 0
    tiny = torch.from_numpy(tiny_images)
    encoder = Encoder.load(folder)
    codes = encoder.encode(tiny_images)
    assert codes.shape == (300, 1)
    assert (np.unpackbits(codes, axis=1) == (model.code_logits(tiny) >= 0).numpy()).mean() > 0.99
    columns = encoder.columns(tiny_images)
    assert_array_equal(columns["codes"], codes)
    assert_array_equal(columns["addresses"], encoder.addresses(tiny_images))
    assert columns["addresses"].shape == (300, 2)
    assert encoder.reconstruct(codes).shape == tiny_images.shape
    assert run("model", "info", folder) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for entry in (["kind", "toy"], ["gain", "2.0"], ["bits", "8"], ["preset", "toy8"]):
        assert entry in lines


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_a_family_is_listed_under_its_kind(kind):
    family = resolve_name(AUTOENCODERS[kind])
    assert issubclass(family, Autoencoder)
    assert family.kind == kind


@pytest.mark.parametrize(
    "name", [n for n, p in PRESETS.items() if isinstance(p, AutoencoderPreset)]
)
def test_every_preset_of_an_autoencoder_builds_a_listed_family(name):
    with torch.device("meta"):
        model = PRESETS[name].build()
    assert type(model) is resolve_name(AUTOENCODERS[model.kind])


def test_a_card_is_read_without_torch():
    statement = "from hashsearch.models.card import PRETRAINED, read_card\n"
    statement += "print(read_card(PRETRAINED).kind)"
    done = imports_without(["torch", "faiss"], statement)
    assert done.stdout.strip() in AUTOENCODERS, done.stderr
