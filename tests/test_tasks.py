"""Labelled images split into queries and a gallery."""

import numpy as np
import pytest

from hashsearch.errors import EvaluationError
from hashsearch.evaluation.tasks import LabelledImages, split_task


@pytest.fixture
def labelled(tiny_images):
    return LabelledImages(tiny_images, np.array([f"kind {i % 3}" for i in range(300)]))


def contents(images):
    return {image.tobytes() for image in images.images}


def part(name, images, test=None, *, n_queries=None, pooled=False, seed=0):
    return split_task(name, images, test, n_queries=n_queries, pooled=pooled, seed=seed)


def test_with_a_test_split_that_is_searched_for(labelled):
    train, test = labelled[np.arange(200)], labelled[np.arange(200, 300)]
    task = part("pets", train, test)
    assert task.name == "pets-100-200"
    assert np.array_equal(task.queries.images, test.images)
    assert np.array_equal(task.gallery.images, train.images)


def test_queries_drawn_from_the_test_split_are_even_by_label_and_the_others_can_be_found(labelled):
    train, test = labelled[np.arange(200)], labelled[np.arange(200, 300)]
    task = part("pets", train, test, n_queries=30, pooled=True)
    assert task.name == "pets-30-270"
    assert np.unique(task.queries.labels, return_counts=True)[1].tolist() == [10, 10, 10]
    assert not contents(task.queries) & contents(task.gallery)
    assert contents(train) < contents(task.gallery)
    alone = part("pets", train, test, n_queries=30)
    assert alone.name == "pets-30-200"
    assert contents(alone.queries) == contents(task.queries)
    assert alone.digest != task.digest


def test_thousands_are_named_shortly(labelled):
    many = labelled[np.arange(3000) % 300]
    assert part("pets", many, labelled[np.arange(100)]).name == "pets-100-3k"


def test_without_a_test_split_queries_are_drawn_and_the_others_are_the_gallery(labelled):
    task = part("pets", labelled)
    assert task.name == "pets-30-270"
    assert not contents(task.queries) & contents(task.gallery)
    other = part("pets", labelled, seed=1)
    assert other.name == "pets-30-270-seed1"
    assert contents(other.queries) != contents(task.queries)


def test_a_label_with_few_images_keeps_half_of_them_to_be_found(labelled):
    """5 cats and 1 eel among 294 dogs: two cats are searched for, and no eel."""
    kinds = np.array(["cat"] * 5 + ["eel"] + ["dog"] * 294)
    task = part("pets", LabelledImages(labelled.images, kinds), n_queries=30)
    assert sorted(task.queries.labels.tolist()) == ["cat"] * 2 + ["dog"] * 28
    assert sorted(task.gallery.labels.tolist()) == ["cat"] * 3 + ["dog"] * 266 + ["eel"]
    assert task.unanswerable == 0


def test_queries_of_a_label_that_cannot_be_found_are_left_out_and_counted(labelled):
    test = LabelledImages(labelled.images, np.where(np.arange(300) < 2, "rare", labelled.labels))
    task = part("pets", labelled, test, n_queries=50)
    assert (len(task.queries), task.unanswerable) == (48, 2)


def test_images_without_a_label_are_left_out(labelled):
    some = LabelledImages(labelled.images, np.where(np.arange(300) < 90, "", labelled.labels))
    task = part("pets", some, n_queries=10)
    assert len(task.queries) + len(task.gallery) == 210
    assert task.unlabelled == 90


def test_images_without_any_label_cannot_be_measured(labelled):
    none = LabelledImages(labelled.images, np.full(300, ""))
    with pytest.raises(EvaluationError, match="pets: none of 300 images has a label"):
        part("pets", none)


def test_more_queries_than_can_be_drawn_are_refused(labelled):
    wanted = "151 queries were asked for; of 300 images 150 can be drawn, at most half of each"
    with pytest.raises(EvaluationError, match=wanted):
        part("pets", labelled, n_queries=151)
    with pytest.raises(EvaluationError, match="of 100 images 100 can be drawn, all of each label"):
        part("pets", labelled, labelled[np.arange(100)], n_queries=101)


def test_labels_that_are_all_different_or_all_the_same_are_refused(labelled):
    lonely = LabelledImages(labelled.images, np.array([f"{i}" for i in range(300)]))
    with pytest.raises(EvaluationError, match="of 300 images 0 can be drawn"):
        part("pets", lonely)
    same = LabelledImages(labelled.images, np.full(300, "cat"))
    with pytest.raises(EvaluationError, match="all images to find have one label, cat"):
        part("pets", same)
    with pytest.raises(EvaluationError, match="no image to find has the label of any query"):
        part("pets", labelled, same)


def test_pooling_needs_test_images_of_which_some_are_not_drawn(labelled):
    for test, n_queries in ((None, 10), (labelled, None)):
        with pytest.raises(EvaluationError, match="--pool lets test images that are not drawn"):
            part("pets", labelled, test, n_queries=n_queries, pooled=True)


def test_other_images_or_labels_are_another_task(labelled):
    swapped = LabelledImages(labelled.images, labelled.labels[::-1])
    digests = {
        part("pets", labelled, test).digest
        for test in (labelled[np.arange(50)], labelled[np.arange(51)], swapped[np.arange(50)])
    }
    assert len(digests) == 3
