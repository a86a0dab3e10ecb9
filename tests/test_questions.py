"""What a training is compared on: images that it does not see, wherever they are read from."""

import io
import tarfile
from itertools import count

import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.sources.loading import load_labelled_images
from tests.conftest import part_of_cifar10
from training.questions import UNSEEN_CLASSES, questions

OTHER_CLASSES = ("n01629819", "n04532671")


def archive_of(path, names, content):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in names:
            data = content(name)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def flat_png(shades):
    """One-coloured images, each lighter than the one before."""

    def content(name):
        buffer = io.BytesIO()
        Image.new("L", (32, 32), next(shades)).save(buffer, "PNG")
        return buffer.getvalue()

    return content


def tiny_imagenet(folder, classes, n_each=11):
    """A data folder with a small tinyimagenet32 of these classes."""
    folder.mkdir()
    names = [
        f"tinyimagenet32/train/{name}/{name}_{n}.png" for name in classes for n in range(n_each)
    ]
    archive_of(folder / "tinyimagenet32.tar.gz", names, flat_png(count()))
    return DataFolders(folder, folder / "cache")


def test_without_data_there_is_nothing_to_measure_on(tmp_path):
    assert questions(DataFolders(None, tmp_path)) == []
    assert questions(DataFolders(tmp_path, tmp_path / "cache")) == []


def test_every_25th_training_image_of_cifar10_is_a_query(cifar10, tmp_path):
    folders = DataFolders(
        part_of_cifar10(cifar10, tmp_path / "data", train=100, test=5000), tmp_path
    )
    (heldout,) = questions(folders)
    images, labels = load_labelled_images(dataset_at_hand("cifar10", "train", folders))
    numbers = range(len(images))
    asked = [n for n in numbers if n % 25 == 0]
    others = [n for n in numbers if n % 25]
    assert heldout.name == "heldout"
    assert "20 of CIFAR-10's training images, and the gallery is its other 480" in heldout.meaning
    assert (len(asked), len(others)) == (20, 480)
    assert_array_equal(heldout.queries, images[asked])
    assert_array_equal(heldout.query_labels, labels[asked])
    assert_array_equal(heldout.gallery, images[others])
    assert_array_equal(heldout.gallery_labels, labels[others])
    assert "airplane" in heldout.query_labels


def test_every_tenth_image_of_the_unseen_classes_is_a_query_and_no_other_image_is_there(tmp_path):
    classes = (OTHER_CLASSES[0], *UNSEEN_CLASSES[:2], OTHER_CLASSES[1])
    (unseen,) = questions(tiny_imagenet(tmp_path / "data", classes))
    shades = range(11, 33)  # of the two classes in the middle
    assert unseen.name == "unseen"
    assert "3 images of 2 classes of tinyimagenet32 that no training uses" in unseen.meaning
    assert unseen.meaning.endswith("the gallery is the other 19 of these classes")
    assert unseen.queries[:, 0, 0, 0].tolist() == list(shades[::10])
    assert unseen.gallery[:, 0, 0, 0].tolist() == [n for n in shades if (n - 11) % 10]
    first, second = UNSEEN_CLASSES[:2]
    assert unseen.query_labels.tolist() == [first, first, second]
    assert unseen.gallery_labels.tolist() == [first] * 9 + [second] * 10


def test_the_unseen_classes_are_found_where_only_they_are_at_hand(tmp_path):
    (unseen,) = questions(tiny_imagenet(tmp_path / "data", UNSEEN_CLASSES))
    assert len(unseen.queries) == 22
    assert set(unseen.gallery_labels) == set(UNSEEN_CLASSES)


def test_images_of_other_classes_are_not_decoded(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    png = flat_png(count())
    names = [
        f"tinyimagenet32/train/{name}/{n}.png" for name in UNSEEN_CLASSES[:1] for n in range(11)
    ]
    broken = [f"tinyimagenet32/train/{OTHER_CLASSES[0]}/{n}.png" for n in range(5)]
    archive_of(
        folder / "tinyimagenet32.tar.gz",
        broken + names,
        lambda name: b"broken" if name in broken else png(name),
    )
    (unseen,) = questions(DataFolders(folder, tmp_path))
    assert len(unseen.queries) + len(unseen.gallery) == 11


def test_an_archive_without_the_unseen_classes_asks_nothing(tmp_path):
    assert questions(tiny_imagenet(tmp_path / "data", OTHER_CLASSES)) == []


@pytest.mark.soak
def test_the_unseen_classes_are_every_tenth_of_tinyimagenets(folders):
    whole = dataset_at_hand("tinyimagenet32", "train", folders)
    if whole is None:
        pytest.skip("tinyimagenet32 is not under HASHSEARCH_DATA")
    ids = sorted({image.label for image in whole})
    assert tuple(ids[::10]) == UNSEEN_CLASSES
    assert len(UNSEEN_CLASSES) == 20
