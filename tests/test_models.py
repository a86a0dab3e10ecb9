import copy
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save_file

from hashsearch.closeness import Closeness
from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, InvalidModel
from hashsearch.models.card import PRETRAINED, copy_model, fingerprint, read_card
from hashsearch.models.coefficients import Coefficients
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.storage import read_model, round_as_stored, save_model
from hashsearch.models.transform import TransformAutoencoder
from training.binarize import binarize
from training.data import fit_standardization
from training.transform_coding import fit_transform


def small(hidden: str = "relu") -> DenseAutoencoder:
    torch.manual_seed(0)
    return DenseAutoencoder((3072, 16, 256), hidden)


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", small(), training={"seed": 0}, metrics={"psnr_db": 12.5})
    return tmp_path / "model"


def rewrite_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    card.update(changes)
    (folder / "card.json").write_text(json.dumps(card))


def rewrite_to_format(folder, version, **changes):
    """Make a card one of an older format, which has no closeness."""
    rewrite_card(folder, format_version=version, **changes)
    card = json.loads((folder / "card.json").read_text())
    del card["closeness"]
    (folder / "card.json").write_text(json.dumps(card))


def test_bits_are_exact_and_a_logit_of_zero_becomes_one():
    logits = torch.tensor([[-3.0, -1e-9, 0.0, 1e-9, 40.0]])
    assert binarize(logits).tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]


def test_the_gradient_passes_the_rounding_as_the_logistic_functions_own():
    logits = torch.linspace(-4, 4, 9, requires_grad=True)
    weights = torch.arange(9.0)
    (binarize(logits) * weights).sum().backward()
    probabilities = torch.sigmoid(logits.detach())
    torch.testing.assert_close(logits.grad, weights * probabilities * (1 - probabilities))


@pytest.mark.parametrize("hidden", ["relu", "logistic"])
def test_a_dense_autoencoder_computes_what_numpy_computes(tiny_images, hidden):
    model = small(hidden)
    model.pixel_mean.fill_(100.0)
    model.pixel_std.fill_(50.0)
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    activate = {"relu": lambda x: np.maximum(x, 0), "logistic": lambda x: 1 / (1 + np.exp(-x))}
    values = (tiny_images[:8].reshape(8, -1) - 100.0) / 50.0
    values = values @ weights["encoder.0.weight"].T + weights["encoder.0.bias"]
    logits = activate[hidden](values) @ weights["encoder.2.weight"].T + weights["encoder.2.bias"]
    found = model.code_logits(torch.from_numpy(tiny_images[:8])).detach()
    np.testing.assert_allclose(found, logits, atol=1e-4)

    bits = (logits >= 0).astype(float)
    values = activate[hidden](bits @ weights["decoder.0.weight"].T + weights["decoder.0.bias"])
    pixels = (values @ weights["decoder.2.weight"].T + weights["decoder.2.bias"]) * 50 + 100
    decoded = model.reconstruct(torch.from_numpy(bits).float()).detach()
    np.testing.assert_allclose(decoded.reshape(8, -1), pixels, atol=1e-2)


@pytest.mark.parametrize(
    "widths",
    [(3072,), (3072, 255), (3000, 256), (3072, 0, 256), (3072, 10**9, 256), (3072, 1.5, 256)],
)
def test_widths_that_make_no_code_are_refused(widths):
    with pytest.raises(InvalidModel, match="widths from 3072 to 256"):
        DenseAutoencoder(widths, "relu")


def test_hidden_units_that_are_not_known_are_refused():
    with pytest.raises(InvalidModel, match="logistic or relu; got 'gelu'"):
        DenseAutoencoder((3072, 256), "gelu")


def test_a_saved_model_loads_with_the_same_weights_and_card(saved):
    model, card = read_model(saved)
    for name, tensor in small().state_dict().items():
        assert_array_equal(model.state_dict()[name], tensor)
    assert card.metrics == {"psnr_db": 12.5}
    assert card.training == {"seed": 0}
    assert (card.kind, card.bits, card.architecture["widths"]) == ("dense", 256, [3072, 16, 256])


