import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from hashsearch.encoder import Encoder
from hashsearch.errors import InvalidModel, TrainingError
from hashsearch.metrics import psnr_db
from hashsearch.models.storage import read_model
from tests.conftest import TINY_PRESET
from tests.trainings import split_off
from training import job
from training.families import PRESETS
from training.families.convolutional import ConvolutionalPreset
from training.families.dense import DensePreset, Pretraining
from training.families.linear import LinearPreset
from training.families.transform import TransformPreset
from training.labels import ClassLabels
from training.retrieval import Question
from training.sharpen import effective_directions

CONVOLUTIONAL = ConvolutionalPreset(
    (8, 16, 32), (0, 0, 0), ((10, 4), (30, 2)), 20, 2, batch=32, decoder_batch=32, directions=4.0
)


def train(images, out, preset=TINY_PRESET, seed=0, **options):
    return job.train("tiny", preset, images, out, data="tests", seed=seed, device="cpu", **options)


def test_training_lowers_the_error_of_reconstruction(model_folder, tiny_images, tmp_path):
    untrained = DensePreset(**{**_settings(TINY_PRESET), "steps": 1, "learning_rate": 1e-9})
    before = train(tiny_images, tmp_path / "before", untrained).metrics["psnr_db"]
    after = read_model(model_folder)[1].metrics["psnr_db"]
    assert after > before + 2


def test_the_same_seed_gives_the_same_weights(
    model_folder, other_model_folder, tiny_images, tmp_path
):
    train(tiny_images, tmp_path / "again")
    first = load_file(model_folder / "weights.safetensors")
    again = load_file(tmp_path / "again" / "weights.safetensors")
    other = load_file(other_model_folder / "weights.safetensors")
    for name in first:
        assert_array_equal(first[name], again[name])
    assert (first["encoder.0.weight"] != other["encoder.0.weight"]).any()


