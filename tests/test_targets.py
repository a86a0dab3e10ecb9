"""A teacher's targets: how they are made, kept and found again."""

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from hashsearch.errors import InvalidModel, TrainingError
from hashsearch.models.storage import save_model
from training import targets
from training.data import fit_standardization
from training.resnet import Teacher
from training.targets import FILE, make_targets, read_targets, write_targets


@pytest.fixture(scope="module")
def teacher(tiny_images):
    torch.manual_seed(0)
    model = Teacher(4)
    fit_standardization(model, tiny_images)
    with torch.no_grad():
        model.train().features(model.standardize(torch.from_numpy(tiny_images)))
    return model.eval()


@pytest.fixture(scope="module")
def rows(teacher, tiny_images):
    return make_targets(teacher, tiny_images, seed=0, device="cpu")


@pytest.fixture
def folder(teacher, rows, tiny_images, tmp_path):
    save_model(tmp_path / "teacher", teacher, training={"preset": "teacher"}, metrics={})
    write_targets(tmp_path / "teacher" / FILE, tiny_images, rows)
    return tmp_path / "teacher"


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_without_crops_they_are_the_features_along_their_main_directions(
    teacher, tiny_images, monkeypatch
):
    monkeypatch.setattr(
        targets, "random_views", lambda tiny, *given: tiny.permute(0, 3, 1, 2).float()
    )
    found = make_targets(teacher, tiny_images, seed=0, device="cpu").astype(float)
    with torch.no_grad():
        features = teacher.features(teacher.standardize(torch.from_numpy(tiny_images)))
    centred = unit(features.double().numpy())
    centred -= centred.mean(axis=0)
    cosines = unit(centred) @ unit(centred).T  # all 32 directions fit
    assert_allclose(unit(found) @ unit(found).T, cosines, atol=0.06)  # bfloat16
    assert_array_equal(found[:, 32:], 0)
    spread = np.square(found[:, :32]).sum(axis=0)
    assert spread[0] > 3 * spread[8]  # the main ones first


def test_they_are_whole_numbers_of_one_length(rows):
    assert rows.dtype == np.int8
    assert rows.shape == (300, 128)
    assert_allclose(np.linalg.norm(rows.astype(float), axis=1), 127, atol=3)


def test_they_repeat_with_their_seed(teacher, tiny_images, rows):
    assert_array_equal(make_targets(teacher, tiny_images, seed=0, device="cpu"), rows)
    assert (make_targets(teacher, tiny_images, seed=1, device="cpu") != rows).any()


def test_crops_of_an_image_hardly_move_its_target(teacher, tiny_images, rows):
    other = make_targets(teacher, tiny_images, seed=1, device="cpu")
    # The signs of the directions are free, so cosines between images are compared.
    ours, theirs = (unit(part.astype(float)) for part in (rows, other))
    assert np.corrcoef((ours @ ours.T).ravel(), (theirs @ theirs.T).ravel())[0, 1] > 0.95


def test_they_are_found_by_content_in_any_order_and_number(folder, tiny_images, rows):
    order = np.random.default_rng(0).permutation(300)[:90]
    asked = np.concatenate([255 - tiny_images[:20], tiny_images[order]])
    found = read_targets(folder)
    assert_array_equal(found.known(asked), np.arange(110) >= 20)
    wanted = rows[order].astype(float)
    assert_allclose(found.of(asked[20:], "cpu"), unit(wanted), atol=1e-5)
    assert found.teacher["training"] == {"preset": "teacher"}


def test_there_may_be_none(folder, tiny_images):
    nothing = np.zeros((0, 128), np.int8)
    write_targets(folder / FILE, tiny_images[:0], nothing)
    assert not read_targets(folder).known(tiny_images).any()


def test_other_targets_have_another_sum(folder, tiny_images, rows):
    before = read_targets(folder).sha256
    assert read_targets(folder).sha256 == before
    write_targets(folder / FILE, tiny_images, -rows)
    assert read_targets(folder).sha256 != before


def test_a_folder_without_targets_is_refused(folder, tmp_path):
    (folder / FILE).unlink()
    with pytest.raises(TrainingError, match="holds no readable targets"):
        read_targets(folder)
    (folder / FILE).write_bytes(b"not safetensors")
    with pytest.raises(TrainingError, match="holds no readable targets"):
        read_targets(folder)
    with pytest.raises(InvalidModel, match="is no model folder"):
        read_targets(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "parts",
    [
        {"keys": np.zeros(3, np.int64), "targets": np.zeros((4, 128), np.int8)},
        {"keys": np.zeros(3, np.int64), "targets": np.zeros((3, 64), np.int8)},
        {"keys": np.zeros(3, np.int32), "targets": np.zeros((3, 128), np.int8)},
        {"keys": np.zeros((3, 1), np.int64), "targets": np.zeros((3, 128), np.int8)},
        {"keys": np.zeros(3, np.int64), "targets": np.zeros((3, 128), np.float32)},
    ],
)
def test_targets_of_another_shape_or_type_are_refused(folder, parts):
    save_file(parts, folder / FILE)
    with pytest.raises(TrainingError, match=r"must hold .* \(n, 128\) int8 targets; got"):
        read_targets(folder)


def test_targets_of_a_type_that_numpy_lacks_are_refused(folder):
    parts = {"keys": torch.zeros(3, dtype=torch.int64), "targets": torch.zeros(3, 128).bfloat16()}
    safetensors.torch.save_file(parts, folder / FILE)
    with pytest.raises(TrainingError, match="holds no readable targets"):
        read_targets(folder)


def test_features_that_are_alike_or_not_numbers_are_refused(tiny_images, teacher):
    for value in (0.0, float("nan")):
        broken = Teacher(4)
        broken.load_state_dict(teacher.state_dict())
        for weights in broken.parameters():
            weights.data.fill_(value)
        with pytest.raises(TrainingError, match="features are not finite, or equal for all"):
            make_targets(broken, tiny_images, seed=0, device="cpu")
