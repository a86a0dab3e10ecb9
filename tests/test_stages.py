"""The stages of a request, by a clock that the test moves."""

from threading import BoundedSemaphore
from types import SimpleNamespace

import numpy as np
import pytest

from service.context import Context
from service.engine import Engine
from service.stages import Stages


@pytest.mark.parametrize("prepares", [False, True])
def test_waiting_for_a_core_counts_as_waiting_and_not_as_decoding(
    gallery_folder, monkeypatch, prepares
):
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    class BusyCores(BoundedSemaphore):
        def __enter__(self) -> bool:
            pass_time(100.0)
            return super().__enter__()

    def decode(*args: object, **options: object) -> SimpleNamespace:
        pass_time(7.0)
        return SimpleNamespace(tiny=np.zeros((32, 32, 3), np.uint8))

    monkeypatch.setattr("service.engine.BoundedSemaphore", BusyCores)
    monkeypatch.setattr("service.engine.decode", decode)
    monkeypatch.setattr("service.engine.prepare_one", decode)
    monkeypatch.setattr("service.stages.time", SimpleNamespace(perf_counter=lambda: now))
    engine, context = Engine(gallery_folder), Context(Stages(), "")
    try:
        context.stages.add("wait", 3.0)  # for a thread
        if prepares:
            engine.prepare(b"", False, context)
        else:
            engine.decode(b"", context)
    finally:
        engine.close()
    assert context.stages.seconds == {"wait": 103.0, "decode": 7.0}