def test_the_pixels_mean_and_standard_deviation_are_those_of_the_images(model_folder, tiny_images):
    train_images, _ = split_off(tiny_images, 1000, 0)
    flat = train_images.reshape(len(train_images), -1).astype(float)
    weights = load_file(model_folder / "weights.safetensors")
    np.testing.assert_allclose(weights["pixel_mean"], flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(weights["pixel_std"], (flat - flat.mean(axis=0)).std(), rtol=1e-4)


def test_the_card_tells_how_the_model_was_made(model_folder, tiny_images):
    training = json.loads((model_folder / "card.json").read_text())["training"]
    assert training["preset"] == "tiny"
    assert training["settings"]["widths"] == [3072, 128, 256]
    assert training["images"] == len(tiny_images) - len(tiny_images) // 10
    assert training["seed"] == 0
    assert training["data"] == "tests"
    assert training["images_per_second"]["reconstruction"] > 0


def test_held_out_images_are_not_trained_on(tiny_images):
    train_images, held_out = split_off(tiny_images, 20, 0)
    together = np.concatenate([train_images, held_out])
    assert len(held_out) == 20
    assert_array_equal(np.sort(together, axis=0), np.sort(tiny_images, axis=0))
    assert len(split_off(tiny_images[:5], 20, 0)[1]) == 0


def test_no_copy_of_an_image_held_out_is_trained_on(tiny_images):
    doubled = np.concatenate([tiny_images, tiny_images])
    train_images, held_out = split_off(doubled, 20, 0)
    contents = {image.tobytes() for image in held_out}
    assert len(held_out) == 20
    assert len(train_images) == len(doubled) - 2 * len(contents)
    assert not contents & {image.tobytes() for image in train_images}


def test_no_image_that_is_searched_for_is_trained_on(tiny_images, tmp_path):
    labels = np.array(["some"] * 100)
    question = Question("tests", tiny_images[:100], labels, tiny_images[100:200], labels)
    card = job.train(
        "tiny",
        replace(TINY_PRESET, steps=1),
        tiny_images,
        tmp_path / "model",
        data="tests",
        seed=0,
        device="cpu",
        questions=[question],
    )
    searched = {image.tobytes() for image in question.queries}
    others = [image for image in tiny_images if image.tobytes() not in searched]
    assert card.training["left_out_as_queries"] == len(tiny_images) - len(others) >= 100
    assert card.training["images"] == len(others) - len(others) // 10


def test_a_model_is_not_trained_where_one_lies(tiny_images, model_folder):
    with pytest.raises(InvalidModel, match="already exists"):
        train(tiny_images, model_folder)


def test_too_few_images_are_refused(tiny_images, tmp_path):
    with pytest.raises(TrainingError, match="27 images to train on are fewer than the 64 that"):
        train(tiny_images[:30], tmp_path / "model")


@pytest.mark.parametrize("count", [1, 2, 10, 100])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_refuses_too_few_images_and_says_how_many_it_takes(
    name, count, tiny_images, tmp_path
):
    preset = PRESETS[name]
    if name == "conv256-reread":
        pytest.skip("it needs the model that it starts from")
    if preset.takes_labels:  # it needs two classes, and few images
        count = min(max(count, 2), 40)
    labels = ClassLabels((("tests", "a"), ("tests", "b")), np.arange(count) % 2)
    with pytest.raises(TrainingError, match=r"to train on (is|are) fewer") as refused:
        train(tiny_images[:count], tmp_path / "model", preset, labels=labels)
    least = int(re.search(r"give at least ([\d,]+),", str(refused.value))[1].replace(",", ""))
    share = 4 if preset.takes_labels else 10
    kept = [n - min(job.HELD_OUT, n // share) for n in (least, least - 1)]
    assert kept[0] >= preset.images_needed > kept[1]
    assert not list(tmp_path.iterdir())


def test_the_fewest_images_make_a_model(tiny_images, tmp_path, capsys):
    preset = LinearPreset(28)  # needs 29, and of 32 images 3 are held out
    with pytest.raises(TrainingError, match=r"28 images .* the 29 that .* give at least 32,"):
        train(tiny_images[:31], tmp_path / "model", preset)
    assert "warning" not in capsys.readouterr().err
    train(tiny_images[:32], tmp_path / "model", preset)
    read_model(tmp_path / "model")


def test_few_images_are_warned_of_with_the_number_that_is_needed(
    tiny_images, tmp_path, capsys, monkeypatch
):
    preset = LinearPreset(28)
    train(tiny_images, tmp_path / "few", preset)
    warned = "warning: 300 images came; a good model needs at least 10,000\n"
    assert warned in capsys.readouterr().err
    monkeypatch.setattr(job, "ENOUGH", 300)
    train(tiny_images, tmp_path / "enough", preset)
    assert "images came" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "preset",
    [
        replace(TINY_PRESET, learning_rate=1e30),
        replace(CONVOLUTIONAL, learning_rate=1e30),
        replace(CONVOLUTIONAL, decoder_rate=1e30, decoder_steps=20),
        TransformPreset(((32, 8),), width=8, steps=20, batch=32, learning_rate=1e30),
    ],
    ids=["dense", "convolutional", "decoder", "transform"],
)
def test_a_diverging_loss_stops_with_the_step_and_saves_nothing(tiny_images, tmp_path, preset):
    with pytest.raises(TrainingError, match=r"the loss became \S+ at step \d+, from \S+ at"):
        train(tiny_images, tmp_path / "model", preset)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "model.training" / "log.csv").exists()  # to see how it went wrong


def test_a_training_from_a_model_begins_with_its_weights_and_pixel_means(
    model_folder, tiny_images, tmp_path
):
    still = DensePreset(**{**_settings(TINY_PRESET), "steps": 1, "learning_rate": 1e-12})
    card = train(tiny_images[:150], tmp_path / "model", still, start=model_folder)
    ours = load_file(tmp_path / "model" / "weights.safetensors")
    for name, theirs in load_file(model_folder / "weights.safetensors").items():
        np.testing.assert_allclose(ours[name], theirs, atol=1e-9)
    assert card.training["start"] == {
        "fingerprint": read_model(model_folder)[1].fingerprint,
        "training": read_model(model_folder)[1].training,
    }


def test_a_training_from_a_model_leaves_the_layers_pre_training_out(
    model_folder, tiny_images, tmp_path
):
    preset = DensePreset(
        **{**_settings(TINY_PRESET), "steps": 1, "pretraining": Pretraining(steps=1)}
    )
    card = train(tiny_images, tmp_path / "model", preset, start=model_folder)
    assert set(card.training["steps"]) == {"reconstruction"}


def test_a_training_starts_from_no_model_of_another_architecture(
    model_folder, tiny_images, tmp_path
):
    wide = DensePreset(**{**_settings(TINY_PRESET), "widths": (3072, 64, 256)})
    with pytest.raises(TrainingError, match="from which this preset cannot start"):
        train(tiny_images, tmp_path / "model", wide, start=model_folder)
    with pytest.raises(TrainingError, match="from which this preset cannot start"):
        train(tiny_images, tmp_path / "model", LinearPreset(bits=256), start=model_folder)
    assert not (tmp_path / "model.training").exists()


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("teacher")])
def test_every_preset_describes_a_model_of_256_bits_or_28(name):
    with torch.device("meta"):  # without the weights of the largest
        model = PRESETS[name].build()
    assert model.bits == (28 if name == "kh28" else 256)


def test_kh256_is_the_papers_architecture():
    with torch.device("meta"):
        model = PRESETS["kh256"].build()
    weights = sum(layer.weight.numel() for layer in model.encoder if hasattr(layer, "weight"))
    assert weights == 69_861_376
    assert model.hidden == "logistic"


