import colorsys
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from training.augment import Views, random_views, turn_hue
from training.families import PRESETS
from training.jpeg import recompressed
from training.objectives import coding_rate, contrastive, variance_lost
from training.schedule import cosine, plateau


@pytest.fixture
def logits():
    return torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))


def test_the_coding_rate_is_half_the_log_determinant(logits):
    rows = logits[0].double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, expected = np.linalg.slogdet(np.eye(16) + rows.T @ rows * 16 / (24 * 0.2))
    np.testing.assert_allclose(coding_rate(logits[0]), expected / 2, rtol=1e-5)


def test_the_coding_rate_is_highest_where_directions_are_spread():
    spread = coding_rate(torch.eye(16).repeat(4, 1))
    alike = coding_rate(torch.ones(64, 16))
    some = coding_rate(torch.eye(16)[:4].repeat(16, 1))
    assert alike < some < spread


def test_the_contrastive_term_is_that_of_a_slow_loop(logits):
    codes = np.where(logits.reshape(48, 16).numpy() >= 0, 1.0, -1.0)
    total = 0.0
    for i in range(48):
        similar = [codes[i] @ codes[j] / 16 / 0.2 for j in range(48)]
        rest = sum(np.exp(similar[j]) for j in range(48) if j != i)
        total -= np.log(np.exp(similar[(i + 24) % 48]) / rest)
    np.testing.assert_allclose(contrastive(*logits), total / 48, rtol=1e-5)


def test_invariance_is_zero_for_the_same_logits_and_two_for_opposite_ones(logits):
    assert variance_lost(logits[0], 3 * logits[0]).item() == pytest.approx(0, abs=1e-6)
    assert variance_lost(logits[0], -logits[0]).item() == pytest.approx(2, abs=1e-6)


def test_every_term_has_a_gradient_for_the_code(logits):
    for term in (variance_lost, contrastive, lambda one, two: coding_rate(one) + coding_rate(two)):
        given = logits.clone().requires_grad_()
        term(given[0], given[1]).backward()
        assert given.grad is not None
        assert (given.grad.abs().sum(dim=2) > 0).all()


def test_a_view_without_changes_is_the_image_or_its_mirror(tiny_images):
    still = Views(smallest=1.0, jitter=0.0, grey=0.0)
    tiny = torch.from_numpy(tiny_images)
    views = random_views(tiny, still, torch.Generator().manual_seed(0)).permute(0, 2, 3, 1)
    # A crop of the whole area may still be narrower than it is high; ask of the squarest.
    same = (views - tiny.float()).abs().mean(dim=(1, 2, 3))
    mirrored = (views - tiny.flip(2).float()).abs().mean(dim=(1, 2, 3))
    assert torch.minimum(same, mirrored).median() < 12
    assert 0.3 < (same < mirrored).float().mean() < 0.7


