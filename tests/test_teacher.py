"""A teacher, and its student, trained whole: stopped, resumed, carried to another machine."""

import csv
import json
import re
import shutil
import tarfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file

from hashsearch.cli import main
from hashsearch.errors import InvalidModel, TrainingError
from hashsearch.models.card import PRETRAINED
from hashsearch.models.storage import load_saved, read_model, save_model
from tests.trainings import (
    CONVOLUTIONAL,
    StopAfter,
    assert_same_weights,
    rows_of,
    train,
    weights_of,
)
from training import job, run, targets
from training.augment import Views
from training.data import fit_standardization
from training.families import PRESETS
from training.families.teacher import TeacherPreset, compiled
from training.pack import MEBIBYTES
from training.portable import PART_BYTES, read_portable, write_portable
from training.pretext import Pretext
from training.resnet import Teacher
from training.retrieval import Question, retrieval_by_features
from training.run import PORTABLE
from training.sharpen import choose_code, features_of
from training.targets import DIRECTIONS, FILE, read_targets, write_targets

TEACHER = TeacherPreset(width=2, embedding=16, steps=12, batch=16)
STUDENT = replace(CONVOLUTIONAL, steps=8)


@pytest.fixture(scope="module", autouse=True)
def few_crops():
    """Of each image, for its target."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "CROPS", 2)
        yield


@pytest.fixture(scope="module")
def teacher(unbroken):
    """A finished teacher."""
    return unbroken(TEACHER)[0]


def stopped(images, out, steps, preset=TEACHER, **options):
    with pytest.MonkeyPatch.context() as patched:
        StopAfter(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train(images, out, preset, **options)
    return out.with_name(f"{out.name}.training")


def test_a_teacher_leaves_its_weights_targets_report_and_where_to_go_on(teacher, tiny_images):
    model, card = load_saved(teacher, {Teacher.kind: Teacher})
    assert (card.kind, card.architecture, card.bits) == ("teacher", {"width": 2}, 0)
    assert card.training["steps"] == {"views": 12}
    made = read_targets(teacher)
    assert made.rows.dtype == np.int8
    assert made.rows.shape == (len(tiny_images), DIRECTIONS)  # of those held out too
    assert made.known(tiny_images).all()
    assert (teacher / "report" / "report.html").exists()
    tensors, about = read_portable(teacher / PORTABLE)
    assert about["step"] == 9  # before the last quarter
    assert tensors["teacher.trunk.0.weight"].shape == model.trunk[0].weight.shape


def test_a_teacher_is_no_model_to_search_with(teacher):
    with pytest.raises(InvalidModel, match="a model of kind 'teacher'; expected convolutional"):
        read_model(teacher)


def test_model_info_shows_a_teacher_and_who_taught_a_student(
    teacher, tiny_images, tmp_path, capsys
):
    assert main(["model", "info", str(teacher)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^kind +teacher$", shown, re.MULTILINE)
    train(tiny_images, tmp_path / "model", replace(STUDENT, steps=1), teacher=teacher)
    assert main(["model", "info", str(tmp_path / "model")]) == 0
    fingerprint = json.loads((teacher / "card.json").read_text())["fingerprint"]
    assert re.search(rf"^teacher +{fingerprint}$", capsys.readouterr().out, re.MULTILINE)


def test_the_slow_copy_follows_less_as_the_rate_falls(tiny_images, tmp_path, monkeypatch):
    shares = []
    follow = Pretext.follow

    def noted(model, share):
        shares.append(share.item())
        follow(model, share)

    monkeypatch.setattr(Pretext, "follow", noted)
    train(tiny_images, tmp_path / "model", TEACHER)
    assert shares == pytest.approx([0.004] * 10 + [0.004 * 2 / 3, 0.004 / 3])


@pytest.mark.parametrize(
    "preset",
    [
        TEACHER,
        replace(TEACHER, pretext="byol"),
        replace(TEACHER, pretext="byol", optimizer="sgd", rate=0.05, decay=5e-4),
    ],
    ids=["vicreg", "byol", "sgd"],
)
@pytest.mark.parametrize("steps", [1, 10])
def test_a_resumed_teacher_ends_as_an_unbroken_one(unbroken, tiny_images, tmp_path, preset, steps):
    whole, _ = unbroken(preset)
    stopped(tiny_images, tmp_path / "broken", steps, preset)
    train(tiny_images, tmp_path / "broken", preset, resume=True)
    assert_same_weights(whole, tmp_path / "broken")
    for folder in (whole, tmp_path / "broken"):
        _, about = read_portable(folder / PORTABLE)
        assert about["step"] == 9
    made = [load_file(folder / FILE) for folder in (whole, tmp_path / "broken")]
    assert_array_equal(made[0]["targets"], made[1]["targets"])


@pytest.fixture(scope="module")
def stopped_here(tiny_images, tmp_path_factory):
    """What a teacher's training that stopped after 5 steps left."""
    return stopped(tiny_images, tmp_path_factory.mktemp("stopped") / "here", 5)