def _settings(preset: DensePreset) -> dict:
    return {name: getattr(preset, name) for name in DensePreset.__dataclass_fields__}


def test_a_convolutional_code_is_made_of_its_images_as_they_are(tiny_images, tmp_path):
    train(tiny_images, tmp_path / "model", CONVOLUTIONAL)
    model, _ = read_model(tmp_path / "model")
    train_images, _ = split_off(tiny_images, 1000, 0)
    with torch.no_grad():
        logits = model.eval().code_logits(torch.from_numpy(train_images))
    picture, semantic = logits.split((100, 156), dim=1)
    assert semantic.mean(dim=0).abs().max() < 0.05  # random views have other means
    assert effective_directions(torch.linalg.eigvalsh(semantic.T @ semantic).clamp_min(0)) < 8
    flat = train_images.reshape(len(train_images), -1).astype(float)
    _, _, components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    # The first bit of the first coefficient separates a higher half from a lower one.
    high = (picture[:, 0] > 0).numpy()[np.argsort((flat - flat.mean(axis=0)) @ components[0])]
    upwards = np.arange(len(high)) >= (len(high) - high.sum())
    assert 0.3 < high.mean() < 0.7
    assert max((high == upwards).mean(), (high == upwards[::-1]).mean()) > 0.98


def test_a_trained_encoder_can_get_a_code_with_other_depths(tiny_images, tmp_path):
    train(tiny_images, tmp_path / "first", CONVOLUTIONAL)
    other_depths = replace(CONVOLUTIONAL, steps=0, depths=((20, 3),), directions=8.0)
    card = train(tiny_images, tmp_path / "second", other_depths, start=tmp_path / "first")
    assert card.training["steps"] == {"decoder": 2}
    assert card.architecture["depths"] == [[20, 3]]
    before, after = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("first", "second")
    )
    encoder = {"trunk", "corners", "head", "address", "pixel_mean", "pixel_std"}
    kept = [name for name in before if name.split(".")[0] in encoder]
    assert len(kept) > 20
    for name in kept:
        if not name.startswith("address.1"):  # normalised again
            assert_array_equal(before[name], after[name])


def test_remaking_a_code_with_the_same_settings_gives_the_same_code(tiny_images, tmp_path):
    still = replace(CONVOLUTIONAL, steps=0, decoder_steps=0)
    train(tiny_images, tmp_path / "first", CONVOLUTIONAL)
    other = replace(still, depths=((20, 3),))
    train(tiny_images, tmp_path / "other", other, start=tmp_path / "first")
    train(tiny_images, tmp_path / "again", still, start=tmp_path / "other")
    first, again = (Encoder.load(tmp_path / name) for name in ("first", "again"))
    changed = np.unpackbits(first.encode(tiny_images) ^ again.encode(tiny_images), axis=1)
    # A rotation is sensitive to the rounding of weights to 16 bits; unrelated codes differ in 78.
    assert changed.sum(axis=1).mean() < 10
    bits = torch.from_numpy(np.unpackbits(again.encode(tiny_images[:9]), axis=1)).float()
    model = again.model
    levels = model.transform.from_bits(bits[:, :100])
    picture = model.transform.picture(model.transform.rounded(levels))
    assert_array_equal(model.decode(bits).flatten(1), picture)  # the new decoder adds nothing yet


@pytest.mark.parametrize("part", ["decoder.seen.bias", "address.0.weight"])
def test_a_last_step_to_no_number_saves_nothing(tiny_images, tmp_path, monkeypatch, part):
    def broken(model, *given):
        model.get_parameter(part).data.fill_(torch.nan)

    monkeypatch.setattr("training.families.convolutional.refine_decoder", broken)
    with pytest.raises(TrainingError, match=f"{part} is not finite after the last step"):
        train(tiny_images, tmp_path / "model", CONVOLUTIONAL)
    assert not (tmp_path / "model").exists()


def test_bits_for_the_picture_alone_decode_to_more_of_it(tiny_images, tmp_path):
    def psnr(depths):
        folder = tmp_path / str(len(depths))
        preset = replace(CONVOLUTIONAL, depths=depths, decoder_steps=100)
        train(tiny_images, folder, preset)
        encoder = Encoder.load(folder)
        images, _ = split_off(tiny_images, 1000, 0)
        return psnr_db(images, encoder.reconstruct(encoder.encode(images)))

    assert psnr(((10, 4), (30, 2))) > psnr(()) + 2


def test_a_code_cannot_be_remade_from_random_weights(tiny_images, tmp_path):
    with pytest.raises(TrainingError, match="trained model; name the model with --from"):
        train(tiny_images, tmp_path / "model", replace(CONVOLUTIONAL, steps=0))
    assert list(tmp_path.iterdir()) == []
