"""A question to the copies of parts, with answers and failures of Ray's that are made up."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hashsearch.distributed.calls import calls_allowed
from hashsearch.errors import ClusterError


@dataclass
class Ray:
    """What is used of the module `ray`: a call is what it is answered with; None is no answer."""

    now_s: float = 0.0
    cancelled: list[Any] = field(default_factory=list)

    def wait(self, calls: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        done = [call for call in calls if call.answer is not None][:1]
        if not done:
            self.now_s += timeout
        return done, [call for call in calls if call not in done]

    def get(self, call: Any, timeout: float | None) -> Any:
        if call.answer is None:
            assert timeout == 0
            raise TimeoutError
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def cancel(self, call: Any) -> None:
        self.cancelled.append(call)

    def monotonic(self) -> float:
        return self.now_s


@dataclass(eq=False)
class Call:
    answer: Any


class Actor:
    """A process that answers every call with the same."""

    def __init__(self, answer: Any):
        self.answer = answer

    @property
    def search(self) -> "Actor":
        return self

    def remote(self, *arguments: Any) -> Call:
        return Call(self.answer)


@pytest.fixture
def ray(monkeypatch) -> Iterator[Ray]:
    from hashsearch.distributed import asking

    one = Ray()
    monkeypatch.setattr(asking, "ray", one)
    monkeypatch.setattr(asking, "time", one)
    with calls_allowed():
        yield one


def asked(*parts: tuple[Any, ...]) -> tuple[dict[int, Any], list[Any], int]:
    """What is found, which copies count as failed, and how often others were asked.

    parts: what each copy of each part answers.
    """
    from hashsearch.distributed.asking import Question, Tally
    from hashsearch.distributed.loading import Replica

    copies = [
        [Replica(part, str(copy), Actor(answer), is_up=True) for copy, answer in enumerate(answers)]
        for part, answers in enumerate(parts)
    ]
    failed, tally = [], Tally()

    def choose(part, tried):
        left = [one for one in copies[part] if one not in tried]
        return (left[0], left[0].actor) if left else None

    def fail(replica, actor, error, is_stuck):
        failed.append((replica.slice, int(replica.node), is_stuck))

    arguments: dict[int, tuple[Any, ...]] = dict.fromkeys(range(len(parts)), ())
    question = Question("search", arguments, choose, fail, tally)
    return question.answers(), failed, tally.retries


def task_error(cause: Exception) -> Exception:
    from ray.exceptions import RayTaskError

    return RayTaskError("search", "a traceback", cause)


def test_the_first_copy_of_each_part_answers(ray):
    assert asked(("a", "other"), ("b", "other")) == ({0: "a", 1: "b"}, [], 0)


def test_another_copy_is_asked_where_one_has_died_and_a_part_without_one_is_left_out(ray):
    from ray.exceptions import ActorDiedError

    found = asked((ActorDiedError(), "a"), (ActorDiedError(), ActorDiedError()))
    assert found == ({0: "a"}, [(0, 0, False), (1, 0, False), (1, 1, False)], 2)


def test_an_error_within_a_copy_is_raised_if_another_copy_has_one_too_or_there_is_none(ray):
    from ray.exceptions import ActorDiedError, RayTaskError

    lacking = task_error(MemoryError("no room"))
    assert asked((lacking, "a")) == ({0: "a"}, [], 1)
    for answers in ((lacking, task_error(ValueError())), (lacking,), (lacking, ActorDiedError())):
        with pytest.raises(RayTaskError):
            asked(answers)


def test_a_search_that_never_ends_is_given_up_after_minutes(ray):
    assert asked((None, "a")) == ({0: "a"}, [(0, 0, True)], 1)
    assert 300 < ray.now_s < 310
    assert len(ray.cancelled) == 1
    assert asked((None,)) == ({}, [(0, 0, True)], 0)


def test_what_ray_itself_raises_becomes_one_sentence():
    from ray.exceptions import ObjectStoreFullError, RayTaskError

    from hashsearch.distributed.asking import cluster_errors

    sentence = r"^the cluster fails \(ObjectStoreFullError\); try again in some seconds$"
    with pytest.raises(ClusterError, match=sentence), cluster_errors():
        raise ObjectStoreFullError("no room")
    with pytest.raises(RayTaskError), cluster_errors():
        raise task_error(MemoryError())