def to_another_machine(folder, out):
    """What is carried: the portable checkpoint alone."""
    other = out.with_name(f"{out.name}.training")
    other.mkdir()
    shutil.copytree(folder / PORTABLE, other / PORTABLE)


def test_a_portable_checkpoint_is_resumed_where_it_was_with_its_weights(
    stopped_here, tiny_images, tmp_path
):
    assert read_portable(stopped_here / PORTABLE)[1]["step"] == 5
    to_another_machine(stopped_here, tmp_path / "there")
    card = train(tiny_images, tmp_path / "there", TEACHER, resume=True)
    assert card.training["steps"] == {"views": 12}
    steps = [step for _, step, _ in rows_of(tmp_path / "there" / "report" / "log.csv")]
    assert steps == list(range(5, 12))
    _, about = read_portable(tmp_path / "there" / PORTABLE)
    assert about["step"] == 11  # of the seven steps left, the last quarter falls


def test_the_networks_begin_as_the_slow_copy_was(stopped_here, tiny_images, tmp_path):
    """Without a step to take, what was carried is what is saved."""
    tensors, about = read_portable(stopped_here / PORTABLE)
    to_another_machine(stopped_here, tmp_path / "there")
    write_portable(tmp_path / "there.training" / PORTABLE, tensors, about | {"step": 12})
    train(tiny_images, tmp_path / "there", TEACHER, resume=True)
    for name, saved in weights_of(tmp_path / "there").items():
        assert torch.equal(saved, tensors[f"teacher.{name}"]), name


def test_what_was_carried_is_of_the_same_training_whatever_the_machine(
    stopped_here, tiny_images, tmp_path
):
    _, about = read_portable(stopped_here / PORTABLE)
    assert not {"device", "bfloat16", "minutes_asked"} & about["identity"].keys()
    for other, odd in (
        ({"preset": replace(TEACHER, momentum=0.9)}, "settings"),
        ({"images": tiny_images[:200]}, "images, images_sha256"),
    ):
        out = tmp_path / odd[:3]
        to_another_machine(stopped_here, out)
        given = {"images": tiny_images, "preset": TEACHER} | other
        with pytest.raises(TrainingError, match=f"holds another training: it differs in {odd}"):
            train(given["images"], out, given["preset"], resume=True)


def test_a_checkpoint_of_another_precision_gives_way_to_the_portable_one(
    tiny_images, tmp_path, monkeypatch
):
    stopped(tiny_images, tmp_path / "model", 5)
    with monkeypatch.context() as patched:
        patched.setattr(job, "has_bfloat16", lambda device: "of another machine")
        card = train(tiny_images, tmp_path / "model", TEACHER, resume=True)
    steps = [step for _, step, _ in rows_of(tmp_path / "model" / "report" / "log.csv")]
    assert steps == list(range(5, 12))  # the log of the other machine stays there
    assert card.training["steps"] == {"views": 12}


def test_what_was_carried_without_a_part_of_the_network_is_refused(
    stopped_here, tiny_images, tmp_path
):
    tensors, about = read_portable(stopped_here / PORTABLE)
    for name, other in (("short", {}), ("long", {"more": torch.zeros(3)})):
        kept = {n: t for n, t in tensors.items() if other or not n.startswith("projector.")}
        write_portable(tmp_path / f"{name}.training" / PORTABLE, kept | other, about)
        with pytest.raises(TrainingError, match="is of another model, or incomplete"):
            train(tiny_images, tmp_path / name, TEACHER, resume=True)


@pytest.mark.parametrize("step", [None, -1, 2.5, "5"])
def test_what_was_carried_says_after_which_step_it_is(stopped_here, tiny_images, tmp_path, step):
    tensors, about = read_portable(stopped_here / PORTABLE)
    write_portable(tmp_path / "there.training" / PORTABLE, tensors, about | {"step": step})
    with pytest.raises(TrainingError, match="has no valid step and seconds"):
        train(tiny_images, tmp_path / "there", TEACHER, resume=True)