def test_views_are_within_the_grey_levels_and_repeat_with_their_generator(tiny_images):
    tiny = torch.from_numpy(tiny_images)
    one, again, other = (
        random_views(tiny, Views(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert one.shape == (len(tiny), 3, 32, 32)
    assert one.min() >= 0
    assert one.max() <= 255
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_some_views_are_grey(tiny_images):
    views = random_views(
        torch.from_numpy(tiny_images), Views(grey=0.5), torch.Generator().manual_seed(0)
    )
    spread = (views.amax(dim=1) - views.amin(dim=1)).amax(dim=(1, 2))
    assert 0.3 < (spread < 1).float().mean() < 0.75


def test_hue_is_turned_as_in_hsv(tiny_images):
    pixels = torch.from_numpy(tiny_images[::40]).permute(0, 3, 1, 2).float()
    turns = torch.linspace(-0.5, 0.7, len(pixels)).view(-1, 1, 1)
    found = turn_hue(pixels, turns)
    for image, turn, turned in zip(pixels, turns.flatten().tolist(), found, strict=True):
        for row, column in ((0, 0), (7, 21), (31, 16)):
            hue, *rest = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, *rest)
            np.testing.assert_allclose(turned[:, row, column], expected, atol=1e-2)


def test_a_turn_of_nothing_or_of_the_whole_circle_changes_nothing(tiny_images):
    pixels = torch.from_numpy(tiny_images).permute(0, 3, 1, 2).float()
    for turn in (0.0, 1.0, -1.0):
        turned = turn_hue(pixels, torch.full((len(pixels), 1, 1), turn))
        np.testing.assert_allclose(turned, pixels, atol=1e-3)


def test_solarised_views_have_no_light_left_and_their_dark_stays(tiny_images):
    still = Views(smallest=0.3, jitter=0.0, grey=0.0)
    tiny = torch.from_numpy(tiny_images)
    plain, solarised = (
        random_views(tiny, replace(still, solarise=chance), torch.Generator().manual_seed(0))
        for chance in (0.0, 0.5)
    )
    changed = (plain != solarised).flatten(1).any(dim=1)
    light = plain.amax(dim=(1, 2, 3)) >= 128
    assert 0.35 < changed[light].float().mean() < 0.65
    expected = torch.where(plain >= 128, 255 - plain, plain)
    assert torch.equal(solarised[changed], expected[changed])


def test_strong_views_are_of_small_crops_and_turned_hues(tiny_images):
    """As in the published recipes: a view may show a twelfth of its image."""
    strong = PRESETS["teacher"].views
    assert (strong.smallest, strong.brightness, strong.contrast, strong.saturation) == (
        *(0.08, 0.4, 0.4, 0.2),
    )
    assert (strong.hue, strong.jitter, strong.grey, strong.solarise) == (0.1, 0.8, 0.2, 0.0)
    assert PRESETS["teacher"].other_views == replace(strong, solarise=0.2)


def test_noise_is_of_any_strength_up_to_its_largest():
    grey = torch.full((400, 32, 32, 3), 128, dtype=torch.uint8)
    noisy = Views(smallest=1.0, jitter=0.0, grey=0.0, noise=10.0)
    strengths = random_views(grey, noisy, torch.Generator().manual_seed(0)).std(dim=(1, 2, 3))
    assert strengths.min() < 1
    assert 9 < strengths.max() < 11
    assert strengths.mean().item() == pytest.approx(5, abs=0.5)


def test_a_hole_is_a_square_of_the_mean_colour_anywhere(tiny_images):
    whole = Views(smallest=1.0, jitter=0.0, grey=0.0)
    tiny = torch.from_numpy(tiny_images)
    plain, holed = (
        random_views(tiny, replace(whole, hole=side), torch.Generator().manual_seed(0))
        for side in (0, 9)
    )
    changed = (plain != holed).any(dim=1)
    missed = torch.zeros(32, 32, dtype=torch.bool)
    for before, after, places in zip(plain, holed, changed, strict=True):
        rows, columns = (torch.nonzero(places.any(dim=axis)).flatten() for axis in (1, 0))
        for covered in (rows, columns):
            length = len(covered)
            assert covered[-1] - covered[0] + 1 == length
            assert length == 9 or (length >= 5 and {0, 31} & set(covered.tolist()))
        assert torch.equal(places, places.any(dim=1)[:, None] & places.any(dim=0))
        colours = after[:, places]
        assert torch.equal(colours, before.mean(dim=(1, 2))[:, None].expand_as(colours))
        missed |= places
    assert missed.all()


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_recompressed_pixels_are_those_of_pillow(tiny_images, quality):
    """Up to rounding and to how chroma is enlarged."""
    pixels = torch.from_numpy(tiny_images).permute(0, 3, 1, 2).float()
    found = recompressed(pixels, torch.full((len(pixels),), float(quality)))
    expected = []
    for image in tiny_images:
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        expected.append(np.asarray(Image.open(buffer).convert("RGB")))
    wanted = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).float()
    apart = (found - wanted).abs().mean()
    assert apart < 1.3
    if quality < 90:
        assert apart < (wanted - pixels).abs().mean() / 4


def test_each_image_is_recompressed_at_its_own_quality(tiny_images):
    pixels = torch.from_numpy(tiny_images[:3]).permute(0, 3, 1, 2).float()
    qualities = torch.tensor([30.0, 60.0, 90.0])
    alone = [recompressed(pixels[i : i + 1], qualities[i : i + 1]) for i in range(3)]
    assert torch.equal(recompressed(pixels, qualities), torch.cat(alone))


@pytest.mark.parametrize("shape", [cosine, plateau])
def test_rates_rise_and_fall_to_nothing(shape):
    rates = [shape(step / 1000) for step in range(1001)]
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert max(rates) <= 1
    assert np.diff(rates[:25]).min() > 0
    assert np.diff(rates[750:]).max() < 0


def test_until_the_decay_a_plateau_does_not_depend_on_the_end():
    """So that a longer training can branch off there."""
    assert {plateau(step / 1000) for step in range(30, 751)} == {1.0}
    assert plateau(0.875) == pytest.approx(0.5)