def test_the_fingerprint_depends_on_weights_and_architecture_alone(saved, tmp_path):
    again = save_model(tmp_path / "again", small(), training={"seed": 9}, metrics={})
    assert again.fingerprint == read_card(saved).fingerprint
    logistic = save_model(tmp_path / "logistic", small("logistic"), training={}, metrics={})
    changed = small()
    changed.pixel_mean[0] += 1
    weights = save_model(tmp_path / "weights", changed, training={}, metrics={})
    assert len({again.fingerprint, logistic.fingerprint, weights.fingerprint}) == 3


def test_a_model_is_never_saved_over_another(saved):
    before = sorted(saved.parent.iterdir())
    with pytest.raises(InvalidModel, match="already exists"):
        save_model(saved, small(), training={}, metrics={})
    assert sorted(saved.parent.iterdir()) == before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_kept_in_fewer_bits_compute_in_float32(saved, kind):
    weights = {n: t.to(kind) for n, t in load_file(saved / "weights.safetensors").items()}
    save_file(weights, saved / "weights.safetensors")
    card = json.loads((saved / "card.json").read_text())
    rewrite_card(saved, fingerprint=fingerprint("dense", card["architecture"], weights))
    model, _ = read_model(saved)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert_array_equal(tensor, weights[name].float())


def test_a_copy_of_a_model_is_the_model(saved, tmp_path):
    copy_model(saved, tmp_path / "copy")
    assert read_model(tmp_path / "copy")[1] == read_model(saved)[1]


def test_weights_that_are_not_the_cards_are_refused(saved):
    weights = load_file(saved / "weights.safetensors")
    weights["pixel_mean"][7] += 1
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(ArtifactMismatch, match="the weights have fingerprint"):
        read_model(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 4}, "of format 4; this version of hashsearch reads 1 to 3"),
        ({"format_version": 2}, "missing or unknown entries: closeness"),
        ({"closeness": 7}, "closeness in card.json is neither a dict nor null"),
        ({"closeness": {"same": 1}}, "it has entries other than same, near and alike"),
        ({"closeness": {"same": 1, "near": 2, "alike": 3.5}}, "a whole number of bits"),
        ({"closeness": {"same": 1, "near": True, "alike": 3}}, "a whole number of bits"),
        ({"closeness": {"same": 3, "near": 2, "alike": 9}}, "not 0 ≤ same ≤ near ≤ alike"),
        ({"closeness": {"same": -1, "near": 2, "alike": 9}}, "not 0 ≤ same ≤ near ≤ alike"),
        ({"format_version": [1]}, r"of format \[1\]; this version"),
        ({"kind": "transformer"}, "of kind 'transformer'; expected convolutional or dense"),
        ({"surprise": 1}, "missing or unknown entries: surprise"),
        ({"architecture": {"widths": [3072, 32, 256], "hidden": "relu"}}, "no usable weights"),
        ({"architecture": {"width": 3}}, "a dense model that this version of hashsearch cannot"),
        ({"architecture": []}, "architecture in card.json is not a dict"),
        ({"kind": []}, "kind in card.json is not a str"),
        ({"bits": 28}, "28 bits and 0 address bits, the model has 256 and 0"),
        ({"address_bits": 28}, "256 bits and 28 address bits"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(saved, changes, message):
    rewrite_card(saved, **changes)
    with pytest.raises(InvalidModel, match=message):
        read_model(saved)


@pytest.mark.parametrize("kind", ["transform", "convolutional"])
def test_a_family_whose_layout_changed_since_format_1_is_refused(saved, kind):
    rewrite_to_format(saved, 1, kind=kind)
    with pytest.raises(
        InvalidModel, match=f"a {kind} model of format 1, whose layout.*new gallery"
    ):
        read_model(saved)


@pytest.mark.parametrize("version", [1, 2])
def test_cards_before_format_3_are_read_without_closeness(saved, version):
    rewrite_to_format(saved, version)
    assert read_model(saved)[1].closeness is None


def test_closeness_is_kept_on_the_card(tmp_path):
    closeness = Closeness(same=0, near=9, alike=40)
    save_model(tmp_path / "model", small(), training={}, metrics={}, closeness=closeness)
    assert json.loads((tmp_path / "model" / "card.json").read_text())["closeness"] == {
        "same": 0,
        "near": 9,
        "alike": 40,
    }
    assert read_model(tmp_path / "model")[1].closeness == closeness


def test_a_model_for_other_image_rules_is_refused(saved):
    rewrite_card(saved, preprocessing="0")
    with pytest.raises(ArtifactMismatch, match=r"version 0 of the image rules; .* knows 1 and 2"):
        read_model(saved)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not json", b"[1]", b"[" * 99_999])
def test_a_damaged_card_is_refused(saved, content):
    (saved / "card.json").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"card\.json"):
        read_model(saved)


@pytest.mark.parametrize("size", [0, 7, 100, 1000])
def test_truncated_weights_are_refused(saved, size):
    whole = (saved / "weights.safetensors").read_bytes()
    (saved / "weights.safetensors").write_bytes(whole[:size])
    with pytest.raises(InvalidModel, match="no usable weights"):
        read_model(saved)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InvalidModel, match=r"no model folder: card\.json cannot be read"):
        read_model(tmp_path)