@pytest.mark.soak  # counts the steps of seconds, so it needs a machine without other work
def test_a_stretch_that_went_on_and_stopped_has_its_own_budget_still(
    stopped_here, tiny_images, tmp_path, monkeypatch
):
    """The seconds of the first one are not taken from it."""
    monkeypatch.setattr(job, "_TO_WRITE_S", 0.0)
    tensors, about = read_portable(stopped_here / PORTABLE)
    about |= {"seconds": 540.0}
    write_portable(tmp_path / "there.training" / PORTABLE, tensors, about)
    preset = replace(TEACHER, steps=10**9)
    about["identity"]["settings"]["steps"] = 10**9
    write_portable(tmp_path / "there.training" / PORTABLE, tensors, about)
    stopped(tiny_images, tmp_path / "there", 20, preset, resume=True, minutes=0.12)
    card = train(tiny_images, tmp_path / "there", preset, resume=True, minutes=0.12)
    assert card.training["steps"]["views"] > 30
    assert card.training["minutes"] > 9
    _, about = read_portable(tmp_path / "there" / PORTABLE)
    assert about["step"] == pytest.approx(5 + 0.75 * (card.training["steps"]["views"] - 5), rel=0.1)


def test_what_was_carried_is_not_overwritten(stopped_here, tiny_images, tmp_path):
    to_another_machine(stopped_here, tmp_path / "there")
    with pytest.raises(TrainingError, match="holds an unfinished training; use --resume"):
        train(tiny_images, tmp_path / "there", TEACHER)


def test_a_damaged_part_is_refused_and_nothing_is_trained(stopped_here, tiny_images, tmp_path):
    to_another_machine(stopped_here, tmp_path / "there")
    for part in (tmp_path / "there.training" / PORTABLE).glob("*.0"):
        part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(TrainingError, match="is damaged"):
        train(tiny_images, tmp_path / "there", TEACHER, resume=True)


def test_it_is_written_every_while_too(tiny_images, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_PORTABLE_EVERY_S", 0.0)
    seen = []
    write = run.write_portable

    def noted(folder, tensors, about):
        seen.append(about["step"])
        write(folder, tensors, about)

    monkeypatch.setattr(run, "write_portable", noted)
    train(tiny_images, tmp_path / "model", TEACHER)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_another_training_branches_off_before_the_decay(teacher, tiny_images, tmp_path):
    longer = replace(TEACHER, steps=4)
    card = train(tiny_images, tmp_path / "model", longer, start=teacher)
    assert card.training["start"]["training"]["steps"] == {"views": 12}
    weights = weights_of(tmp_path / "model")["trunk.0.weight"].float()
    tensors, _ = read_portable(teacher / PORTABLE)
    assert (weights - tensors["teacher.trunk.0.weight"].float()).abs().max() < 0.01


def test_a_teacher_starts_from_no_model_of_another_architecture(
    teacher, model_folder, tiny_images, tmp_path
):
    with pytest.raises(
        TrainingError, match=r"of width 2 .* the preset trains one of width 4 by vicreg"
    ):
        train(tiny_images, tmp_path / "model", replace(TEACHER, width=4), start=teacher)
    with pytest.raises(
        TrainingError, match=r"trained by vicreg.*the preset trains one of width 2 by byol"
    ):
        train(tiny_images, tmp_path / "model", replace(TEACHER, pretext="byol"), start=teacher)
    with pytest.raises(TrainingError, match="is a dense model, from which this preset cannot"):
        train(tiny_images, tmp_path / "model", TEACHER, start=model_folder)


@pytest.mark.parametrize("compiler", [None, "gcc"])
def test_a_gpu_with_a_compiler_runs_compiled_encoders(monkeypatch, compiler):
    fused = []
    monkeypatch.setattr(torch, "compile", lambda what: fused.append(what) or (lambda pixels: 1))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == compiler else None)
    encoder = Teacher(2)
    pixels = torch.zeros(1, 3, 32, 32)
    for device, expected in (("cpu", 0), ("cuda", int(compiler is not None))):
        with compiled([encoder], device):
            assert len(fused) == expected
            assert isinstance(encoder.features(pixels), int) == expected
    assert encoder.features(pixels).shape == (1, 16)


@pytest.mark.soak  # counts the steps of seconds, so it needs a machine without other work
def test_a_budget_holds_for_the_whole_training(tiny_images, tmp_path):
    """Measuring and the targets included; a busy machine may need a little more."""
    labels = np.where(tiny_images.mean(axis=(1, 2, 3)) > 120, "light", "dark")
    question = Question("shade", tiny_images[:250], labels[:250], tiny_images[250:], labels[250:])
    started = time.monotonic()
    preset = replace(TEACHER, steps=10**9)
    card = train(tiny_images, tmp_path / "model", preset, minutes=0.2, questions=[question])
    assert time.monotonic() - started < 12 * 1.5
    assert card.training["steps"]["views"] > 10
    _, about = read_portable(tmp_path / "model" / PORTABLE)
    assert about["step"] == pytest.approx(0.75 * card.training["steps"]["views"], rel=0.2)


