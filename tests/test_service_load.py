"""A running service under load: full queues, writes beside searches, kills, and mixed requests."""

import json
import random
import shutil
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from threading import Event, Lock
from typing import Any, ClassVar

import numpy as np
import pytest

from hashsearch.images import encode_png
from tests.galleries import run
from tests.image_bytes import progressive_jpeg
from tests.processes import LANE_THREADS, Served, serving_process

KEY = "a-key-of-the-tests"
QUEUE = 16
JSON = "application/json"
Answer = tuple[int, Any]


@pytest.fixture
def folder(gallery_folder, tmp_path) -> Path:
    shutil.copytree(gallery_folder, tmp_path / "g")
    return tmp_path / "g"


@pytest.fixture
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


class Client:
    """Sends requests over one connection, again while the service is busy."""

    def __init__(self, served: Served):
        self._served, self._connection = served, served.connect()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def raw(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "image/png"
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": content_type, "Authorization": f"Bearer {KEY}"}
        while True:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            data = response.read()
            if response.status != 503:
                return response.status, data
            assert int(response.headers["Retry-After"]) >= 1
            time.sleep(0.02)

    def __call__(self, method: str, path: str, body: bytes | dict | None = None) -> Answer:
        content_type = "image/png"
        if isinstance(body, dict):
            body, content_type = json.dumps(body).encode(), JSON
        status, data = self.raw(method, path, body, content_type)
        return status, json.loads(data)


def noise(seed: int) -> bytes:
    """An image file that no other seed gives."""
    return encode_png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


# Full queues


def test_a_full_queue_refuses_and_slow_pictures_keep_nothing_else_waiting(folder, tmp_path):
    slow = progressive_jpeg(4000, 48)  # as much work as is accepted
    asked, refused, found = 60, [], []
    with (
        serving_process(folder, tmp_path / "log", queue=QUEUE) as served,
        ThreadPoolExecutor(asked) as pool,
        Client(served) as client,
    ):

        def send(_: int) -> None:
            status, headers, body = served.request("POST", "/v1/search", slow)
            if status == 503:
                assert json.loads(body)["code"] == "busy"
                assert int(headers["Retry-After"]) >= 1
                refused.append(time.perf_counter())
            else:
                assert status == 200
                found.append(time.perf_counter())

        sending = pool.map(send, range(asked))
        while len(refused) < asked - QUEUE - 5:
            time.sleep(0.01)
        by_id = []
        for number in range(10):
            assert client("POST", "/v1/search", {"id": number + 1})[0] == 200
            assert client("GET", "/readyz")[0] == 200
            by_id.append(time.perf_counter())
        list(sending)
        assert len(found) >= QUEUE
        assert len(refused) + len(found) == asked
        # All of them, while pictures that had come before them were at work.
        assert by_id[-1] < sorted(found)[-1]
        assert by_id[4] < sorted(found)[-2]
        assert served.request("POST", "/v1/search", noise(0))[0] == 200


# Writes, searches and kills


class Writer:
    """Adds and removes images of its own, and checks each change by the next search."""

    def __init__(self, number: int):
        self._random, self._seeds = random.Random(number), iter(range(10**6 * number, 10**9))
        self.held: dict[int, tuple[int, str]] = {}  # id and uri by seed, as answered 200
        self.removed: set[int] = set()  # ids, as answered 200
        self.unknown: set[int] = set()  # seeds whose answer did not come
        self.changes = 0

    def work(self, served: Served, ended: Event) -> None:
        with Client(served) as client:
            while not ended.is_set():
                if self.held and self._random.random() < 0.3:
                    self._remove(client, self._random.choice(list(self.held)))
                else:
                    self._add(client, next(self._seeds))
                self.changes += 1

    def _add(self, client: Client, seed: int) -> None:
        self.unknown.add(seed)
        status, answer = client("POST", "/v1/images", noise(seed))
        assert status == 200, answer
        (added,) = answer["images"]
        assert added["is_new"]
        self.unknown.discard(seed)
        self.held[seed] = added["id"], added["uri"]
        self.check(client, seed)

    def _remove(self, client: Client, seed: int) -> None:
        self.unknown.add(seed)
        removed, _ = self.held.pop(seed)
        status, answer = client("DELETE", f"/v1/images/{removed}")
        assert (status, answer["removed"]) == (200, 1)
        self.unknown.discard(seed)
        self.removed.add(removed)
        status, answer = client("POST", "/v1/search?radius=0", noise(seed))
        assert removed not in [hit["id"] for hit in answer["hits"]]

    def check(self, client: Client, seed: int) -> None:
        """What was answered 200 is found, as it was answered."""
        status, answer = client("POST", "/v1/search?radius=0", noise(seed))
        assert status == 200
        found = [(hit["id"], hit["uri"]) for hit in answer["hits"]]
        assert self.held[seed] in found


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.soak)])
def test_acknowledged_writes_survive_kills_and_are_seen_by_the_next_search(
    kills, folder, tmp_path, picture
):
    """Searches of other clients meanwhile find no image that was removed before they began."""
    writers = [Writer(number) for number in (1, 2)]
    chance = random.Random(kills)

    def search(served: Served, ended: Event) -> None:
        with Client(served) as client:
            while not ended.is_set():
                gone = set.union(*(set(writer.removed) for writer in writers))
                status, answer = client("POST", "/v1/search?k=1000", picture)
                assert status == 200
                assert not gone & {hit["id"] for hit in answer["hits"]}

    def until_killed(work: Callable[..., None], served: Served, ended: Event) -> None:
        try:
            work(served, ended)
        except (OSError, HTTPException):
            assert ended.is_set()

    def has_worked() -> bool:
        return all(writer.changes > 5 for writer in writers) and any(
            writer.removed for writer in writers
        )

    for number in range(kills + 1):
        with serving_process(folder, tmp_path / f"log{number}", api_keys=KEY) as served:
            with Client(served) as client:
                for writer in writers:
                    for seed in writer.held:
                        writer.check(client, seed)
                answer = client("POST", "/v1/search?k=1000", picture)[1]
                gone = set.union(*(writer.removed for writer in writers))
                assert not gone & {hit["id"] for hit in answer["hits"]}
                held = sum(len(writer.held) for writer in writers)
                unknown = sum(len(writer.unknown) for writer in writers)
                assert (
                    300 + held <= client("GET", "/v1/gallery")[1]["images"] <= 300 + held + unknown
                )
            if number == kills:
                break
            ended = Event()
            with ThreadPoolExecutor(3) as pool:
                works = [*(writer.work for writer in writers), search]
                working = [pool.submit(until_killed, work, served, ended) for work in works]
                time.sleep(chance.uniform(1, 3))
                while not (has_worked() or any(one.done() for one in working)):  # a busy machine
                    time.sleep(0.05)
                ended.set()
                served.process.kill()
                for one in working:
                    one.result()
    assert has_worked()
    assert run("gallery", "verify", folder) == 0