def test_codes_are_the_packed_signs_of_the_logits(model_folder, tiny_images):
    model, _ = read_model(model_folder)
    logits = model.code_logits(torch.from_numpy(tiny_images)).numpy()
    clear = np.abs(logits) > 1e-4  # no rounding reaches these
    codes = Encoder.load(model_folder).encode(tiny_images)
    assert codes.shape == (len(tiny_images), 32)
    bits = np.unpackbits(codes, axis=1)
    assert_array_equal(bits[clear], logits[clear] >= 0)


def test_a_code_does_not_depend_on_what_it_is_encoded_beside(model_folder, tiny_images):
    encoder = Encoder.load(model_folder)
    together = encoder.encode(tiny_images)
    shuffled = np.random.default_rng(0).permutation(len(tiny_images))
    assert_array_equal(encoder.encode(tiny_images[shuffled]), together[shuffled])
    for size in (1, 7, 33):
        parts = [
            encoder.encode(tiny_images[start : start + size])
            for start in range(0, len(tiny_images), size)
        ]
        assert_array_equal(np.concatenate(parts), together)


def test_no_images_give_no_codes(model_folder):
    encoder = Encoder.load(model_folder)
    codes = encoder.encode(np.empty((0, 32, 32, 3), np.uint8))
    assert codes.shape == (0, 32)
    assert encoder.reconstruct(codes).shape == (0, 32, 32, 3)


