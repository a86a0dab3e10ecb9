"""The models that come with the package, held to what their cards and the docs say of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.neighbors import NearestNeighbors

from hashsearch.codes import unpack_bits
from hashsearch.encoder import Encoder
from hashsearch.metrics import psnr_db
from hashsearch.models.card import (
    CARD_FILE,
    PRETRAINED_MODELS,
    WEIGHTS_FILE,
    data_sets,
    label_sets,
    pretrained_name,
    read_card,
)
from hashsearch.models.storage import read_model
from hashsearch.sources import DataFolders
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.loading import load_labelled_images
from tests.conftest import part_of_cifar10
from training.questions import questions
from training.retrieval import Question, retrieval_by_bits

ROOT = Path(__file__).parents[1]
each_model = pytest.mark.parametrize("name", PRETRAINED_MODELS)


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


def bits_of(name: str, images: np.ndarray) -> np.ndarray:
    return unpack_bits(Encoder.load(PRETRAINED_MODELS[name]).encode(images), 256)


@each_model
def test_a_model_is_small_and_of_256_bits_with_an_address(name):
    folder = PRETRAINED_MODELS[name]
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert files.keys() == {WEIGHTS_FILE, CARD_FILE}
    assert sum(files.values()) < 12_000_000
    _, card = read_model(folder)
    assert (card.bits, card.address_bits) == (256, 28)
    assert pretrained_name(card.fingerprint) == name
    assert pretrained_name("0" * 64) is None


def test_the_models_were_trained_on_training_images_alone_and_one_with_labels():
    cards = {name: read_card(folder) for name, folder in PRETRAINED_MODELS.items()}
    for card in cards.values():
        assert set(data_sets(card.training)) <= {"cifar10", "cifar100", "tinyimagenet32"}
    assert {name: label_sets(card.training) for name, card in cards.items()} == {
        "bundled": [],
        "general": ["cifar100", "tinyimagenet32"],
    }


def test_the_labels_that_a_model_learned_are_also_those_that_its_start_learned():
    first = {"data": "a + b", "labels": {"classes": {"a": 2}}}
    second = {"data": "c", "start": {"fingerprint": "1", "training": first}}
    third = {"data": "d + a", "labels": {"classes": {"d": 3}}, "start": {"training": second}}
    assert data_sets(third) == ["d", "a", "c", "b"]
    assert label_sets(third) == ["d", "a"]
    assert label_sets({"labels": "odd", "start": "odd"}) == []


@each_model
def test_codes_find_images_of_a_kind_more_often_than_pixels_do(name, some):
    by_code = retrieval_by_bits(some, bits_of(name, some.gallery), bits_of(name, some.queries))
    neighbours = NearestNeighbors(n_neighbors=10).fit(some.gallery.reshape(-1, 3072))
    nearest = neighbours.kneighbors(some.queries.reshape(-1, 3072), return_distance=False)
    alike = some.gallery_labels[nearest] == some.query_labels[:, np.newaxis]
    assert by_code["precision_at_1"] > alike[:, 0].mean() + 0.1
    assert by_code["precision_at_10"] > alike.mean() + 0.1


@each_model
def test_pictures_come_back_from_codes(name, some):
    encoder = Encoder.load(PRETRAINED_MODELS[name])
    images = some.queries[::10]
    card = read_card(PRETRAINED_MODELS[name])
    found = psnr_db(images, encoder.reconstruct(encoder.encode(images)))
    assert found == pytest.approx(card.metrics["cifar10_psnr_db"], abs=1.0)  # of 100 images


def test_both_models_encode_the_picture_itself_in_the_same_bits(tiny_images):
    bundled, general = (bits_of(name, tiny_images) for name in PRETRAINED_MODELS)
    assert_array_equal(general[:, :96], bundled[:, :96])
    assert (general[:, 96:] != bundled[:, 96:]).mean() > 0.1


def test_the_model_with_labels_finds_kinds_that_it_never_saw_better():
    """That it does is why it was bundled."""
    bundled, general = (read_card(folder).metrics for folder in PRETRAINED_MODELS.values())
    name = "unseen_codes_precision_at_10"
    assert general[name] >= bundled[name] + 0.05


@each_model
def test_the_docs_have_the_figures_of_the_cards(name):
    """The columns of docs/models.md."""
    card = read_card(PRETRAINED_MODELS[name])
    metrics = card.metrics
    lines = (ROOT / "docs" / "models.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[0] == ["", "`bundled`", "`general`"]
    column = 1 + list(PRETRAINED_MODELS).index(name)
    shown = {row[0]: row[column] for row in rows}
    for measured, title in {
        "unseen_codes_precision_at_10": "P@10",
        "unseen_codes_map_at_1000": "mAP@1000",
        "cifar10_codes_precision_at_10": "P@10 on CIFAR-10",
        "cifar10_codes_map_at_1000": "mAP@1000 on CIFAR-10",
        "cifar10_addresses_map_at_1000": "mAP@1000 of addresses on CIFAR-10",
    }.items():
        assert shown[title] == f"{metrics[measured]:.3f}".lstrip("0")
    assert shown["pictures decode with"] == f"{metrics['cifar10_psnr_db']:.1f} dB"
    addresses = f"{metrics['heldout_distinct_addresses']:,}"
    assert shown["distinct addresses of 48,000 images"] == addresses
    assert card.closeness is not None
    for word, distance in card.closeness.as_dict().items():
        assert shown[f"`{word}`"] == f"{distance}"


@pytest.mark.soak
@each_model
def test_the_figures_of_a_card_are_measured_again(name, cifar10):
    every = [question(cifar10), *questions(DataFolders.of_environment())]
    if [asked.name for asked in every] != ["cifar10", "heldout", "unseen"]:
        pytest.skip("tinyimagenet32 is not under HASHSEARCH_DATA")
    card = read_card(PRETRAINED_MODELS[name])
    encoder = Encoder.load(PRETRAINED_MODELS[name])
    for asked in every:
        gallery, queries = (encoder.columns(part) for part in (asked.gallery, asked.queries))
        for what, bits in {"codes": 256, "addresses": 28}.items():
            found = retrieval_by_bits(
                asked, *(unpack_bits(part[what], bits) for part in (gallery, queries))
            )
            for measure in ("precision_at_1", "precision_at_10", "map_at_1000"):
                wanted = card.metrics[f"{asked.name}_{what}_{measure}"]
                assert found[measure] == pytest.approx(wanted, abs=3e-3), (asked.name, what)
    pictures = encoder.reconstruct(encoder.encode(every[0].queries))
    assert psnr_db(every[0].queries, pictures) == pytest.approx(
        card.metrics["cifar10_psnr_db"], abs=0.02
    )
