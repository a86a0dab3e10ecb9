"""Small presets, and trainings by them that may be stopped anywhere."""

import csv
import os
import signal
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file

from training import job, run
from training.data import Examples
from training.families.convolutional import ConvolutionalPreset
from training.families.dense import DensePreset, Pretraining
from training.families.labelled import LabelledPreset
from training.families.transform import TransformPreset

DENSE = DensePreset(
    (3072, 64, 32, 256),
    "logistic",
    steps=12,
    batch=32,
    learning_rate=1e-3,
    noise=0.2,
    sparsity=0.01,
    pretraining=Pretraining(steps=6, batch=32),
)
CONVOLUTIONAL = ConvolutionalPreset(
    (8, 16, 32), (0, 1, 0), ((4, 3), (9, 2)), 10, 4, batch=32, decoder_batch=32
)
ANEW = replace(CONVOLUTIONAL, steps=0, depths=((20, 3),))  # of a trained one, its code alone
LABELLED = LabelledPreset(**vars(replace(CONVOLUTIONAL, steps=40)))
TRANSFORM = TransformPreset(((32, 8),), width=8, steps=6, batch=32)


def train(images, out, preset, **options):
    return job.train("t", preset, images, out, data="tests", seed=3, device="cpu", **options)


def split_off(images, held_out, seed):
    """The images that a training with this seed is given, and those it holds out."""
    parts = Examples(images).split(held_out, np.random.default_rng(seed))
    return tuple(part.images for part in parts)


def weights_of(folder):
    return load_file(folder / "weights.safetensors")


def assert_same_weights(folder, other):
    ours, theirs = weights_of(folder), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def rows_of(log):
    with log.open(newline="") as file:
        return [(row["stage"], int(row["step"]), row["loss"]) for row in csv.DictReader(file)]


class StopAfter:
    """Ask a run to stop, by a real signal, once it has taken so many steps."""

    def __init__(self, monkeypatch, steps):
        self.left = steps
        sound = run._require_sound
        monkeypatch.setattr(run, "_require_sound", lambda *given: (self.count(), sound(*given))[1])

    def count(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