def test_a_code_decodes_to_something_like_its_image(model_folder, tiny_images):
    encoder = Encoder.load(model_folder)
    decoded = encoder.reconstruct(encoder.encode(tiny_images)).astype(float)
    assert decoded.shape == tiny_images.shape
    own = np.square(decoded - tiny_images).mean()
    other = np.square(decoded - np.roll(tiny_images, len(tiny_images) // 2, axis=0)).mean()
    assert own < 0.6 * other


@pytest.fixture(scope="module")
def convolutional(tiny_images) -> ConvolutionalAutoencoder:
    """Not trained, but its normalisations have seen images, and its coefficients are fitted."""
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder((8, 16, 32), (1, 0, 1), ((8, 3), (20, 2)))
    model.pixel_mean.fill_(120)
    model.pixel_std.fill_(60)
    tiny = torch.from_numpy(tiny_images)
    for _ in range(20):
        features = model.features(model.standardize(tiny))
        for logits in (model.head, model.code, model.address):
            logits(features)
    fit_transform(model, tiny_images)
    for parameter in model.decoder.network.parameters():  # or it would add nothing
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_what_a_decoder_adds_depends_on_both_parts_of_the_code(convolutional, tiny_images):
    bits = (convolutional.code_logits(torch.from_numpy(tiny_images[:5])) >= 0).float()
    transform = convolutional.transform

    def added(bits):
        linear = transform.picture(transform.rounded(transform.from_bits(bits[:, :64])))
        return convolutional.decode(bits).flatten(1) - linear

    for part in (slice(0, 64), slice(64, 256)):
        other = bits.clone()
        other[:, part] = 1 - other[:, part]
        assert ((added(other) - added(bits)).abs().amax(dim=1) > 0.01).all()


def test_a_convolutional_model_is_loaded_as_it_was_saved(convolutional, tiny_images, tmp_path):
    before = Encoder(convolutional).encode(tiny_images)
    round_as_stored(convolutional)
    card = save_model(tmp_path / "model", convolutional, training={}, metrics={})
    loaded, _ = read_model(tmp_path / "model")
    assert (card.kind, card.bits, card.address_bits) == ("convolutional", 256, 28)
    ours, theirs = Encoder(convolutional), Encoder(loaded)
    codes = ours.encode(tiny_images)
    assert_array_equal(codes, theirs.encode(tiny_images))
    assert_array_equal(ours.addresses(tiny_images), theirs.addresses(tiny_images))
    assert_array_equal(ours.reconstruct(codes), theirs.reconstruct(codes))
    changed = np.unpackbits(codes ^ before, axis=1).sum(axis=1).mean()
    assert changed < 1, f"{changed} bits an image changed when weights were rounded"
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    assert {w.dtype for w in stored.values() if w.ndim > 1} == {torch.float16}
    assert ours.reconstruct(codes).shape == tiny_images.shape


def test_a_model_for_inference_computes_what_the_model_does(convolutional, tiny_images):
    tiny = torch.from_numpy(tiny_images)
    fused = convolutional.for_inference()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in convolutional.modules())
    bits = (convolutional.code_logits(tiny) >= 0).float()
    for name, given in (("code_logits", tiny), ("address_logits", tiny), ("decode", bits)):
        ours, theirs = (getattr(model, name)(given).detach() for model in (fused, convolutional))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_an_address_is_four_bytes_whose_last_four_bits_are_zero(convolutional, tiny_images):
    addresses = Encoder(convolutional).addresses(tiny_images)
    assert addresses.shape == (len(tiny_images), 4)
    assert (addresses[:, 3] & 0x0F == 0).all()
    assert len(np.unique(addresses, axis=0)) > len(addresses) // 4


def test_a_model_without_an_address_head_says_so(tiny_images):
    encoder = Encoder(small())
    with pytest.raises(ArtifactMismatch, match="a dense model gives no addresses"):
        encoder.addresses(tiny_images)
    columns = encoder.columns(tiny_images)
    assert list(columns) == ["codes"]
    assert_array_equal(columns["codes"], encoder.encode(tiny_images))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_pass_gives_the_same_codes_and_addresses_as_two(tiny_images, precision, monkeypatch):
    encoder = Encoder.load(PRETRAINED, precision=precision)
    expected = encoder.encode(tiny_images), encoder.addresses(tiny_images)
    passes: list[int] = []
    features = encoder.model.features
    monkeypatch.setattr(
        encoder.model, "features", lambda pixels: [passes.append(len(pixels)), features(pixels)][1]
    )
    encoder.encode(tiny_images)
    needed, passes[:] = passes.copy(), []
    columns = encoder.columns(tiny_images)
    assert_array_equal(columns["codes"], expected[0])
    assert_array_equal(columns["addresses"], expected[1])
    assert passes == needed
    for empty, width in zip(encoder.columns(tiny_images[:0]).values(), (32, 4), strict=True):
        assert empty.shape == (0, width)


def in_padded_eights(encoder, tiny):
    """The codes and addresses of the encoder's model in batches of 8, completed in black."""
    codes, addresses, model = [], [], encoder.model
    with torch.inference_mode():
        for start in range(0, len(tiny), 8):
            part = tiny[start : start + 8]
            black = np.zeros((8 - len(part), 32, 32, 3), np.uint8)
            batch = torch.from_numpy(np.concatenate([part, black]))
            codes.append(model.code_logits(batch)[: len(part)] >= 0)
            if model.address_bits:
                addresses.append(model.address_logits(batch)[: len(part)] >= 0)
    columns = {"codes": codes} | ({"addresses": addresses} if addresses else {})
    return {name: np.packbits(torch.cat(bits), axis=1) for name, bits in columns.items()}


def at_its_thresholds(encoder, tiny):
    """Move the threshold of each bit to the logit of one of these images in a batch of 8.

    Those images' bits then depend on how their logits are rounded.
    """
    convolutional = encoder.model.kind == "convolutional"
    layer = encoder.model.code[0] if convolutional else encoder.model.encoder[-1]
    products = []
    hook = layer.register_forward_hook(lambda _, __, out: products.append(out.clone()))
    in_padded_eights(encoder, tiny)
    hook.remove()
    values = torch.cat(products)[: len(tiny)]
    bits = torch.arange(values.shape[1])
    own = values[bits % len(tiny), bits]
    if convolutional:
        encoder.model.code[1].running_mean.copy_(own)
    else:
        layer.bias.data.sub_(own)
    return encoder


def built(name, tiny):
    if name == "bundled":
        return read_model(PRETRAINED)[0]
    torch.manual_seed(0)
    if name == "transform":
        model = TransformAutoencoder(((8, 8), (32, 6)), width=8)
        torch.nn.init.normal_(model.analysis[-1][-1].weight, std=0.01)
        fit_standardization(model, tiny)
        fit_transform(model, tiny)
        return model
    widths = {"dense": (3072, 128, 256), "linear": (3072, 256)}[name]
    model = DenseAutoencoder(widths, "relu")
    fit_standardization(model, tiny)
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["bundled", "dense", "linear", "transform"])
def test_codes_are_those_of_padded_batches_of_eight_however_many_are_encoded(
    name, precision, tiny_images
):
    encoder = Encoder(built(name, tiny_images), precision=precision)
    some = tiny_images[:110]
    if name != "transform" and precision == "float32":
        at_its_thresholds(encoder, some)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        expected = in_padded_eights(encoder, some)
    for sizes in (*([n] for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 110)), [1, 40, 2, 32, 5, 30]):
        ends = np.cumsum(sizes * len(some))
        parts = np.split(some, ends[ends < len(some)])
        found = [encoder.columns(part) for part in parts]
        assert found[0].keys() == expected.keys()
        for column, codes in expected.items():
            assert_array_equal(np.concatenate([part[column] for part in found]), codes)


