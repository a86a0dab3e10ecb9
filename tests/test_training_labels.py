"""Trainings that learn labels: what they are given, the loss, and what they gain."""

import csv
import re
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.codes import unpack_bits
from hashsearch.encoder import Encoder
from hashsearch.errors import TrainingError
from hashsearch.models.card import PRETRAINED, read_card
from tests.test_retrieval import bits_about, question_of, slow_ranking
from tests.trainings import (
    CONVOLUTIONAL,
    LABELLED,
    StopAfter,
    assert_same_weights,
    train,
)
from training import gain as gain_module
from training import job, retrieval
from training.data import Examples
from training.families.base import Work
from training.families.teacher import TeacherPreset
from training.gain import Before, ClassGain, Gain, seen_questions
from training.labels import UNLABELLED, ClassLabels, Proxies
from training.retrieval import precision_at_10_by_bits, retrieval_by_bits
from training.run import Run


def named(*labels: str) -> np.ndarray:
    return np.array(labels)


TWO_SETS = [
    ("pets", named("cat", "dog", "", "cat")),
    ("zoo", named("lion", "cat")),
    ("pets", named("dog")),
]


def some(*class_ids: int, n: int | None = None) -> ClassLabels:
    """Labels of one set, with classes 0, 1 and so on."""
    classes = tuple(("set", f"{number:03}") for number in range(n or max(class_ids) + 1))
    return ClassLabels(classes, np.array(class_ids))


@pytest.fixture(scope="module")
def kinds(image_files) -> ClassLabels:
    """Of `tiny_images`."""
    paths = sorted(image_files.rglob("*.*"), key=str)
    return ClassLabels.of_sets([("pictures", named(*(path.parent.name for path in paths)))])


@pytest.fixture(scope="module")
def unlabelled_model(unbroken):
    """A model of the same network, trained without labels."""
    return unbroken(CONVOLUTIONAL)[0]


def test_a_label_means_a_class_of_its_own_source():
    labels = ClassLabels.of_sets(TWO_SETS)
    assert labels.names == ["pets cat", "pets dog", "zoo cat", "zoo lion"]
    assert labels.texts.tolist() == [
        *("pets cat", "pets dog", "", "pets cat"),
        *("zoo lion", "zoo cat", "pets dog"),
    ]
    assert labels.sets == ["pets", "zoo"]
    assert labels.set_ids.tolist() == [0, 0, 1, 1]
    assert labels.about()["classes"] == {"pets": 2, "zoo": 2}
    assert labels.about()["images"] == 6
    assert ClassLabels.of_sets(TWO_SETS[:1]).names == ["cat", "dog"]


def test_classes_without_images_are_dropped_and_a_set_of_one_class_is_refused():
    labels = ClassLabels.of_sets(TWO_SETS)
    assert labels.learnable().about() == labels.about()
    more = replace(labels, classes=(*labels.classes, ("zoo", "zebra")))
    assert more.learnable().about() == labels.about()
    without = labels[labels.class_ids != 1]
    with pytest.raises(TrainingError, match=r"pets: all .* have the label 'cat', .*--unlabelled"):
        without.learnable()
    assert labels[labels.class_ids > 1].learnable().names == ["cat", "lion"]
    with pytest.raises(TrainingError, match="no image to train on has a label"):
        labels[~labels.known].learnable()


def test_only_images_of_one_set_are_known_to_be_of_other_kinds():
    labels = ClassLabels.of_sets(TWO_SETS)
    found = labels.unlike()
    for a, b in permutations(range(len(labels.class_ids)), 2):
        one, other = (labels.class_ids[row] for row in (a, b))
        if UNLABELLED in (one, other):
            assert found[a, b]
        else:
            same_set = labels.classes[one][0] == labels.classes[other][0]
            assert found[a, b] == (same_set and one != other)


