"""Work of several threads that is done together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.batching import Gathering


def test_a_lone_call_is_done_at_once_by_its_own_thread():
    threads = []

    def work(asked):
        threads.append(threading.get_ident())
        return [one + 1 for one in asked]

    assert Gathering(work, lambda *_: True)(1) == 2
    assert threads == [threading.get_ident()]


def test_what_is_asked_meanwhile_is_done_together_and_each_gets_its_own_result():
    began, go_on = threading.Event(), threading.Event()
    gathered = []

    def work(asked):
        gathered.append(list(asked))
        if len(gathered) == 1:
            began.set()
            assert go_on.wait(10)
        return [10 * one for one in asked]

    together = Gathering(work, lambda taken, one: len(taken) < 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together, 0)
        assert began.wait(10)
        others = [pool.submit(together, number) for number in range(1, 8)]
        while len(together._waiting) < 7:
            pass
        go_on.set()
        assert [call.result(10) for call in (first, *others)] == [10 * n for n in range(8)]
    assert sorted(len(some) for some in gathered) == [1, 1, 3, 3]
    assert sorted(one for some in gathered for one in some) == list(range(8))


def test_what_does_not_fit_is_done_later():
    began, go_on = threading.Event(), threading.Event()
    gathered = []

    def work(asked):
        gathered.append(list(asked))
        began.set()
        assert go_on.wait(10)
        return asked

    together = Gathering(work, lambda taken, one: taken[0] % 2 == one % 2)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(together, 0)]
        assert began.wait(10)
        calls += [pool.submit(together, number) for number in range(1, 7)]
        while len(together._waiting) < 6:
            pass
        go_on.set()
        assert [call.result(10) for call in calls] == list(range(7))
    assert all(len({one % 2 for one in some}) == 1 for some in gathered)
    assert len(gathered) == 3


def test_a_failure_is_raised_by_each_call_of_the_batch_and_by_no_later_one():
    def work(asked):
        if -1 in asked:
            raise ValueError("no")
        return asked

    together = Gathering(work, lambda *_: True)
    with pytest.raises(ValueError, match="no"):
        together(-1)
    assert together(5) == 5

    def ask(number):
        try:
            return together(number)
        except ValueError:
            return None

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, [3, -1, 4] * 100))
    assert answers[1::3] == [None] * 100
    assert all(found in (None, n) for found, n in zip(answers, [3, -1, 4] * 100, strict=True))
    assert together(6) == 6