def test_batches_that_round_otherwise_are_padded(tiny_images, monkeypatch):
    """Batches of one, two and 32 images, where each value is a little larger."""
    encoder = Encoder(small())
    sizes, standardize = [], encoder.model.standardize

    def odd(tiny):
        sizes.append(len(tiny))
        return standardize(tiny) * (1 + 1e-6 * (len(tiny) in (1, 2, 32)))

    monkeypatch.setattr(encoder.model, "standardize", odd)
    for images, rows in ((1, {3, 4, 5, 6, 7, 8}), (40, {8})):
        encoder.encode(tiny_images[:images])  # with trials
        sizes.clear()
        encoder.encode(tiny_images[:images])
        assert set(sizes) <= rows


def test_a_convolutional_code_does_not_depend_on_what_it_is_encoded_beside(
    convolutional, tiny_images
):
    encoder = Encoder(convolutional)
    together = encoder.encode(tiny_images)
    alone = np.concatenate([encoder.encode(image[np.newaxis]) for image in tiny_images[:40]])
    assert_array_equal(together[:40], alone)


@pytest.mark.parametrize(
    ("widths", "blocks"),
    [
        ((64, 128), (1, 1)),
        ((64, 128, 0), (1, 1, 1)),
        ((64, 128, 9**9), (0, 0, 0)),
        ((64, 128, 256), (0, 0, -1)),
        ((64, 128, 256), (0, 0, 99)),
        ((64, 128, 256.0), (0, 0, 0)),
    ],
)
def test_a_convolutional_architecture_that_cannot_be_is_refused(widths, blocks):
    with pytest.raises(InvalidModel, match="three widths up to 4096"):
        ConvolutionalAutoencoder(widths, blocks, ())