def test_features_are_measured_beside_the_bundled_models(tiny_images, tmp_path):
    labels = np.where(tiny_images.mean(axis=(1, 2, 3)) > 120, "light", "dark")
    question = Question("shade", tiny_images[:250], labels[:250], tiny_images[250:], labels[250:])
    card = train(tiny_images, tmp_path / "model", TEACHER, questions=[question], baseline=True)
    assert 0.5 < card.metrics["shade_features_knn_accuracy"] <= 1
    bundled, _ = read_model(PRETRAINED)
    with torch.no_grad():
        parts = [
            bundled.features(bundled.standardize(torch.from_numpy(part)))
            for part in (question.gallery, question.queries)
        ]
    expected = retrieval_by_features(question, *parts)["precision_at_10"]
    page = (tmp_path / "model" / "report" / "report.html").read_text()
    (row,) = re.findall("<td>shade_features_precision_at_10</td>.*", page)
    ours, theirs = (float(cell) for cell in re.findall(r"<td>([\d.]+)</td>", row))
    assert ours == card.metrics["shade_features_precision_at_10"]
    assert theirs == pytest.approx(expected, abs=0.01)


def test_images_of_unseen_kinds_are_trained_on_in_no_place(tiny_images, tmp_path):
    labels = np.array(["some"] * 100)
    question = Question(
        "unseen", tiny_images[:100], labels, tiny_images[100:110], labels[:10], True
    )
    card = train(tiny_images, tmp_path / "model", replace(TEACHER, steps=1), questions=[question])
    assert card.training["left_out_as_queries"] >= 110
    assert not read_targets(tmp_path / "model").known(tiny_images[:110]).any()
    assert card.training["questions"] == ["unseen"]


# The student


def test_a_student_learns_from_the_targets_and_its_card_says_from_whom(
    teacher, tiny_images, tmp_path
):
    card = train(tiny_images, tmp_path / "model", STUDENT, teacher=teacher)
    assert set(card.training["steps"]) == {"likeness", "decoder"}
    assert card.training["code"] in ("as trained", "made of the head")
    theirs = json.loads((teacher / "card.json").read_text())
    assert card.training["teacher"] == {
        "fingerprint": theirs["fingerprint"],
        "training": theirs["training"],
        "targets_sha256": read_targets(teacher).sha256,
    }
    read_model(tmp_path / "model")


def test_a_students_terms_have_weights_of_their_own(teacher, tiny_images, tmp_path):
    """By the first step's terms, which no training has changed yet."""
    settings = {
        "own": {},
        "rate": {"rate": 1.0},
        "student": {"student_rate": 0.1},
        "alike": {"student_invariance": 11.0},
    }
    head, code, address = {}, {}, {}
    for name, changed in settings.items():
        preset = replace(STUDENT, steps=1, decoder_steps=1, **changed)
        train(tiny_images, tmp_path / name, preset, teacher=teacher)
        with (tmp_path / name / "report" / "log.csv").open(newline="") as log:
            row = next(csv.DictReader(log))
        head[name], code[name], address[name] = (
            float(row[what]) for what in ("head", "code", "address")
        )
    assert head["rate"] == head["own"]
    assert head["student"] < head["own"] - 0.1
    assert code["alike"] > code["own"] + 0.1  # two views have not the same code yet
    assert address["alike"] == address["own"]


@pytest.mark.parametrize("steps", [1, 8, 10])
def test_a_resumed_student_ends_as_an_unbroken_one(unbroken, teacher, tiny_images, tmp_path, steps):
    whole, _ = unbroken(STUDENT, teacher=teacher)
    stopped(tiny_images, tmp_path / "broken", steps, STUDENT, teacher=teacher)
    train(tiny_images, tmp_path / "broken", STUDENT, teacher=teacher, resume=True)
    assert_same_weights(whole, tmp_path / "broken")


@pytest.fixture(scope="module")
def shades(teacher, tiny_images, tmp_path_factory):
    """A teacher whose targets tell light images from dark ones, and nothing else."""
    own = tmp_path_factory.mktemp("shades") / "teacher"
    shutil.copytree(teacher, own)
    rows = np.zeros((len(tiny_images), DIRECTIONS), np.int8)
    rows[:, 0] = np.where(is_light(tiny_images), 127, -127)
    write_targets(own / FILE, tiny_images, rows)
    return own


def is_light(images):
    return images.mean(axis=(1, 2, 3)) > 120


