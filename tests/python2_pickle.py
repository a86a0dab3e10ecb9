"""Pickles as Python 2 wrote them: CIFAR-10's python batches are such."""

import pickle
import struct
from io import BytesIO
from typing import Any, ClassVar


class _Python2Pickler(pickle._Pickler):
    """Protocol 2, bytes as Python 2's strings, NumPy by its old module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: bytes) -> None:
        if len(text) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = save_string

    def save_name(self, text: str) -> None:
        self.save_string(text.encode())

    dispatch[str] = save_name

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def dump_like_python2(value: Any) -> bytes:
    buffer = BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()
