"""Questions of several requests that are answered together."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hashsearch.retrieval.searcher import Searcher
from service.lanes import Lane
from service.problems import QueueFull
from service.stages import Stages
from service.together import Together
from tests.conftest import open_searcher, serving


def test_what_is_asked_meanwhile_is_answered_together_and_each_gets_its_own_answer():
    batches = []
    lane = Lane("test", 1, 100)

    def answer(questions):
        batches.append(len(questions))
        return [ValueError(f"not {one}") if one % 3 == 0 else 10 * one for one in questions]

    async def ask_all():
        together = Together(lane, answer)
        return await asyncio.gather(
            *(together(number, Stages()) for number in range(80)), return_exceptions=True
        )

    answers = asyncio.run(ask_all())
    for number, found in enumerate(answers):
        assert str(found) == (f"not {number}" if number % 3 == 0 else str(10 * number))
    assert batches == [64, 16]
    assert lane.size == 0
    lane.close()


def test_a_failure_is_raised_by_every_question_of_the_batch_and_by_no_later_one():
    lane, calls = Lane("test", 1, 100), []

    def answer(questions):
        calls.append(questions)
        if len(calls) == 1:
            raise RuntimeError("broken")
        return questions

    async def ask():
        together = Together(lane, answer)
        first = await asyncio.gather(
            together(1, Stages()), together(2, Stages()), return_exceptions=True
        )
        return first, await together(3, Stages())

    first, later = asyncio.run(ask())
    assert [str(error) for error in first] == ["broken", "broken"]
    assert later == 3
    lane.close()


def test_a_client_that_goes_away_leaves_the_others_their_answers():
    lane = Lane("test", 1, 100)

    async def ask():
        together = Together(lane, lambda questions: questions)
        tasks = [asyncio.create_task(together(number, Stages())) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert (answers[0], answers[2]) == (0, 2)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert lane.size == 0
    lane.close()


def test_several_batches_are_answered_at_a_time_where_they_wait_for_others():
    lane, began, go_on = Lane("test", 4, 100), threading.Event(), threading.Event()

    def answer(questions):
        if questions == ["slow"]:
            began.set()
            assert go_on.wait(30)
        return questions

    async def ask():
        together = Together(lane, answer, at_once=2)
        slow = asyncio.create_task(together("slow", Stages()))
        await asyncio.to_thread(began.wait, 30)
        quick = [await together(number, Stages()) for number in range(3)]
        assert not slow.done()
        go_on.set()
        return quick, await slow, await together("later", Stages())

    assert asyncio.run(ask()) == ([0, 1, 2], "slow", "later")
    assert lane.size == 0
    lane.close()


def test_a_full_lane_refuses_and_takes_again_what_comes_later():
    lane = Lane("test", 1, 4)

    async def ask():
        together = Together(lane, lambda questions: questions)
        answers = await asyncio.gather(
            *(together(number, Stages()) for number in range(9)), return_exceptions=True
        )
        return answers, await together(9, Stages())

    answers, later = asyncio.run(ask())
    assert answers[:4] == [0, 1, 2, 3]
    assert all(isinstance(error, QueueFull) for error in answers[4:])
    assert later == 9
    lane.close()


def test_work_larger_than_a_lane_is_taken_alone():
    lane = Lane("test", 2, 4)

    async def ask():
        alone = await lane.run(lambda: "done", Stages(), 9)
        with lane.place(), pytest.raises(QueueFull):
            await lane.run(lambda: "done", Stages(), 9)
        return alone

    assert asyncio.run(ask()) == "done"
    assert lane.size == 0
    lane.close()


def test_searches_for_several_queries_give_what_each_gives_alone(gallery_folder):
    searcher = open_searcher(gallery_folder)
    random = np.random.default_rng(0)
    queries = [searcher.query_by_id(int(number)) for number in random.integers(1, 301, 40)]
    queries += [searcher.query_by_code(query.code) for query in queries[:20]]
    wanted = [
        (query, int(random.integers(0, 290)), int(random.integers(1, 40))) for query in queries
    ]
    found = searcher.search_each(wanted)
    for (query, offset, k), ranking in zip(wanted, found, strict=True):
        assert ranking.hits == searcher.search(query, k=k, offset=offset).hits
        assert ranking.hits == searcher.search(query, k=offset + k).hits[offset:]
    assert searcher.search_each([]) == []


def test_concurrent_requests_of_every_kind_get_their_own_answers(gallery_folder, image_files):
    pictures = [path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:8]]
    with serving(gallery_folder) as client:
        code = client.post("/v1/search", json={"id": 3}).json()["code"]
        asked = [
            *({"json": {"id": number}} for number in range(1, 40)),
            {"json": {"id": 5}, "params": {"k": 7, "offset": 3}},
            {"json": {"id": 99_999}},
            {"json": {"code": code}},
            {"json": {"code": "ab"}},
            {"json": {"id": 6}, "params": {"label": "0"}},
            {"json": {"id": 6, "exclude": [7]}},
            *({"content": picture} for picture in pictures),
            {"content": b"no picture"},
        ]

        def ask(request):
            answer = client.post("/v1/search", **request)
            body = json.loads(answer.text)
            for name in ("latency_ms", "request_id"):
                body.pop(name, None)
            return answer.status_code, body

        alone = [ask(request) for request in asked]
        assert {status for status, _ in alone} == {200, 404, 415, 422}
        with ThreadPoolExecutor(24) as pool:
            together = list(pool.map(ask, asked * 3))
        assert together == alone * 3


def test_an_offset_skips_the_nearest(client):
    everything = client.post("/v1/search?k=40", json={"id": 5}).json()["hits"]
    for query in ("k=7&offset=9", "k=7&offset=9&method=codes&radius=256"):
        page = client.post(f"/v1/search?{query}", json={"id": 5}).json()
        assert page["hits"] == everything[9:16]
        assert page["asked"]["offset"] == 9
    page = client.post("/v1/search?k=7&offset=9&label=none", json={"id": 5}).json()
    assert (page["hits"], page["asked"]["label"]) == ([], "none")
    pixels = client.post("/v1/search?k=9&method=pixels", json={"id": 5}).json()["hits"]
    page = client.post("/v1/search?k=4&offset=5&method=pixels", json={"id": 5}).json()["hits"]
    assert page == pixels[5:]
    examples = {"like": [5, 6], "unlike": [7]}
    ranked = client.post("/v1/search?k=9", json=examples).json()["hits"]
    assert client.post("/v1/search?k=4&offset=5", json=examples).json()["hits"] == ranked[5:]
    radius = everything[30]["distance"]
    within = client.post(f"/v1/search?radius={radius}", json={"id": 5}).json()["hits"]
    page = client.post(f"/v1/search?radius={radius}&offset=12", json={"id": 5}).json()
    assert page["hits"] == within[12:]
    beyond = client.post("/v1/search?offset=5000", json={"id": 5})
    assert (beyond.status_code, beyond.json()["hits"]) == (200, [])


@pytest.mark.parametrize(
    ("parameters", "body"),
    [("", {"like": [1, 2]}), ("?k=101", {"id": 1}), ("?offset=91", {"id": 1})],
)
def test_searches_that_take_long_keep_none_by_id_waiting(
    parameters, body, gallery_folder, monkeypatch
):
    """As many as may be at work or wait are asked, and take until the end of the test."""
    go_on = threading.Event()
    search = Searcher.search

    def slow(searcher, query, *rest, **options):
        assert go_on.wait(30)
        return search(searcher, query, *rest, **options)

    monkeypatch.setattr(Searcher, "search", slow)
    with serving(gallery_folder, queue=20) as client, ThreadPoolExecutor(30) as pool:
        long = [pool.submit(client.post, f"/v1/search{parameters}", json=body) for _ in range(20)]
        many = {"like": list(range(1, 101)), "unlike": list(range(101, 201))}
        deadline = time.monotonic() + 30
        while client.app.state.lanes.searches.size < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = client.post("/v1/search", json=many)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        for number in range(1, 30):
            for plain in ("", "?k=100", "?k=10&offset=90"):
                assert client.post(f"/v1/search{plain}", json={"id": number}).status_code == 200
            assert client.get("/readyz").status_code == 200
        go_on.set()
        assert {call.result().status_code for call in long} == {200}