# Mixed requests


class Mix:
    """Requests of every kind, at random."""

    def __init__(self, pictures: list[bytes], seed: int):
        self._random, self._pictures, self._seed = random.Random(seed), pictures, seed
        self._codes: list[str] = ["00" * 32]

    def ask(self, client: Client) -> str:
        (call,) = self._random.choices(list(self.WEIGHTS), self.WEIGHTS.values())
        call(self, client)
        return call.__name__

    def _picture(self) -> bytes:
        return self._random.choice(self._pictures)

    def _id(self) -> int:
        return self._random.randrange(1, 301)

    def _found(self, answer: Answer) -> Any:
        status, body = answer
        assert status == 200, body
        return body

    def _by_image(self, client: Client) -> None:
        found = self._found(client("POST", "/v1/search?k=5", self._picture()))
        self._codes = [*self._codes[-50:], found["code"]]

    def _by_id(self, client: Client) -> None:
        method = self._random.choice(("codes", "pixels", "normalized"))
        answer = client("POST", f"/v1/search?k=20&method={method}", {"id": self._id()})
        assert len(self._found(answer)["hits"]) == 20

    def _by_code(self, client: Client) -> None:
        self._found(
            client("POST", "/v1/search?radius=60", {"code": self._random.choice(self._codes)})
        )

    def _filtered(self, client: Client) -> None:
        ids = [self._id() for _ in range(30)]
        answer = self._found(
            client("POST", "/v1/search?k=9&uri_prefix=pictures", {"id": 1, "ids": ids})
        )
        assert {hit["id"] for hit in answer["hits"]} <= set(ids)

    def _transformed(self, client: Client) -> None:
        self._found(client("POST", "/v1/search?transforms=true", self._picture()))

    def _by_examples(self, client: Client) -> None:
        image = {"image_base64": b64encode(self._picture()).decode()}
        self._found(client("POST", "/v1/search", {"like": [self._id(), image], "unlike": [1]}))

    def _compared(self, client: Client) -> None:
        self._found(client("POST", "/v1/compare", self._picture()))

    def _thumbnail(self, client: Client) -> None:
        status, data = client.raw("GET", f"/v1/images/{self._id()}/thumbnail")
        assert (status, data[:4]) == (200, b"\x89PNG")

    def _described(self, client: Client) -> None:
        self._found(client("GET", "/v1/gallery"))

    def _refused(self, client: Client) -> None:
        status, answer = client("POST", "/v1/search", self._picture()[:50])
        assert status in (415, 422), answer

    def _encoded(self, client: Client) -> None:
        self._found(client("POST", "/v1/encode?parts=tiny&parts=preview", self._picture()))

    def _listed(self, client: Client) -> None:
        page = self._found(client("GET", "/v1/images?limit=50"))
        assert self._found(client("GET", f"/v1/images?limit=50&after={page['next']}"))["images"]

    def _duplicates(self, client: Client) -> None:
        self._found(client("GET", "/v1/duplicates?radius=10"))

    def _added_and_removed(self, client: Client) -> None:
        self._seed += 1000
        (added,) = self._found(client("POST", "/v1/images?label=new", noise(self._seed)))["images"]
        self._found(client("DELETE", f"/v1/images/{added['id']}"))

    WEIGHTS: ClassVar = {  # how often each kind is asked for, beside the others
        _by_image: 30,
        _by_id: 30,
        _by_code: 10,
        _filtered: 10,
        _transformed: 2,
        _by_examples: 5,
        _compared: 5,
        _thumbnail: 20,
        _described: 3,
        _refused: 5,
        _encoded: 3,
        _listed: 5,
        _duplicates: 1,
        _added_and_removed: 1,
    }