def test_a_student_comes_to_find_alike_what_the_targets_say(shades, tiny_images, tmp_path):
    labels = np.where(is_light(tiny_images), "light", "dark")
    question = Question("shade", tiny_images[60:], labels[60:], tiny_images[:60], labels[:60])
    preset = replace(STUDENT, steps=30, views=Views(jitter=0.0, grey=0.0))
    alone, taught = (
        train(tiny_images, tmp_path / name, preset, questions=[question], **options).metrics
        for name, options in (("alone", {}), ("taught", {"teacher": shades}))
    )
    for what in ("codes", "addresses"):
        name = f"shade_{what}_map_at_240"
        assert taught[name] > alone[name] + 0.05, name


def test_images_without_a_target_are_counted_and_left_out(teacher, tiny_images, tmp_path, capsys):
    others = np.concatenate([tiny_images, 255 - tiny_images[:80]])
    card = train(others, tmp_path / "model", STUDENT, teacher=teacher)
    assert card.training["without_target"] == 80
    assert card.training["images"] <= len(tiny_images)
    assert "left out 80 images that the teacher has no target for" in capsys.readouterr().err
    with pytest.raises(TrainingError, match=r"^0 images .* the 32 .* .300 more have no"):
        train(255 - tiny_images, tmp_path / "none", STUDENT, teacher=teacher)


def test_own_bits_are_kept_where_neighbours_by_them_are_more_alike(shades, tiny_images):
    """Of a model whose code has the one bit that targets tell, or none; its head is random."""
    teaching = read_targets(shades)
    model = STUDENT.build()
    fit_standardization(model, tiny_images)
    with torch.no_grad():
        for _ in range(20):
            model.head(model.features(model.standardize(torch.from_numpy(tiny_images))))
    model.eval()
    features = features_of(model, tiny_images).detach()
    wanted = teaching.of(tiny_images, "cpu")
    fitted = np.linalg.lstsq(features - features.mean(dim=0), wanted, rcond=1e-4)[0].T
    kept = []
    for weight in (torch.as_tensor(fitted), torch.zeros(fitted.shape)):
        model.code[0].weight.data.copy_(weight.repeat(2, 1)[: len(model.code[0].weight)])
        kept.append(choose_code(model, tiny_images[:250], 8.0, teaching, tiny_images[250:]))
    assert kept == [True, False]


@pytest.mark.parametrize(
    "preset", [PRESETS["pca256"], TEACHER, replace(CONVOLUTIONAL, steps=0)], ids=["pca", "t", "re"]
)
def test_a_preset_that_learns_from_no_teacher_says_so(teacher, tiny_images, tmp_path, preset):
    with pytest.raises(TrainingError, match=r"cannot learn from a teacher .*; conv256 can"):
        train(tiny_images, tmp_path / "model", preset, teacher=teacher)


def test_a_teacher_that_is_none_is_refused(model_folder, tiny_images, tmp_path):
    with pytest.raises(TrainingError, match="is a dense model, not a teacher"):
        train(tiny_images, tmp_path / "model", STUDENT, teacher=model_folder)
    with pytest.raises(InvalidModel, match="is no model folder"):
        train(tiny_images, tmp_path / "model", STUDENT, teacher=tmp_path / "nowhere")


# What a stretch on another machine may weigh


def test_images_checkpoint_and_targets_can_be_carried(tmp_path):
    """At full width: 52 MiB to go on with; back come 62 MiB in at most 8 files of 16 MiB."""
    model = PRESETS["teacher"].build()
    folder = tmp_path / "teacher"
    save_model(folder, model.teacher, training={}, metrics={})
    write_portable(folder / PORTABLE, model.portable(), {})
    checkpoint = [path.stat().st_size for path in (folder / PORTABLE).iterdir()]
    assert max(checkpoint) <= PART_BYTES == 16 * 2**20
    assert MEBIBYTES * 2**20 + sum(checkpoint) <= 52 * 2**20
    n_images = 66_000  # 20 MiB hold some 63,500
    images = np.arange(n_images, dtype=np.uint32).view(np.uint8).reshape(n_images, 1, 1, 4)
    write_targets(folder / FILE, images, np.zeros((n_images, DIRECTIONS), np.int8))
    (folder / "report").mkdir()
    (folder / "report" / "log.csv").write_bytes(b"0" * 2**19)
    with tarfile.open(tmp_path / "teacher.tar", "w") as archive:
        archive.add(folder, "teacher")
    whole = (tmp_path / "teacher.tar").stat().st_size
    assert whole <= 62 * 2**20
    assert -(-whole // (16 * 2**20)) <= 8
