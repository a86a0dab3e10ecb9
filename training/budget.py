"""How many steps fit into a time: a stage's speed is measured with steps that are then undone."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Update = Callable[[int, float], Mapping[str, Tensor | float]]

_MEASURE_S = 6.0
_MEASURE_SHARE = 0.1  # largest share of a stage's time spent on measuring
_SPARE = 0.03  # share of a stage's time kept in reserve, since the speed varies
_WARM_STEPS = 5  # before the speed is measured; on a GPU they include the graph capture
_STEPS_PER_SYNC = 4  # steps between two waits for the device


class Stateful(Protocol):
    """A part of a checkpoint, such as a module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def affordable(parts: Mapping[str, Stateful], update: Update, ends: float) -> int:
    """Return how many steps fit until `ends`, a time.monotonic() time; at least one.

    parts: everything that `update` changes; their state is restored.
    """
    before = {name: _cloned(part.state_dict()) for name, part in parts.items()}
    left = max(0.0, ends - time.monotonic())
    for step in range(_WARM_STEPS):
        float(update(step, 0.0)["loss"])
        if time.monotonic() > ends - left / 2:
            break  # a few steps already take half of the time
    taken, spent, started = 0, 0.0, time.monotonic()
    while not taken or spent < min(_MEASURE_S, left * _MEASURE_SHARE):
        for _ in range(_STEPS_PER_SYNC):
            measured = update(taken, 0.0)
            taken += 1
        float(measured["loss"])  # waits for the device
        spent = time.monotonic() - started
    for name, part in parts.items():
        _restore(part.state_dict(), before[name])
    return max(1, int((ends - time.monotonic()) * (1 - _SPARE) * taken / spent))


def load_in_place(part: Stateful, state: dict[str, Any]) -> None:
    """Load a state, but keep an optimizer's learning-rate tensors, which are on its device.

    PyTorch would replace them by the checkpoint's tensors on the CPU, and a captured CUDA
    graph would freeze the values of those.
    """
    groups = getattr(part, "param_groups", [])
    rates = [group["lr"] for group in groups]
    part.load_state_dict(state)
    for group, rate in zip(getattr(part, "param_groups", []), rates, strict=True):
        group["lr"] = rate.copy_(group["lr"])


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries and lists, each with its path."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        entries = state.items() if isinstance(state, dict) else enumerate(state)
        for name, value in entries:
            yield from _tensors(value, f"{path}/{name}")


def _cloned(state: dict[str, Any]) -> dict[str, Tensor]:
    return {path: part.clone() for path, part in _tensors(state)}


def _restore(state: dict[str, Any], before: Mapping[str, Tensor]) -> None:
    """Undo changes in place, because a captured CUDA graph keeps using the same tensors.

    State that an optimizer has created since is set to zero, its initial value.
    """
    with torch.no_grad():
        for path, part in _tensors(state):
            if path in before:
                part.copy_(before[path])
            else:
                part.zero_()