@pytest.mark.parametrize(
    ("seconds", "growth_mb"), [(5, 60), pytest.param(3600, 100, marks=pytest.mark.soak)]
)
def test_memory_and_descriptors_stay_flat_under_mixed_load(
    seconds, growth_mb, folder, tmp_path, image_files, photograph
):
    pictures = [photograph, *(path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:50])]
    counts, lock = Counter[str](), Lock()
    with serving_process(folder, tmp_path / "log", api_keys=KEY) as served:

        def work(seed: int, until: float) -> None:
            mix = Mix(pictures, seed)
            with Client(served) as client:
                while time.monotonic() < until:
                    kind = mix.ask(client)
                    with lock:
                        counts[kind] += 1

        def load(first: int, seconds: float) -> None:
            with ThreadPoolExecutor(8) as pool:
                until = time.monotonic() + seconds
                list(pool.map(work, range(first, first + 8), [until] * 8))

        load(1, max(4, seconds / 20))
        memory, process = served.memory_mb(), served.process
        descriptors, threads = process.num_fds(), process.num_threads()
        load(100, seconds)
        growth = served.memory_mb() - memory
        print(dict(counts), f"{memory:.0f} MB, then {growth:+.0f}")
        assert growth < growth_mb
        assert served.settles(descriptors + 8, threads + LANE_THREADS)
        assert counts.keys() >= {
            call.__name__ for call, weight in Mix.WEIGHTS.items() if weight >= 5
        }
        assert "Traceback" not in served.messages()
