"""What a picture is encoded to, and what a code decodes to."""

import base64
import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_from_hex, code_to_hex
from hashsearch.crop import WHOLE, Crop
from hashsearch.images import decode, encode_png, preview
from hashsearch.retrieval.occlusion import N_MASKED, changed_bits, masked, occlusion_map
from service.context import Context
from service.engine import Engine
from service.parsing import AskedQuery
from service.problems import naming
from service.schemas.codes import EncodeAnswer, EncodeParameters, PartsAnswer
from service.validation import InvalidParameter


def images_of(parameters: EncodeParameters) -> int:
    """Number of images that are decoded and encoded for an answer."""
    more = {"preview": 1, "occlusion": N_MASKED}
    return 1 + sum(more.get(part, 0) for part in set(parameters.parts))


def require_image_alone(asked: AskedQuery) -> None:
    """Raises InvalidParameter if a body holds anything but an image."""
    others = {**dict(asked.body), "like": asked.like, "unlike": asked.unlike}
    for name, value in others.items():
        if value not in (None, [], ()):
            raise InvalidParameter(
                f"{name} is only for searches; send an image, or image_base64 alone", name
            )


def encode_answer(
    engine: Engine, asked: AskedQuery, parameters: EncodeParameters, context: Context
) -> EncodeAnswer:
    """asked: an image alone. Raises what decoding, encoding and `Engine.now` raise."""
    image = asked.image
    assert image is not None
    wanted = set(parameters.parts)
    crop = WHOLE if parameters.crop is None else Crop.of(parameters.crop)
    parts: dict[str, bytes] = {}
    with naming(asked.field), engine.decoding(context):
        decoded = decode(image, crop=crop)
        if "preview" in wanted:
            parts["preview"] = encode_png(preview(image))
    searcher = engine.now()
    tiny = decoded.tiny[np.newaxis]
    if "occlusion" in wanted:
        tiny = np.concatenate([tiny, masked(decoded.tiny)])
    query, *others = engine.encode(searcher, tiny, context)
    changed = None
    if "occlusion" in wanted:
        changed = changed_bits(query.code, np.stack([other.code for other in others]))
        parts["occlusion"] = encode_png(occlusion_map(changed))
    if "tiny" in wanted:
        parts["tiny"] = encode_png(decoded.tiny)
    if "reconstruction" in wanted:
        (picture,) = searcher.encoder.reconstruct(query.code[np.newaxis])
        parts["reconstruction"] = encode_png(picture)
    return EncodeAnswer(
        code=code_to_hex(query.code),
        address=None if query.address is None else query.address.tobytes().hex(),
        width=decoded.width,
        height=decoded.height,
        parts=PartsAnswer(**{name: base64.b64encode(png).decode() for name, png in parts.items()}),
        changed_bits=None if changed is None else changed.tolist(),
        generation=searcher.generation,
        fingerprint=searcher.fingerprint,
    )


def reconstruction(engine: Engine, hex_code: str) -> tuple[str, Callable[[], bytes]]:
    """The ETag of the picture that a code decodes to, and a function that makes it, as PNG.

    Raises CodeShapeError, and what `Engine.now` raises.
    """
    with naming("hex"):
        code: NDArray[np.uint8] = code_from_hex(hex_code)
    searcher = engine.now()
    tag = hashlib.sha256(bytes.fromhex(searcher.fingerprint) + code.tobytes()).hexdigest()[:32]

    def picture() -> bytes:
        return encode_png(searcher.encoder.reconstruct(code[np.newaxis])[0])

    return f'"{tag}"', picture
