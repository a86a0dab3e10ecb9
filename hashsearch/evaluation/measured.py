"""The methods that can be measured, in one table."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch.baselines.perceptual import PDQ_BITS, pdq, phash
from hashsearch.baselines.projections import (
    Projection,
    SpectralHashing,
    iterative_quantization,
    principal_components,
    random_projections,
)
from hashsearch.encoder import Encoder
from hashsearch.errors import EvaluationError
from hashsearch.evaluation.comparisons import (
    Comparison,
    Euclidean,
    Hamming,
    HammingOfViews,
    Served,
    SquaredPixels,
)
from hashsearch.evaluation.robustness import changed, evenly
from hashsearch.images import TINY_BYTES
from hashsearch.models.card import Card, read_card
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.transforms import N_VIEWS, views
from hashsearch.search.normalized import contrast_normalized
from hashsearch.wording import counted

LEAST_BITS = 8
_CHANGED = 1000
# From (n, 32, 32, 3) uint8 tiny images to (n, n_values), what a method keeps of each, or to
# (n, n_views, n_values), what it looks for.
Describe = Callable[[NDArray[np.uint8]], NDArray[Any]]


class Examples:
    """Images that methods learn from, and what several methods need of them, computed once."""

    def __init__(self, images: NDArray[np.uint8], seed: int):
        """images: (n, 32, 32, 3) uint8. seed: of the noise in changed images."""
        self.images, self._seed = images, seed
        self._components: Projection | None = None

    def components(self, count: int) -> Projection:
        """The first `count` principal components."""
        if self._components is None or self._components.matrix.shape[1] != count:
            self._components = principal_components(self.images, count)
        return self._components

    @cached_property
    def changed(self) -> tuple[NDArray[np.int64], dict[str, NDArray[np.uint8]]]:
        """Rows of some images, and these images after each change, by the change's name."""
        rows = evenly(len(self.images), _CHANGED)
        return rows, dict(changed(self.images[rows], self._seed))


@dataclass(frozen=True)
class MeasuredMethod:
    """What a method keeps of an image, and how it compares two images.

    title: for tables. image_bytes: how much it keeps of an image. learn: makes, from a gallery
    without labels, the function that describes images. asks: makes of it the function that
    describes queries. n_bits: of its codes; None if it makes none. model: the one it describes
    images by, if any. identity: what its results depend on besides the model and the images.
    least_images: the fewest that it can learn from.
    """

    name: str
    title: str
    comparison: Comparison
    image_bytes: int
    learn: Callable[[Examples], Describe]
    n_bits: int | None = None
    model: "Model | None" = None
    identity: tuple[str, ...] = ()
    least_images: int = 1
    asks: Callable[[Describe], Describe] = lambda describe: describe

    @property
    def label(self) -> str:
        """The name, with the model's where there are several."""
        return f"{self.name} of {self.model.name}" if self.model and self.model.name else self.name


class Model:
    """A model folder. Its weights are read when they are first needed."""

    def __init__(self, folder: Path, name: str = ""):
        """name: distinguishes it from the other models; empty if it is the only one.

        Raises what `read_card` raises.
        """
        self.folder, self.name = folder, name
        self.card: Card = read_card(folder)

    @cached_property
    def encoder(self) -> Encoder:
        """Raises what `read_model` raises."""
        return Encoder.load(self.folder)


def distinct_models(named: Iterable[tuple[str, Path]]) -> list[Model]:
    """The models of pairs of a name and a folder, each fingerprint once.

    Several models keep their names; those of one name are distinguished by their fingerprints.
    Raises what `read_card` raises.
    """
    models: dict[str, Model] = {}
    for name, folder in named:
        model = Model(folder, name)
        models.setdefault(model.card.fingerprint, model)
    times = Counter(model.name for model in models.values())
    for fingerprint, model in models.items():
        if len(models) == 1:
            model.name = ""
        elif times[model.name] > 1:
            model.name += f" {fingerprint[:12]}"
    return list(models.values())


def methods_named(
    name: str, models: Iterable[Model], n_bits: int, seed: int
) -> list[MeasuredMethod]:
    """The method of a row of `measured`: once for each model if it depends on one, else once.

    models: at least one. Otherwise as `method_named`.
    """
    methods = [method_named(name, model, n_bits, seed) for model in models]
    return methods if methods[0].model else methods[:1]


