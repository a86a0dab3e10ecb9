"""How many steps fit into a time: the speed is measured, and the steps taken for it are undone."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Update = Callable[[int, float], Mapping[str, Tensor | float]]

_MEASURE_S = 6.0
_MEASURE_SHARE = 0.1  # of a stage's time at most
_SPARE = 0.03  # of a stage's time, since the speed varies
_WARM_STEPS = 5  # before the speed is measured: on a GPU they capture the step
_AT_ONCE = 4  # steps between two waits for the device


class Stateful(Protocol):
    """What a checkpoint keeps: a module, an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def affordable(parts: Mapping[str, Stateful], update: Update, ends: float) -> int:
    """How many steps fit until `ends`, by time.monotonic(); at least one.

    parts: all that `update` changes. They are left as they were.
    """
    before = {name: _cloned(part.state_dict()) for name, part in parts.items()}
    left = max(0.0, ends - time.monotonic())
    for step in range(_WARM_STEPS):
        float(update(step, 0.0)["loss"])
        if time.monotonic() > ends - left / 2:
            break  # a step takes a good part of the time
    taken, spent, started = 0, 0.0, time.monotonic()
    while not taken or spent < min(_MEASURE_S, left * _MEASURE_SHARE):
        for _ in range(_AT_ONCE):
            measured = update(taken, 0.0)
            taken += 1
        float(measured["loss"])  # waits for the device
        spent = time.monotonic() - started
    for name, part in parts.items():
        _restore(part.state_dict(), before[name])
    return max(1, int((ends - time.monotonic()) * (1 - _SPARE) * taken / spent))


def load_in_place(part: Stateful, state: dict[str, Any]) -> None:
    """Load a state, but keep an optimizer's own rates, tensors on its device.

    PyTorch takes a checkpoint's rates as they were read, on the CPU, and a captured step
    would then hold the number that they had.
    """
    groups = getattr(part, "param_groups", [])
    rates = [group["lr"] for group in groups]
    part.load_state_dict(state)
    for group, rate in zip(getattr(part, "param_groups", []), rates, strict=True):
        group["lr"] = rate.copy_(group["lr"])


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dictionaries and lists, with where each is."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        entries = state.items() if isinstance(state, dict) else enumerate(state)
        for name, value in entries:
            yield from _tensors(value, f"{path}/{name}")


def _cloned(state: dict[str, Any]) -> dict[str, Tensor]:
    return {path: part.clone() for path, part in _tensors(state)}


def _restore(state: dict[str, Any], before: Mapping[str, Tensor]) -> None:
    """Undo changes in place, since a captured step goes on with these very tensors.

    What an optimizer has made since is set to zero, as it would be made.
    """
    with torch.no_grad():
        for path, part in _tensors(state):
            if path in before:
                part.copy_(before[path])
            else:
                part.zero_()
