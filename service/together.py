"""Questions that are answered together, by one thread."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from service.lanes import Lane
from service.stages import Stages

A = TypeVar("A")
R = TypeVar("R")

_MOST = 64  # questions that are answered together, so that none waits long for others


class Together(Generic[A, R]):
    """Answers together what is asked while earlier questions are answered, batch by batch.

    A lone question is answered at once; nothing waits for others to come. Waking a thread takes
    longer than many an answer, so a lane's thread is woken once for all of them. Used by the
    event loop alone.
    """

    def __init__(
        self,
        lane: Lane,
        answer: Callable[[Sequence[A]], Sequence[R | Exception]],
        at_once: int = 1,
    ):
        """answer: called in a thread of the lane; gives each question an answer or its error.

        at_once: batches that are answered at a time.
        """
        self._lane, self._answer, self._at_once = lane, answer, at_once
        # Each question, its stages, when it was asked, and its answer to be.
        self._waiting: list[tuple[A, Stages, float, asyncio.Future[R]]] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def __call__(self, question: A, stages: Stages) -> R:
        """The answer to a question. Raises its error, and QueueFull."""
        with self._lane.place():
            future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._waiting.append((question, stages, time.perf_counter(), future))
            if len(self._answering) < self._at_once:
                self._answering.add(asyncio.create_task(self._answer_all()))
            return await future

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                await self._answer_next()
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._answering.remove(task)

    async def _answer_next(self) -> None:
        some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        answers: Sequence[R | Exception]
        try:
            answers = await self._lane.run_within(partial(self._answer_some, some))
        except Exception as error:
            answers = [error] * len(some)
        for (*_, future), found in zip(some, answers, strict=True):
            if future.done():  # the client is gone
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

    def _answer_some(
        self, some: Sequence[tuple[A, Stages, float, object]]
    ) -> Sequence[R | Exception]:
        """Called by a thread of the lane."""
        now = time.perf_counter()
        for _, stages, asked, _ in some:
            stages.add("wait", now - asked)
        return self._answer([question for question, *_ in some])
