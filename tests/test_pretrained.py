"""The model that comes with the package, held to what its card and the README say of it."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from hashsearch.codes import unpack_bits
from hashsearch.encoder import Encoder
from hashsearch.metrics import psnr_db
from hashsearch.models.card import PRETRAINED
from hashsearch.models.storage import read_model
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.loading import load_labelled_images
from tests.conftest import part_of_cifar10
from training.retrieval import Question, retrieval_by_bits


def question(archive: Path) -> Question:
    """CIFAR-10's test images to search for among its training images."""
    gallery, queries = (
        TarArchive(archive, under=f"cifar10/{split}/") for split in ("train", "test")
    )
    return Question("cifar10", *load_labelled_images(gallery), *load_labelled_images(queries))


@pytest.fixture(scope="module")
def some(cifar10, tmp_path_factory) -> Question:
    """2,000 training and 500 test images."""
    folder = tmp_path_factory.mktemp("part") / "data"
    return question(part_of_cifar10(cifar10, folder, train=25, test=20) / cifar10.name)


def bits_of(images: np.ndarray) -> np.ndarray:
    return unpack_bits(Encoder.load(PRETRAINED).encode(images), 256)


def test_it_is_small_and_of_256_bits_with_an_address():
    assert sum(file.stat().st_size for file in PRETRAINED.rglob("*")) < 12_000_000
    _, card = read_model(PRETRAINED)
    assert (card.bits, card.address_bits) == (256, 28)


def test_it_was_trained_on_training_images_alone():
    _, card = read_model(PRETRAINED)
    assert set(card.training["data"].split(" + ")) <= {"cifar10", "cifar100", "tinyimagenet32"}


def test_its_codes_find_images_of_a_kind_more_often_than_pixels_do(some):
    by_code = retrieval_by_bits(some, bits_of(some.gallery), bits_of(some.queries))
    neighbours = NearestNeighbors(n_neighbors=10).fit(some.gallery.reshape(-1, 3072))
    nearest = neighbours.kneighbors(some.queries.reshape(-1, 3072), return_distance=False)
    alike = some.gallery_labels[nearest] == some.query_labels[:, np.newaxis]
    assert by_code["precision_at_1"] > alike[:, 0].mean() + 0.1
    assert by_code["precision_at_10"] > alike.mean() + 0.1


def test_pictures_come_back_from_its_codes(some):
    encoder = Encoder.load(PRETRAINED)
    images = some.queries[::10]
    _, card = read_model(PRETRAINED)
    found = psnr_db(images, encoder.reconstruct(encoder.encode(images)))
    assert found == pytest.approx(card.metrics["psnr_db"], abs=1.0)  # another 100 images


@pytest.mark.soak
def test_the_figures_of_its_card_are_measured_again(cifar10):
    _, card = read_model(PRETRAINED)
    every = question(cifar10)
    measured = retrieval_by_bits(every, bits_of(every.gallery), bits_of(every.queries))
    for name in ("precision_at_1", "precision_at_10", "map_at_1000"):
        value = measured[name]
        assert value == pytest.approx(card.metrics[f"cifar10_codes_{name}"], abs=2e-3)