@pytest.mark.parametrize(
    "depths", [((32, 8),), ((9, True),), "", {}, 5, [5], [[1, 2, 3]], [[2, 1], [2, 2]], [[4, 9]]]
)
def test_depths_that_cannot_be_are_refused(depths):
    with pytest.raises(InvalidModel, match="with 0 to 255 bits in total"):
        ConvolutionalAutoencoder((8, 16, 32), (0, 0, 0), depths)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("transform.components", torch.Tensor.long, r"components is \(28, 3072\) torch.int64; "),
        ("transform.values", lambda part: part.float() + 0j, r"complex\d+; \(28, 8\) torch"),
        ("pixel_std", lambda part: part[None], r"pixel_std is \(1,\) torch.float32; \(\) torch"),
        ("code.1.num_batches_tracked", torch.Tensor.float, "torch.int64 was wanted"),
        ("another", lambda part: torch.zeros(3), "another is not part of this model"),
        ("trunk.0.0.weight", lambda part: None, "trunk.0.0.weight is missing"),
    ],
)
def test_weights_of_another_kind_are_refused(convolutional, tmp_path, name, change, message):
    card = save_model(tmp_path / "model", convolutional, training={}, metrics={})
    weights = load_file(tmp_path / "model" / "weights.safetensors")
    weights[name] = change(weights.get(name))
    weights = {name: part for name, part in weights.items() if part is not None}
    save_file(weights, tmp_path / "model" / "weights.safetensors")
    changed = fingerprint(card.kind, card.architecture, weights)
    rewrite_card(tmp_path / "model", fingerprint=changed)
    with pytest.raises(InvalidModel, match=f"holds no usable weights.safetensors: .*{message}"):
        read_model(tmp_path / "model")


def test_the_first_bits_tell_of_the_picture_whatever_the_precision(convolutional, tiny_images):
    model = copy.deepcopy(convolutional)
    torch.nn.init.zeros_(model.decoder.network[-2].weight)  # adds nothing
    torch.nn.init.zeros_(model.decoder.network[-2].bias)
    codes = Encoder(model).encode(tiny_images)
    first, others = np.array_split(np.unpackbits(codes, axis=1), [model.picture_bits], axis=1)
    assert model.picture_bits == 64
    rough = Encoder(model, precision="bfloat16").encode(tiny_images)
    again, changed = np.array_split(np.unpackbits(rough, axis=1), [64], axis=1)
    assert_array_equal(first, again)
    assert (others != changed).any()
    pixels = model.standardize(torch.from_numpy(tiny_images)).flatten(1)
    picture = model.transform.picture(model.transform.of(pixels))  # not rounded
    decoded = model.decode(torch.from_numpy(np.unpackbits(codes, axis=1)).float())
    left = (decoded.flatten(1) - pixels).square().mean()
    exact = (picture - pixels).square().mean()
    assert exact < left < 0.5 * (pixels - pixels.mean(0)).square().mean()


@pytest.mark.parametrize("depths", [(), ((3, 8), (1, 7), (200, 1)), ((255, 1),)])
def test_bits_of_coefficients_are_the_bits_of_their_levels(depths):
    coefficients = Coefficients(depths)
    random = torch.Generator().manual_seed(0)
    highest = 2 ** torch.tensor(coefficients.depths, dtype=torch.int64)
    levels = (torch.rand(50, len(highest), generator=random) * highest).long()
    bits = coefficients.to_bits(levels)
    assert bits.shape == (50, coefficients.bits)
    assert_array_equal(coefficients.from_bits(bits), levels)
    assert [list(pair) for pair in depths] == coefficients.pairs()