@given(st.lists(st.integers(UNLABELLED, 4), min_size=1, max_size=300), st.integers(0, 90))
def test_images_are_held_out_of_each_class_evenly_and_never_too_many(numbers, most):
    labels = some(*numbers, n=5)
    held_out = labels.held_out(most)
    assert held_out.sum() <= most
    assert not held_out[~labels.known].any()
    taken = np.array([held_out[labels.class_ids == number].sum() for number in range(5)])
    whole = np.array([(labels.class_ids == number).sum() for number in range(5)])
    assert (taken <= whole / 4).all()
    assert (taken <= np.maximum(15, whole / 10)).all()
    could = taken < np.minimum(whole // 4, np.maximum(15, whole // 10))  # give one more
    assert not could.any() or (taken[could].min() >= taken.max() - 1 and held_out.sum() == most)


def test_classes_too_small_to_give_any_take_nothing_from_the_others():
    many = np.concatenate([np.repeat(np.arange(900), 2), np.repeat(np.arange(900, 910), 1000)])
    assert some(*many).held_out(1000).sum() == 1000
    assert some(*np.repeat(np.arange(5000), 8)).held_out(1000).sum() == 1000


def test_images_and_labels_stay_together_when_they_are_split(tiny_images, kinds):
    label_of = dict(zip(map(bytes, tiny_images), kinds.texts, strict=True))
    for times in (1, 5):
        images = np.tile(tiny_images, (times, 1, 1, 1))
        labels = replace(kinds, class_ids=np.tile(kinds.class_ids, times))
        rest, held_out = Examples(images, labels).split(60, np.random.default_rng(0))
        assert len(held_out) == 60
        assert len(rest) == times * (300 - 60)  # no copy of an image that is held out
        for part in (rest, held_out):
            assert [label_of[bytes(image)] for image in part.images] == part.labels.texts.tolist()


def test_images_without_a_label_are_held_out_where_those_with_one_are_few(tiny_images, kinds):
    few = replace(kinds, class_ids=np.where(np.arange(300) % 5, UNLABELLED, kinds.class_ids))
    _, held_out = Examples(tiny_images, few).split(200, np.random.default_rng(0))
    assert (~held_out.labels.known).sum() == 240 // 10
    assert 5 < held_out.labels.known.sum() <= 15


def test_images_of_small_classes_are_held_out_where_no_class_can_spare_one(tiny_images):
    small = some(*np.repeat(np.arange(100), 3))
    rest, held_out = Examples(tiny_images, small).split(60, np.random.default_rng(0))
    assert (len(rest), len(held_out)) == (270, 30)
    mixed = replace(small, class_ids=np.where(np.arange(300) < 60, small.class_ids, UNLABELLED))
    _, held_out = Examples(tiny_images, mixed).split(60, np.random.default_rng(0))
    assert len(held_out) == 30
    assert not held_out.labels.known.any()  # there are enough without a label


def slow_loss(labels, directions, rows, outputs, temperature=0.1):
    """One image at a time, by NumPy."""
    losses = []
    for number, output in zip(rows, outputs, strict=True):
        if number == UNLABELLED:
            continue
        own = [n for n, (name, _) in enumerate(labels.classes) if name == labels.classes[number][0]]
        cosines = {
            n: output @ directions[n] / np.linalg.norm(output) / np.linalg.norm(directions[n])
            for n in own
        }
        total = sum(np.exp(cosine / temperature) for cosine in cosines.values())
        losses.append(-np.log(np.exp(cosines[number] / temperature) / total))
    return np.mean(losses)


def test_the_loss_compares_an_image_with_the_classes_of_its_own_source():
    labels = ClassLabels.of_sets(TWO_SETS)
    torch.manual_seed(0)
    proxies = Proxies(labels, 12, "cpu")
    outputs = torch.randn(len(labels.class_ids), 12, requires_grad=True)
    loss = proxies.loss(labels.tensor("cpu"), outputs)
    directions = proxies.directions.detach().double().numpy()
    expected = slow_loss(labels, directions, labels.class_ids, outputs.detach().double().numpy())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    moved = outputs.grad.abs().sum(dim=1) > 0
    assert_array_equal(moved.numpy(), labels.known)


def test_images_without_labels_have_no_loss():
    proxies = Proxies(ClassLabels.of_sets(TWO_SETS), 12, "cpu")
    outputs = torch.randn(3, 12, requires_grad=True)
    loss = proxies.loss(torch.full((3,), UNLABELLED), outputs)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not outputs.grad.any()


def test_the_precision_of_a_query_is_expected_over_all_orders():
    random = np.random.default_rng(0)
    gallery = random.choice(["bird", "cat", "dog"], 400)
    queries = random.choice(["bird", "cat", "dog"], 12)
    question = question_of(gallery, queries)
    bits, asked = (bits_about(labels, 20, random) for labels in (gallery, queries))
    found = precision_at_10_by_bits(question, bits, asked)
    for row, label in enumerate(queries):
        distances = (bits != asked[row]).sum(axis=1)
        orders = [np.lexsort((random.random(400), distances)) for _ in range(400)]
        several = [slow_ranking(gallery[order], label)[1] for order in orders]
        assert found[row] == pytest.approx(np.mean(several), abs=0.04)


def test_memory_of_many_labels_changes_no_figure(monkeypatch):
    random = np.random.default_rng(0)
    labels = random.choice([f"{number}" for number in range(60)], 500)
    question = question_of(labels, labels[:40])
    bits = random.integers(0, 2, (500, 20)).astype(np.uint8)
    wanted = retrieval_by_bits(question, bits, bits[:40])
    monkeypatch.setattr(retrieval, "_COUNTS", 3 * 21 * 60)
    assert retrieval_by_bits(question, bits, bits[:40]) == wanted


@pytest.fixture(scope="module")
def parts(tiny_images, kinds):
    return Examples(tiny_images, kinds).split(60, np.random.default_rng(0))


def test_gains_are_those_of_each_class_and_of_all(unlabelled_model, parts):
    questions = seen_questions(*parts)
    encoder, other = Encoder.load(unlabelled_model), Encoder.load(PRETRAINED)
    gain = Before.of(PRETRAINED, questions, "cpu").gain(encoder.encode)
    (question,) = questions
    assert question.name == "seen"
    found = []
    for one in (other, encoder):
        images = question.gallery, question.queries
        bits = [unpack_bits(one.encode(part), 256) for part in images]
        found.append(precision_at_10_by_bits(question, *bits))
    before, after = found
    assert gain.model == "bundled"
    assert gain.whole.images == len(parts[1]) == sum(row.images for row in gain.rows)
    assert (gain.whole.before, gain.whole.after) == (before.mean(), after.mean())
    for row in gain.rows:
        own = question.query_labels == row.name
        assert (row.images, row.before) == (own.sum(), before[own].mean())
        assert row.after == after[own].mean()
    assert [row.gained for row in gain.rows] == sorted((r.gained for r in gain.rows), reverse=True)
    for count in (len(before), 10):
        interval = scipy.stats.ttest_rel(after[:count], before[:count]).confidence_interval()
        margin = gain_module._margin(after[:count] - before[:count])
        assert margin == pytest.approx((interval.high - interval.low) / 2, rel=2e-4)
    assert gain.margin == gain_module._margin(after - before)
    assert gain_module._margin(np.zeros(9)) is None


def test_images_of_one_set_are_searched_for_among_those_of_their_own(tiny_images, kinds):
    """Where another set has the same kinds under its own name."""
    classes = kinds.classes + tuple(("others", label) for _, label in kinds.classes)
    ids = kinds.class_ids + len(kinds.classes) * (np.arange(300) % 2)
    labels = ClassLabels(classes, ids)
    parts = Examples(tiny_images, labels).split(60, np.random.default_rng(0))
    questions = seen_questions(*parts)
    assert [question.name for question in questions] == ["seen_others", "seen_pictures"]
    for question, name in zip(questions, ("others", "pictures"), strict=True):
        for texts in (question.gallery_labels, question.query_labels):
            assert all(text.startswith(f"{name} ") for text in texts)
    assert sum(len(question.queries) for question in questions) == len(parts[1])


def test_copies_of_images_are_searched_once(tiny_images, kinds):
    """As of a source that is named several times."""
    thrice = Examples(
        np.tile(tiny_images, (3, 1, 1, 1)), replace(kinds, class_ids=np.tile(kinds.class_ids, 3))
    )
    (question,) = seen_questions(*thrice.split(60, np.random.default_rng(0)))
    assert len(question.gallery) == len({*map(bytes, question.gallery)}) == 240
    assert len(question.queries) == 60


def test_an_image_of_two_sources_is_searched_in_both(tiny_images, kinds):
    others = ClassLabels.of_sets([("a", kinds.texts), ("b", kinds.texts)])
    examples = Examples(np.tile(tiny_images, (2, 1, 1, 1)), others)
    nothing = examples[:0]
    held_out = examples[np.arange(600) % 300 < 10]
    found = seen_questions(examples, held_out)
    assert [len(question.gallery) for question in found] == [300, 300]
    assert seen_questions(examples, nothing) == []


def test_a_label_counts_if_a_copy_of_its_image_has_none(tiny_images, kinds):
    both = ClassLabels(kinds.classes, np.append(np.full(300, UNLABELLED), kinds.class_ids))
    examples = Examples(np.tile(tiny_images, (2, 1, 1, 1)), both)
    _, held_out = examples.split(60, np.random.default_rng(0))
    assert held_out.labels.known.sum() == 60 == len(held_out)


def test_of_many_classes_those_that_gained_most_and_least_are_shown():
    rows = tuple(ClassGain(f"kind {n}", 4, 0.5, 0.9 - n / 100) for n in range(30))
    lines = list(Gain("bundled", rows, ClassGain("all", 120, 0.5, 0.755), 0.04).lines())
    assert lines[0].split() == ["P@10", "images", "before", "after", "gain"]
    assert [line.split()[1] for line in lines[1:21]] == [*map(str, (*range(10), *range(20, 30)))]
    assert lines[21] == "(10 classes between them not shown)"
    assert lines[22].split() == ["all", "120", "0.500", "0.755", "+0.255", "±", "0.040"]
    assert len(lines) == 23


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (0.53, "120 images cannot tell whether this model is better than bundled"),
        (0.47, "120 images cannot tell whether this model is better than bundled"),
        (0.45, "bundled finds these images better"),
    ],
)
def test_labels_that_gained_nothing_have_a_sentence(after, said):
    row = ClassGain("all", 120, 0.5, after)
    assert list(Gain("bundled", (row, row), row, 0.04).lines())[-1] == said