def method_named(name: str, model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    """The method of a row of `measured`.

    n_bits: of the baselines' codes; seed: of random projections.

    Raises EvaluationError for another name, or a number of bits that a method cannot have,
    and MissingPackage where its library is not installed.
    """
    rows = measured()
    if name not in rows:
        raise EvaluationError(f"there is no method {name}; there are {', '.join(rows)}")
    if not LEAST_BITS <= n_bits <= TINY_BYTES:
        raise EvaluationError(
            f"codes have {LEAST_BITS} to {TINY_BYTES:,} bits here, as pixels have values; "
            f"got {n_bits:,}"
        )
    return rows[name].make(model, n_bits, seed)


def _codes(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    title = _of("codes", model)
    method = _code("codes", title, model.card.bits, lambda _: model.encoder.encode)
    return replace(method, model=model)


def _transforms(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    codes = _codes(model, n_bits, seed)
    return replace(
        codes,
        name="transforms",
        title=f"{codes.title}, with transforms of the query",
        comparison=HammingOfViews(model.card.bits),
        asks=_of_views,
    )


def _of_views(describe: Describe) -> Describe:
    def described(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        codes = describe(np.concatenate([views(image) for image in tiny]))
        return codes.reshape(len(tiny), N_VIEWS, -1)

    return described


def _addresses(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    bits = model.card.address_bits
    if not bits:
        raise EvaluationError(f"{model.folder} is a {model.card.kind} model; it has no addresses")
    title = _of("addresses", model)
    method = _code("addresses", title, bits, lambda _: model.encoder.addresses)
    return replace(method, model=model)


def _pixels(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    image_bytes = SERVED["pixels"].image_bytes
    comparison = SquaredPixels(SERVED["pixels"].unit)
    return MeasuredMethod("pixels", "pixels", comparison, image_bytes, lambda _: _flat)


def _served(name: str, model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    """A served method without a row of its own here, measured by its own index."""
    served = SERVED[name]
    comparison = Served(served)
    method = MeasuredMethod(name, served.title, comparison, served.image_bytes, lambda _: _flat)
    if served.column != "codes":
        return method
    title = f"{served.title}, {model.name}" if model.name else served.title
    return replace(method, title=title, learn=lambda _: model.encoder.encode, model=model)


def _normalized(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    title = "pixels, centred and contrast-normalised"
    return MeasuredMethod(
        "normalized", title, Euclidean(), 4 * TINY_BYTES, lambda _: contrast_normalized
    )


def _pca(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    return MeasuredMethod(
        "pca",
        f"{counted(n_bits, 'principal component')}, float32",
        Euclidean(),
        4 * n_bits,
        lambda examples: examples.components(n_bits),
        least_images=n_bits + 1,
    )


def _pca_sign(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    title = "signs of principal components"
    return _of_components("pca-sign", title, n_bits, lambda e: e.components(n_bits).signs)


def _itq(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    def learn(examples: Examples) -> Describe:
        return iterative_quantization(examples.images, examples.components(n_bits)).signs

    return _of_components("itq", "iterative quantization (ITQ)", n_bits, learn)


def _lsh(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    def learn(examples: Examples) -> Describe:
        return random_projections(examples.images, n_bits, seed).signs

    return _code("lsh", "random projections (LSH)", n_bits, learn, f"seed {seed}")


def _spectral(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    def learn(examples: Examples) -> Describe:
        return SpectralHashing.of(examples.images, examples.components(n_bits), n_bits)

    return _of_components("spectral", "spectral hashing", n_bits, learn)


def _phash(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    if math.isqrt(n_bits) ** 2 != n_bits:
        raise EvaluationError(f"phash has a square number of bits, such as 64 or 256; got {n_bits}")
    hashes = phash(n_bits)
    return _code("phash", "pHash", n_bits, lambda _: hashes)


def _pdq(model: Model, n_bits: int, seed: int) -> MeasuredMethod:
    hashes = pdq()
    return _code("pdq", "PDQ", PDQ_BITS, lambda _: hashes)


class Row(NamedTuple):
    """make: a method of a model, a number of bits and a seed, as `method_named` takes them.
    by_default: whether `hashsearch eval` measures it without being asked to.
    """

    make: Callable[[Model, int, int], MeasuredMethod]
    by_default: bool = True


MEASURED = {
    "codes": Row(_codes),
    "pixels": Row(_pixels),
    "normalized": Row(_normalized),
    "pca": Row(_pca),
    "pca-sign": Row(_pca_sign),
    "itq": Row(_itq),
    "lsh": Row(_lsh),
    "spectral": Row(_spectral),
    "phash": Row(_phash),
    "pdq": Row(_pdq),
    "addresses": Row(_addresses, by_default=False),
    "transforms": Row(_transforms, by_default=False),
}


def measured() -> dict[str, Row]:
    """Every method by name: the served ones, then the baselines."""
    return {name: Row(partial(_served, name)) for name in SERVED} | MEASURED


def _of(what: str, model: Model) -> str:
    return f"{what} of {model.name}" if model.name else f"model's {what}"


def _code(
    name: str, title: str, n_bits: int, learn: Callable[[Examples], Describe], *identity: str
) -> MeasuredMethod:
    size = -(-n_bits // 8)
    return MeasuredMethod(name, title, Hamming(n_bits), size, learn, n_bits, identity=identity)


def _of_components(
    name: str, title: str, n_bits: int, learn: Callable[[Examples], Describe]
) -> MeasuredMethod:
    """A code that needs more images than bits: fewer leave some components to chance."""
    return replace(_code(name, title, n_bits, learn), least_images=n_bits + 1)


def _flat(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return tiny.reshape(len(tiny), TINY_BYTES)
