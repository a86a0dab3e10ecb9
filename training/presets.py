"""Named settings of training jobs."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Greedy layer-wise pre-training with restricted Boltzmann machines.

    steps: updates of `batch` images, for each layer. Learning rates: of the
    first layer, whose visible units are Gaussian, and of those after it.
    early_momentum holds for the first tenth of the steps, momentum afterwards.
    """

    steps: int
    batch: int = 128
    gaussian_rate: float = 0.001
    binary_rate: float = 0.01
    early_momentum: float = 0.5
    momentum: float = 0.9
    weight_cost: float = 0.0002


@dataclass(frozen=True, slots=True)
class DensePreset:
    """Settings of a dense autoencoder trained by reconstruction alone.

    widths: pixels, hidden layers, code bits. hidden: units of the hidden layers.
    steps: updates of `batch` images each; the learning rate rises over the first
    3% of them and falls along a cosine to zero. flip: mirror every second image,
    at random. noise: standard deviation of Gaussian noise on the standardised
    pixels that go in, where those without it must come out (denoising).
    activity: the share of images for which each bit should be 1, held to with
    weight sparsity by a Kullback-Leibler penalty; 0 holds to nothing.
    """

    widths: tuple[int, ...]
    hidden: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    flip: bool = True
    noise: float = 0.0
    activity: float = 0.1
    sparsity: float = 0.0
    pretraining: Pretraining | None = None


@dataclass(frozen=True, slots=True)
class LinearPreset:
    """Principal components, in closed form: the linear autoencoder of least error."""

    bits: int


@dataclass(frozen=True, slots=True)
class TransformPreset:
    """Settings of an autoencoder for pictures alone, started from transform coding.

    depths, width: see TransformAutoencoder. steps: updates of `batch` images each.
    """

    depths: tuple[tuple[int, int], ...]
    width: int
    steps: int
    batch: int = 128
    learning_rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Views:
    """How far a random view may be from its image.

    smallest: share of the image's area that a crop keeps at least. jitter:
    chance that colours change; strength: by how much, brightness and contrast
    and saturation each between 1 - strength and 1 + strength times. grey: chance
    that no colour is left.
    """

    smallest: float = 0.25
    jitter: float = 0.8
    strength: float = 0.4
    grey: float = 0.2


@dataclass(frozen=True, slots=True)
class ConvolutionalPreset:
    """Settings of a convolutional autoencoder whose codes ignore how an image was taken.

    widths, blocks, depths: see ConvolutionalAutoencoder. Weights of the terms of the
    loss: invariance, rate and contrast (see objectives.py) on the head, the three
    together on the address. steps: updates of `batch` images, two views each.
    kernel_rate, kernel_decay: Muon's learning rate and weight decay, for the kernels;
    learning_rate and weight_decay: AdamW's, for the encoder's other weights. Then the
    code is made of the head: directions, see sharpen.py. decoder_steps: updates, at the
    end, of the decoder alone, on the codes of `decoder_batch` whole images, mirrored or
    not; decoder_rate: AdamW's learning rate then.
    """

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    depths: tuple[tuple[int, int], ...]
    steps: int
    decoder_steps: int
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    kernel_rate: float = 1e-2
    kernel_decay: float = 0.1
    invariance: float = 4.0
    rate: float = 1 / 50
    contrast: float = 0.5
    address: float = 0.1
    directions: float = 60.0
    decoder_batch: int = 128
    decoder_rate: float = 1e-3
    views: Views = field(default_factory=Views)


Preset = DensePreset | LinearPreset | ConvolutionalPreset | TransformPreset

# Krizhevsky and Hinton (2011). The full paper is not at hand: widths, CD-1, the
# learning rates, batch and momenta of the pre-training are recalled from it, the
# rest is our own (numbers of steps, weight cost, AdamW for the fine-tuning in place
# of plain gradient descent). The rate of fine-tuning is chosen for kh256.
_PAPER = (3072, 8192, 4096, 2048, 1024, 512, 256)
_SMALL = (3072, 2048, 1024, 512, 256)

# Depths: bits dealt out one by one to the component whose error a further one lowers
# most, by benchmarks/depths.py on CIFAR-10's training images.
_CONV = ConvolutionalPreset(
    widths=(64, 128, 256),
    blocks=(0, 1, 1),
    depths=((1, 5), (4, 4), (6, 3), (19, 2), (19, 1)),
    steps=20_000,
    decoder_steps=20_000,
)

PRESETS: dict[str, Preset] = {
    "conv256": _CONV,
    # Of a trained conv256, with --from: its code is made anew, and a decoder trained.
    "conv256-reread": replace(_CONV, steps=0),
    "kh256": DensePreset(
        _PAPER, "logistic", 3_300, 256, 1.5e-4, pretraining=Pretraining(steps=1_000)
    ),
    "kh28": DensePreset(
        (*_PAPER, 64, 28), "logistic", 3_300, 256, 1.5e-4, pretraining=Pretraining(steps=1_000)
    ),
    "kh256-small": DensePreset(
        _SMALL, "logistic", 8_000, 128, 5e-4, pretraining=Pretraining(steps=2_000)
    ),
    "pca256": LinearPreset(bits=256),
    "transform256": TransformPreset(
        depths=((1, 6), (3, 5), (9, 4), (21, 3), (41, 2), (54, 1)),
        width=128,
        steps=8_000,
        learning_rate=3e-4,
    ),
    "dense256-sparse": DensePreset((3072, 1024, 512, 256), "relu", 3_000, 256, 2e-3, sparsity=0.01),
    "dense256-denoising": DensePreset((3072, 1024, 512, 256), "relu", 3_000, 256, 2e-3, noise=0.5),
    # A first model in about three minutes on two cores: smaller than the paper's,
    # with rectified units, which learn without the layer-wise pre-training that
    # deep logistic ones need.
    "dense256-quick": DensePreset((3072, 1024, 512, 256), "relu", 3_000, 256, 2e-3),
}
