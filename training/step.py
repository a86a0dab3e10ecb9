"""One training step: a plain call on the CPU, a replayed CUDA graph on a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.device import seed_of

Compute = Callable[[Tensor, torch.Generator], dict[str, Tensor]]
_EAGER = 3  # steps before the capture, in which memory is allocated and kernels are chosen


class Step:
    """Calls `compute`; on CUDA it is captured once and then replayed as a single launch.

    compute: takes the rows of a batch, (n,) int64 on the device, and a random generator,
    and returns measured scalars by name. It must launch the same work every time, take all
    randomness from the generator, read changing numbers (rates, momenta) from tensors, and
    not synchronise with the device. numbers: with the step number they seed the generator.
    """

    def __init__(self, compute: Compute, device: str, *numbers: int):
        self._compute, self._numbers = compute, numbers
        self._random = torch.Generator(device)
        self._graphed = torch.device(device).type == "cuda"
        self._side = torch.cuda.Stream(device) if self._graphed else None
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: int, rows: Tensor) -> dict[str, Tensor]:
        """Take one step. The next step overwrites the returned tensors."""
        self._taken += 1
        if self._graphed and self._graph is None and self._taken > _EAGER:
            self._capture(rows)
        self._random.manual_seed(seed_of(*self._numbers, step))
        if not self._graphed:
            return self._compute(rows, self._random)
        if self._graph is None:
            return self._on_a_side_stream(rows)
        self._rows.copy_(rows)
        self._graph.replay()
        return self._measured

    def _on_a_side_stream(self, rows: Tensor) -> dict[str, Tensor]:
        """Run on a side stream, as PyTorch requires before a capture."""
        assert self._side is not None
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            measured = self._compute(rows, self._random)
        torch.cuda.current_stream().wait_stream(self._side)
        return measured

    def _capture(self, rows: Tensor) -> None:
        """Record the launches without running them."""
        self._rows = rows.clone()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._random)
        with torch.cuda.graph(self._graph):
            self._measured = self._compute(self._rows, self._random)