@pytest.fixture(scope="module")
def labelled_model(tiny_images, kinds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "model"
    train(tiny_images, folder, LABELLED, labels=kinds)
    return folder


def test_labels_bring_images_of_a_class_together(
    labelled_model, unlabelled_model, tiny_images, kinds
):
    """On the images trained on: the network of the tests is too small for others."""

    def found(folder):
        bits = unpack_bits(Encoder.load(folder).encode(tiny_images), 256)
        return precision_at_10_by_bits(question_of(kinds.texts, kinds.texts), bits, bits).mean()

    assert found(labelled_model) > found(unlabelled_model) + 0.04


def test_the_card_has_the_labels_and_what_they_gained(labelled_model, kinds):
    card = read_card(labelled_model)
    training = card.training
    assert training["labels"]["classes"] == {"pictures": len(kinds.classes)}
    assert training["labels"]["images"] == training["images"]
    assert training["questions"] == ["seen"]
    gain = training["gain"]
    held_out = sum(min(15, count // 4) for count in Counter(kinds.class_ids.tolist()).values())
    assert (gain["over"], gain["images"]) == ("bundled", held_out)
    assert card.metrics["seen_codes_precision_at_10"] == pytest.approx(gain["after"], abs=1e-4)
    page = (labelled_model / "report" / "report.html").read_text()
    shown = page[page.index("By class") :]
    row = re.search(r"<td>all</td><td>[\d,]+</td><td>(.*?)</td><td>(.*?)</td>", shown)
    # The card has a digit more, which is rounded too.
    assert [*map(float, row.groups())] == pytest.approx([gain["before"], gain["after"]], abs=6e-4)
    assert all(f"<td>{name}</td>" in shown for name in kinds.names)


def test_a_training_from_a_model_keeps_its_picture_bits(
    unlabelled_model, tiny_images, kinds, tmp_path
):
    train(tiny_images, tmp_path / "tuned", LABELLED, labels=kinds, start=unlabelled_model)
    codes = [
        Encoder.load(one).encode(tiny_images) for one in (unlabelled_model, tmp_path / "tuned")
    ]
    before, after = (unpack_bits(one, 256) for one in codes)
    picture_bits = sum(count * depth for count, depth in LABELLED.depths)
    assert_array_equal(before[:, :picture_bits], after[:, :picture_bits])
    assert (before[:, picture_bits:] != after[:, picture_bits:]).mean() > 0.02
    assert read_card(tmp_path / "tuned").training["gain"]["over"] == str(unlabelled_model)


def test_a_stopped_training_with_labels_ends_as_one_that_was_not(
    labelled_model, tiny_images, kinds, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        StopAfter(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", LABELLED, labels=kinds)
    others = replace(kinds, class_ids=np.roll(kinds.class_ids, 1))
    with pytest.raises(TrainingError, match="another training: it differs in labels"):
        train(tiny_images, tmp_path / "model", LABELLED, labels=others, resume=True)
    train(tiny_images, tmp_path / "model", LABELLED, labels=kinds, resume=True)
    assert_same_weights(labelled_model, tmp_path / "model")


def test_a_training_from_a_model_that_is_stopped_in_its_last_stage_ends_the_same(
    unlabelled_model, tiny_images, kinds, tmp_path, monkeypatch
):
    options = {"labels": kinds, "start": unlabelled_model}
    train(tiny_images, tmp_path / "whole", LABELLED, **options)
    with monkeypatch.context() as patched:
        StopAfter(patched, LABELLED.steps + 2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", LABELLED, **options)
    train(tiny_images, tmp_path / "model", LABELLED, resume=True, **options)
    assert_same_weights(tmp_path / "whole", tmp_path / "model")


@pytest.fixture
def few_steps():
    return replace(LABELLED, steps=2, decoder_steps=1)


def test_what_cannot_be_learned_is_refused(tiny_images, kinds, few_steps, tmp_path):
    nothing = replace(kinds, class_ids=np.full(300, UNLABELLED))
    for labels in (None, nothing):
        with pytest.raises(TrainingError, match="no image to train on has a label"):
            train(tiny_images, tmp_path / "model", few_steps, labels=labels)
    others = tiny_images[kinds.class_ids > 0]
    wanted = f"have the label '{kinds.names[0]}'.*; {len(others)} images were left out"
    with pytest.raises(TrainingError, match=wanted):
        train(tiny_images, tmp_path / "model", few_steps, labels=kinds, withheld=others)
    assert not list(tmp_path.iterdir())


def test_few_images_are_warned_of(
    tiny_images, kinds, few_steps, unlabelled_model, tmp_path, capsys
):
    few = kinds.class_ids.copy()
    few[np.flatnonzero(few == 0)[9:]] = UNLABELLED
    labels = replace(kinds, class_ids=few)
    train(tiny_images, tmp_path / "one", few_steps, labels=labels)
    said = capsys.readouterr().err
    first = f"{len(kinds.classes)} classes ({', '.join(kinds.names[:5])}, …)"
    assert f"learning labels of {labels.known.sum()} images of {first}, " in said
    assert "300 images came; a good model needs at least 10,000" in said
    wanted = f"{len(kinds.classes)} classes, 1 has fewer than 10 images, too few to learn from: "
    assert f"warning: of {wanted}{kinds.names[0]}\n" in said
    # Started from another model, with three images of each class at most.
    scarce = replace(kinds, class_ids=np.where(kinds.turns() < 3, kinds.class_ids, UNLABELLED))
    options = {"labels": scarce, "start": unlabelled_model}
    train(tiny_images, tmp_path / "two", few_steps, **options)
    said = capsys.readouterr().err
    assert "a good model needs" not in said
    assert "for what is gained to be measured at all" in said
    assert "gain" not in read_card(tmp_path / "two").training
    train(tiny_images, tmp_path / "three", few_steps, labels=kinds, start=tmp_path / "one")
    assert "warning: the initial model has learned labels" in capsys.readouterr().err


def test_classes_of_several_sources_are_counted_in_each(
    tiny_images, kinds, few_steps, tmp_path, capsys
):
    """As of a folder and of the gallery that was made of it."""
    labels = ClassLabels.of_sets([("folder", kinds.texts), ("gallery", kinds.texts)])
    both = np.tile(tiny_images, (2, 1, 1, 1))
    train(both, tmp_path / "m", few_steps, labels=labels)
    assert "too few to learn from" not in capsys.readouterr().err


def test_names_of_labels_reach_no_terminal_as_commands(tiny_images, few_steps, tmp_path, capsys):
    names = named(*["\x1b[2J red", "a" * 200, "b"] * 98, *["few"] * 6)
    train(tiny_images, tmp_path / "m", few_steps, labels=ClassLabels.of_sets([("set", names)]))
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "(\\x1b[2J red, " + "a" * 40 + "…, b, few)" in said


def test_passes_are_over_what_is_distinct(tiny_images, kinds, tmp_path):
    """Where a source is named three times, beside images without labels."""
    ids = np.append(np.tile(kinds.class_ids, 3), np.full(300, UNLABELLED))
    flipped = tiny_images[:, ::-1]
    images = np.concatenate([tiny_images, tiny_images, tiny_images, flipped])
    work = Work(None, images, 0, "cpu", labels=replace(kinds, class_ids=ids))
    assert replace(LABELLED, tuning_passes=(150, 20))._passes(work) == (50, 7)


def test_few_images_are_not_learned_for_long_from_another_model(
    tiny_images, kinds, unlabelled_model, tmp_path
):
    preset = replace(LABELLED, tuning_passes=(2, 1))
    card = train(tiny_images, tmp_path / "m", preset, labels=kinds, start=unlabelled_model)
    images = card.training["images"]
    assert card.training["steps"] == {"labels": -(-2 * images // 32), "decoder": 4}
    assert -(-images // 32) > 4  # the preset's own number is smaller


def test_withheld_classes_are_not_learned(tiny_images, kinds, few_steps, tmp_path):
    chosen = kinds.class_ids == 2
    train(tiny_images, tmp_path / "m", few_steps, labels=kinds, withheld=tiny_images[chosen])
    training = read_card(tmp_path / "m").training
    assert training["labels"]["classes"] == {"pictures": len(kinds.classes) - 1}
    assert training["left_out_as_queries"] == chosen.sum()


def test_a_teachers_targets_are_learned_beside_labels(
    tiny_images, kinds, few_steps, unbroken, tmp_path
):
    teacher, _ = unbroken(TeacherPreset(width=2, embedding=16, steps=2, batch=16))
    card = train(tiny_images, tmp_path / "m", few_steps, labels=kinds, teacher=teacher)
    assert card.training["teacher"]["fingerprint"] == read_card(teacher).fingerprint
    with (tmp_path / "m" / "report" / "log.csv").open() as log:
        row = next(csv.DictReader(log))
    assert row["labels"]
    assert row["cosine"]
    assert not row["contrast"]


def test_estimating_the_time_to_close_changes_no_weight(tiny_images, kinds, few_steps, tmp_path):
    parts = Examples(tiny_images, kinds).split(60, np.random.default_rng(0))
    seen = seen_questions(*parts)
    asked = job._Asked(seen, False, Before.of(PRETRAINED, seen, "cpu"))
    run = Run(tmp_path / "model", {}, ("loss",), resume=False)
    work = Work(run, parts[0].images, 0, "cpu", held_out=parts[1].images, labels=parts[0].labels)
    model = few_steps.build()
    nothing = replace(work, held_out=tiny_images[:0])
    job._seconds_to_close(few_steps, model, nothing, job._Asked((), False, None))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    job._seconds_to_close(few_steps, model, work, asked)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
