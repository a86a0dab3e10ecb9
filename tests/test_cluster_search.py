"""A gallery whose codes are on a cluster of three nodes answers as on one machine."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import hashsearch
from benchmarks.cluster import changed
from benchmarks.cluster import stored as stored_by_shards
from hashsearch.distributed.holder import Holder
from hashsearch.encoder import Encoder
from hashsearch.errors import ClusterError, CodeShapeError, PartMissing, ServiceError
from hashsearch.gallery.shards import sha256_of_file
from hashsearch.images import encode_png
from hashsearch.jobs.building import build_index
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.retrieval import state as states
from hashsearch.retrieval.kinds import KINDS
from hashsearch.search import Block, Stored
from hashsearch.search import subset as subsets
from hashsearch.search.exact import ExactIndex
from hashsearch.search.ivf import assign, train
from hashsearch.search.live import Segment
from hashsearch.search.parts import Part, noting_missing
from hashsearch.sources.folder import Folder
from tests.clusters import nodes
from tests.conftest import KEY, WITH_KEY, serving
from tests.galleries import another_png, run

ROWS = 700  # of a stored file


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes(3) as started:
        yield started


@pytest.fixture(scope="module")
def codes(model_folder, tiny_images) -> NDArray[np.uint8]:
    """6,000 real codes: of images moved by some pixels, many of which are equal."""
    moved = [np.roll(tiny_images, (y, x), (1, 2)) for y in range(4) for x in range(4)]
    some = Encoder.load(model_folder).encode(np.concatenate(moved))
    return np.concatenate([some, some[::4]])


def stored(codes: NDArray[np.uint8], folder: Path) -> list[Block]:
    """Blocks of codes in files of 700 rows, the odd rows of each file first by position."""
    blocks = []
    for start in range(0, len(codes), ROWS):
        positions = np.arange(start, min(start + ROWS, len(codes)))
        if start == ROWS:  # ids do not always follow the rows
            positions = np.concatenate([positions[1::2], positions[::2]])
        rows = np.arange(len(positions)) * 2 if start == 0 else np.arange(len(positions))
        values = np.zeros((int(rows[-1]) + 1, 32), np.uint8)
        values[rows] = codes[positions]
        path = folder / f"{start}.npy"
        np.save(path, values)
        blocks.append(Block(values, rows, positions, Stored(path, sha256_of_file(path))))
    return blocks


def base_of(codes: NDArray[np.uint8], blocks: list[Block], parts: int, **options: Any) -> Segment:
    from hashsearch.distributed.bases import ClusterBases

    bases = ClusterBases(parts, options.pop("copies", 1), partial=options.pop("partial", False))
    return bases.segment(10 * np.arange(len(codes)), {"codes": blocks})


@pytest.fixture(scope="module")
def base(cluster, codes, tmp_path_factory) -> Segment:
    """The codes in five parts on three nodes."""
    return base_of(codes, stored(codes, tmp_path_factory.mktemp("stored")), 5)


def lists_of(base: Segment, codes: NDArray[np.uint8]) -> tuple[Any, Any]:
    """An ivf index on the cluster, and one here. Some codes were added after it was built."""
    from hashsearch.distributed.bases import ClusterBases

    centroids = train(codes, 64, seed=0)
    lists = assign(codes, centroids).astype(np.int32)
    lists[::50] = -1
    arrays, parameters = {"centroids": centroids, "lists": lists}, {"nprobe": 6}
    there = ClusterBases(1, 1, partial=False).of_kind("ivf", base, arrays, parameters)
    here = KINDS["ivf"].build({"codes": codes}, arrays, parameters, ExactIndex(codes))
    return there, here


def chosen(n: int) -> dict[str, subsets.Subset | None]:
    """Subsets of many kinds, by name."""
    random = np.random.default_rng(0)
    every = np.arange(n)
    return {
        "all": None,
        "some": subsets.of_positions(np.sort(random.choice(every, 60, replace=False)), n),
        "half": subsets.of_mask(random.random(n) < 0.5),
        "most": subsets.of_mask(random.random(n) < 0.995),
        "one part": subsets.of_mask((every > 1300) & (every < 1800)),
        "none": subsets.of_positions(np.empty(0, np.int64), n),
    }


def same(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_parts_find_what_one_machine_finds(base, codes, kind):
    """Ties included: a fifth of the codes are there twice, in different parts."""
    there, here = (base.indexes["codes"], ExactIndex(codes))
    if kind == "ivf":
        there, here = lists_of(base, codes)
    assert len(there) == len(codes)
    queries = codes[::600]
    for subset in chosen(len(codes)).values():
        for k in (1, 10, 3000):
            same(there.search(queries, k, subset), here.search(queries, k, subset))
        for radius in (0, 40, 110):
            same(
                there.search_radius(queries[1], radius, subset),
                here.search_radius(queries[1], radius, subset),
            )
    with pytest.raises(CodeShapeError):
        there.search(queries[:, :31], 1)


def test_a_large_subset_is_packed_and_sent_once(base, codes, monkeypatch):
    from hashsearch.distributed import parted  # after the cluster's variables are set

    monkeypatch.setattr(parted, "_LARGE", 100)
    there, here = base.indexes["codes"], ExactIndex(codes)
    put, sizes = there.replicas.put, []

    def counted(value):
        sizes.append(value[0])
        return put(value)

    monkeypatch.setattr(there.replicas, "put", counted)
    subset = chosen(len(codes))["half"]
    for query in codes[:3]:
        same(
            there.search(query[np.newaxis], 10, subset), here.search(query[np.newaxis], 10, subset)
        )
    assert sum(sizes) == len(codes)


def test_parts_add_up_and_count_what_one_machine_does(base, codes):
    there, here = base.indexes["codes"], ExactIndex(codes)
    weights = np.array([1, 1, -1], np.int32)
    for subset in chosen(len(codes)).values():
        for k in (1, 50, 7000):
            same(
                there.search_combined(codes[:3], weights, k, subset),
                here.search_combined(codes[:3], weights, k, subset),
            )
        counts = there.distance_counts(codes[5:7], subset)
        assert_array_equal(counts, here.distance_counts(codes[5:7], subset))


def test_each_part_is_read_from_the_folder_and_stays_out_of_the_service(base, codes):
    states = base.indexes["codes"].part_states()
    assert [one.part.number for one in states] == [1, 2, 3, 4, 5]
    assert {one.part.of for one in states} == {5}
    assert sum(one.images for one in states) == len(codes)
    ids = [(one.part.first_id, one.part.last_id) for one in states]
    assert (ids[0][0], ids[-1][1]) == (0, 10 * (len(codes) - 1))
    assert all(last + 10 == first for (_, last), (first, _) in pairwise(ids))
    (replicas,) = zip(*(one.replicas for one in states), strict=True)
    assert {one.codes_from for one in replicas} == {"folder"}
    assert len({one.node for one in replicas}) == 3
    positions = np.array([5999, 701, 0, 4242])
    assert not isinstance(base.columns["codes"], np.ndarray)
    assert_array_equal(base.values("codes", positions), codes[positions])


def test_a_node_that_cannot_read_the_folder_is_sent_its_part(cluster, codes, tmp_path):
    """Another file is at one path, and none at another."""
    some = codes[: 3 * ROWS]
    blocks = stored(some, tmp_path)
    np.save(blocks[0].stored.path, np.zeros_like(blocks[0].values))
    blocks[1].stored.path.unlink()
    index = base_of(some, blocks, 3).indexes["codes"]
    sources = [one.replicas[0].codes_from for one in index.part_states()]
    assert sources == ["service", "service", "folder"]
    same(index.search(some[::100], 20), ExactIndex(some).search(some[::100], 20))


def test_few_codes_are_in_fewer_parts_and_none_in_no_part(cluster, codes, tmp_path):
    nothing = Block(codes[:0], np.empty(0, np.int64), np.empty(0, np.int64))
    index = base_of(codes[:0], [nothing], 4).indexes["codes"]
    assert index.part_states() == []
    same(index.search(codes[:2], 3), ExactIndex(codes[:0]).search(codes[:2], 3))
    few = base_of(codes[:20], stored(codes[:20], tmp_path), 4).indexes["codes"]
    assert [one.images for one in few.part_states()] == [8, 12]
    same(few.search(codes[:2], 30), ExactIndex(codes[:20]).search(codes[:2], 30))


def pid(index: Any, part: int, copy: int = 0) -> int:
    """The process that holds a copy of a part."""
    import ray  # after the cluster's variables are set

    actor = index.replicas._of_slice[part][copy].actor
    return ray.get(actor.__ray_call__.remote(lambda holder: os.getpid()))


def node_of(index: Any, part: int, copy: int = 0) -> str:
    """The node on which a copy of a part is, by the process that holds it."""
    import ray

    actor = index.replicas._of_slice[part][copy].actor
    return ray.get(
        actor.__ray_call__.remote(lambda holder: ray.get_runtime_context().get_node_id())
    )


def kill(index: Any, part: int, copy: int = 0) -> None:
    os.kill(pid(index, part, copy), signal.SIGKILL)


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def up(index: Any) -> list[int]:
    """The number of copies of each part that are searched."""
    return [sum(one.is_up for one in state.replicas) for state in index.part_states()]


def test_a_copy_answers_while_another_is_dead_and_the_dead_one_comes_back(cluster, codes, tmp_path):
    base = base_of(codes, stored(codes, tmp_path), 2, copies=2)
    index = base.indexes["codes"]
    nodes = [[node_of(index, part, copy) for copy in (0, 1)] for part in (0, 1)]
    assert [[one.node for one in every] for every in index.replicas._of_slice] == nodes
    assert [len(set(one)) for one in nodes] == [2, 2]
    there, here = lists_of(base, codes)
    wanted, of_lists = ExactIndex(codes).search(codes[:5], 10), here.search(codes[:5], 10)
    over, failures, searches = Event(), [], []

    def search() -> None:
        while not over.is_set():
            try:
                same(index.search(codes[:5], 10), wanted)
                same(there.search(codes[:5], 10), of_lists)
                searches.append(1)
            except BaseException as error:
                failures.append(error)
                return

    threads = [Thread(target=search, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for part, copy in ((0, 0), (1, 1)):
        kill(index, part, copy)
        until(lambda part=part: up(index)[part] == 1)
        until(lambda: up(index) == [2, 2])
        before = len(searches)
        until(lambda before=before: len(searches) > before + 10)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert index.retries > 0
    # The nodes are in order, so that what they had to hold is loaded there again.
    assert [[node_of(index, part, copy) for copy in (0, 1)] for part in (0, 1)] == nodes


def test_a_part_without_a_copy_is_refused_or_noted_and_comes_back(cluster, codes, tmp_path):
    blocks = stored(codes, tmp_path)
    for partial in (False, True):
        index = base_of(codes, blocks, 3, partial=partial).indexes["codes"]
        wanted = ExactIndex(codes).search(codes[:2], 9)
        kill(index, 1)
        part = Part(2, 3, 20_000, 39_990)
        sentence = "part 2 of 3 of the gallery's codes, of the ids from 20000 to 39990, is on no"
        with noting_missing() as missing:
            if partial:
                others = np.concatenate([codes[:2000], codes[4000:]])
                _, distances = ExactIndex(others).search(codes[:2], 9)
                assert_array_equal(index.search(codes[:2], 9)[1], distances)
                alone = subsets.of_mask(np.arange(len(codes)) // 2000 == 1)
                with pytest.raises(PartMissing, match=sentence):  # nothing would be in the answer
                    index.search(codes[:2], 9, alone)
            else:
                with pytest.raises(PartMissing, match=sentence):
                    index.search(codes[:2], 9)
        assert missing == ({part} if partial else set())
        with pytest.raises(PartMissing, match=sentence):  # nobody would learn of it
            index.search(codes[:2], 9)
        within = subsets.of_mask(np.arange(len(codes)) < 1999)  # of other parts alone
        same(index.search(codes[:2], 9, within), ExactIndex(codes).search(codes[:2], 9, within))
        until(lambda index=index: up(index) == [1, 1, 1])
        same(index.search(codes[:2], 9), wanted)


@contextmanager
def served(folder: Path, parts: int, copies: int = 1, **settings: Any) -> Iterator[TestClient]:
    """A client of a service whose codes are on the cluster."""
    from hashsearch.distributed.bases import ClusterBases

    bases = ClusterBases(parts, copies, partial=settings.get("partial", False))
    with serving(folder, bases, **settings) as client:
        yield client


def index_of(client: TestClient) -> Any:
    """The index of the base that is served."""
    return client.app.state.engine.served.state.live.base.indexes["codes"]


def questions(photograph: bytes) -> list[tuple[str, Any]]:
    """Paths of searches, with their bodies."""
    code = {"code": "0f" * 32}
    by_id = {"id": 5}
    examples = {"like": [1, 9, code["code"]], "unlike": [44]}
    some = {"id": 3, "ids": [*range(2, 90, 3), 290], "exclude": [8, 11]}
    label = "/v1/search?k=200&label=" + "cat"
    return [
        ("/v1/search", photograph),
        ("/v1/search?k=7&offset=20", by_id),
        ("/v1/search?k=1000&codes=1", code),
        ("/v1/search?radius=120&histogram=1", by_id),
        ("/v1/search?k=12&radius=100&transforms=1&histogram=1", photograph),
        ("/v1/search?k=30", examples),
        ("/v1/search?k=30&histogram=1", some),
        (label, by_id),
        ("/v1/search?k=10&index=ivf", code),
        ("/v1/search?k=10&index=exact", code),
        ("/v1/search?k=5&index=multihash", code),
        ("/v1/compare?k=20", photograph),
        ("/v1/images?limit=40&codes=1", None),
    ]


def answers(client: TestClient, photograph: bytes) -> list[Any]:
    """What a service answers, without times and ids of requests."""

    def timeless(value: Any) -> Any:
        if isinstance(value, list):
            return [timeless(one) for one in value]
        if isinstance(value, dict):
            left_out = ("latency_ms", "request_id")
            return {name: timeless(one) for name, one in value.items() if name not in left_out}
        return value

    found = []
    for path, body in questions(photograph):
        if body is None:
            answer = client.get(path)
        elif isinstance(body, bytes):
            answer = client.post(path, content=body)
        else:
            answer = client.post(path, json=body)
        found.append((path, answer.status_code, timeless(answer.json())))
    return found


def test_a_service_answers_what_one_that_holds_the_codes_answers(cluster, gallery, photograph):
    """Also after images of the base were removed, and others added: the tail is here."""
    build_index(gallery, "ivf")

    def change(client: TestClient) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        assert client.delete("/v1/images?id=12&id=77&id=211", headers=headers).status_code == 200
        assert client.post("/v1/images", content=another_png(), headers=headers).status_code == 200

    def nearest(client: TestClient, image: int) -> list[Any]:
        return client.post("/v1/search?k=5", json={"id": image}).json()["hits"]

    with served(gallery.folder, 3, **WITH_KEY) as there:
        with serving(gallery.folder, **WITH_KEY) as here:
            for turn in range(2):
                found, wanted = answers(there, photograph), answers(here, photograph)
                refused = [one for one in found if "multihash" in one[0]]
                assert [one for one in found if one not in refused] == [
                    one for one in wanted if "multihash" not in one[0]
                ]
                assert refused[0][1] == 422
                assert "not served from a cluster; exact and ivf are" in refused[0][2]["detail"]
                if turn == 0:
                    change(there)
            # Asked at once, they are answered in batches.
            with ThreadPoolExecutor(16) as pool:
                for found, wanted in zip(
                    *(pool.map(nearest, [one] * 60, range(15, 75)) for one in (there, here)),
                    strict=True,
                ):
                    assert found == wanted
        parts = there.get("/v1/gallery").json()["parts"]
        assert [(one["part"], one["of"], one["images"]) for one in parts] == [
            (1, 3, 96),
            (2, 3, 104),
            (3, 3, 100),
        ]


def figures(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, _, value in (one.rpartition(" ") for one in lines)
        if name.startswith(("hashsearch_part", "hashsearch_replica"))
    }


@pytest.mark.parametrize("partial", [False, True])
def test_a_service_without_a_part_says_so_until_it_is_back(cluster, gallery, partial):
    build_index(gallery, "ivf")
    with served(gallery.folder, 3, partial=partial) as client:
        whole = client.post("/v1/search?histogram=1", json={"id": 1}).json()
        assert (whole["partial"], whole["missing_parts"]) == (False, [])
        assert figures(client)["hashsearch_parts_missing"] == 0
        kill(index_of(client), 1)
        answer, by_lists, compared = (
            client.post(f"/v1/{path}", json={"id": 1})
            for path in ("search?histogram=1", "search?index=ivf", "compare")
        )
        counted = figures(client)
        assert counted["hashsearch_parts"] == counted["hashsearch_replicas"] == 3
        missing = {"part": 2, "of": 3, "first_id": 97, "last_id": 200}
        if partial:
            assert answer.status_code == 200
            found = answer.json()
            assert (found["partial"], found["missing_parts"]) == (True, [missing])
            assert sum(found["histogram"]) == 300 - 104 - 1
            assert all(not 97 <= hit["id"] <= 200 for hit in found["hits"])
            of_lists = by_lists.json()
            assert (of_lists["index"], of_lists["missing_parts"]) == ("ivf", [missing])
            assert of_lists["partial"] is compared.json()["partial"] is True
            assert counted["hashsearch_partial_answers_total"] == 3
        else:
            assert {by_lists.json()["code"], compared.json()["code"]} == {"part-missing"}
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["code"] == "part-missing"
            assert "part 2 of 3" in answer.json()["detail"]
        pixels = client.post("/v1/search?method=pixels", json={"id": 1})
        assert (pixels.status_code, pixels.json()["partial"]) == (200, False)
        index = index_of(client)
        until(lambda: up(index) == [1, 1, 1])
        again = client.post("/v1/search?histogram=1", json={"id": 1}).json()
        assert (again["hits"], again["histogram"]) == (whole["hits"], whole["histogram"])
        assert figures(client)["hashsearch_replicas_up"] == 3


def test_what_a_job_adds_is_searched_and_a_new_base_replaces_the_former(
    cluster, gallery, image_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(states, "_MOST_ADDED", 40)
    build_index(gallery, "ivf")
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    for number, path in enumerate(sorted(image_files.rglob("*.*"))[:100]):
        picture = np.asarray(Image.open(path).convert("RGB"))[:, ::-1]
        (mirrored / f"{number:03}.png").write_bytes(encode_png(np.ascontiguousarray(picture)))
    with served(gallery.folder, 2) as client:
        index = index_of(client)
        processes = [pid(index, 0), pid(index, 1)]
        del index
        gc.disable()  # the service freezes what it has loaded
        try:
            index_sources(gallery, [Folder(mirrored)], workers=1)
            added = gallery.catalog.rows().ids[300:].tolist()
            assert len(added) == 100
            for path in ("/v1/search?k=5", "/v1/search?k=5&index=ivf"):
                answer = client.post(
                    path, json={"code": gallery.code(added[0]).tobytes().hex()}
                ).json()
                assert added[0] in [hit["id"] for hit in answer["hits"]]
            until(lambda: sum(one.images for one in index_of(client).part_states()) == 400)
            until(lambda: not any(Path(f"/proc/{one}").exists() for one in processes))
        finally:
            gc.enable()
        with serving(gallery.folder) as here:
            for path in ("/v1/search?k=300", "/v1/search?k=12&index=ivf"):
                there, wanted = (
                    one.post(path, json={"id": added[7]}).json()["hits"] for one in (client, here)
                )
                assert there == wanted


def test_a_cluster_that_cannot_load_a_part_ends_the_start_with_one_sentence(
    cluster, codes, tmp_path, monkeypatch
):
    from hashsearch.distributed import replicas

    two = replicas.alive_nodes()[:2]
    monkeypatch.setattr(replicas, "alive_nodes", lambda: two)
    monkeypatch.setattr("hashsearch.__version__", "0.0.1")
    wanted = (
        r"part 1 of 1 .* cannot be loaded on any node \(\w{8}, \w{8}\): a node has HashSearch "
        ".*, and the "
    )
    with pytest.raises(ClusterError, match=wanted + "service 0.0.1; install the same version"):
        base_of(codes[:50], stored(codes[:50], tmp_path), 1)


def test_a_node_that_cannot_load_a_part_is_passed_over(cluster, codes, tmp_path, monkeypatch):
    """At the start, and when a process has to be replaced."""
    import ray

    from hashsearch.distributed import loading

    first = min(node["NodeID"] for node in ray.nodes() if node["Alive"])

    class Refusing(Holder):
        def read(self, *arguments):
            if ray.get_runtime_context().get_node_id() == first:
                raise MemoryError("there is no room")
            return super().read(*arguments)

    monkeypatch.setattr(loading, "Holder", Refusing)
    some = codes[:500]
    index = base_of(some, stored(some, tmp_path), 1).indexes["codes"]
    node = node_of(index, 0)
    assert node != first
    same(index.search(some[:5], 10), ExactIndex(some).search(some[:5], 10))
    kill(index, 0)
    until(lambda: up(index) == [0])
    until(lambda: up(index) == [1])
    assert node_of(index, 0) == node


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--shards", "2"], "--shards goes with --on ray"),
        (["--partial"], "--partial goes with --on ray"),
        (["--on", "ray"], "--on ray needs --shards N, the number of parts of the codes"),
        (["--on", "ray", "--shards", "2", "--ray-address", "x"], "this process is connected to "),
    ],
)
def test_options_that_do_not_fit_are_refused(gallery_folder, capsys, options, sentence):
    assert run("serve", "--gallery", gallery_folder, *options) == 1
    assert capsys.readouterr().err.startswith(f"hashsearch: {sentence}")


class SlowHolder(Holder):
    """Takes longer to make lists, and to search them, than a ping may."""

    def take_lists(self, *arguments):
        time.sleep(5)
        super().take_lists(*arguments)

    def nearest(self, *arguments):
        time.sleep(5)
        return super().nearest(*arguments)


@pytest.mark.soak
def test_calls_that_take_long_cost_no_copy_until_they_take_minutes(
    cluster, codes, tmp_path, monkeypatch
):
    from hashsearch.distributed import asking, loading, replicas

    monkeypatch.setattr(loading, "Holder", SlowHolder)
    monkeypatch.setattr(replicas, "_HUNG_S", 3)
    base = base_of(codes, stored(codes, tmp_path), 1)
    index = base.indexes["codes"]
    actor = index.replicas._of_slice[0][0].actor
    there, here = lists_of(base, codes)
    same(there.search(codes[:5], 10), here.search(codes[:5], 10))
    assert index.replicas._of_slice[0][0].actor is actor
    assert (up(index), index.retries) == ([1], 0)
    stuck = pid(index, 0)
    monkeypatch.setattr(asking, "_LONGEST_S", 2)  # instead of minutes
    with pytest.raises(PartMissing):
        there.search(codes[:5], 10)
    until(lambda: not Path(f"/proc/{stuck}").exists())
    monkeypatch.setattr(asking, "_LONGEST_S", 300)
    until(lambda: up(index) == [1])
    same(there.search(codes[:5], 10), here.search(codes[:5], 10))


@pytest.mark.soak
def test_a_process_that_hangs_delays_searches_once_and_is_replaced(cluster, codes, tmp_path):
    index = base_of(codes, stored(codes, tmp_path), 2, copies=2).indexes["codes"]
    wanted = ExactIndex(codes).search(codes[:2], 9)
    hung = pid(index, 0)
    os.kill(hung, signal.SIGSTOP)
    try:
        spans = []
        while up(index)[0] == 2:
            began = time.monotonic()
            same(index.search(codes[:2], 9), wanted)
            spans.append(time.monotonic() - began)
        assert max(spans) > 5  # it waited, and then another copy answered
        until(lambda: up(index) == [2, 2], 90)
        assert pid(index, 0) != hung
        os.kill(hung, signal.SIGCONT)  # then it ends
        until(lambda: not Path(f"/proc/{hung}").exists())
    finally:
        with suppress(ProcessLookupError):
            os.kill(hung, signal.SIGKILL)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, with a short path: sockets are made in it."""
    folder = Path(tempfile.mkdtemp(prefix="hs-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.parametrize("is_own", [False, True])
def test_a_command_serves_from_a_cluster(cluster, gallery_folder, temporary, is_own):
    """One that runs, or its own, of which it leaves no files; it ends by SIGTERM, under load."""
    command = [sys.executable, "-m", "hashsearch.cli", "serve", "--gallery", gallery_folder]
    options = ["--port", "0", "--on", "ray", "--shards", "3"]
    if not is_own:
        options += ["--ray-address", cluster.address]
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as service:
        address = service.stdout.readline().split()[-1]
        try:
            with hashsearch.Client(address) as client:
                ranking = client.rank(5, k=20)
            assert ranking.missing == ()
            with hashsearch.open(gallery_folder) as here:
                assert ranking.hits == [replace(one, path=None) for one in here.search(5, k=20)]
            answered, over = [0] * 8, []

            def search(number: int) -> None:
                try:
                    with hashsearch.Client(address, timeout=20) as client:
                        while True:
                            found = client.rank(
                                1 + number, k=20, radius=200 if number % 2 else None
                            )
                            assert found.missing == ()
                            answered[number] += 1
                except ServiceError as error:  # from the moment of the stop on
                    over.append((time.monotonic(), error.code))

            threads = [Thread(target=search, args=(number,), daemon=True) for number in range(8)]
            for thread in threads:
                thread.start()
            until(lambda: min(answered) >= 5)
            stopped = time.monotonic()
        finally:
            service.terminate()
            _, log = service.communicate(timeout=60)
    assert service.returncode == -signal.SIGTERM, log
    assert time.monotonic() - stopped < 30
    for thread in threads:
        thread.join()
    assert len(over) == 8
    assert min(when for when, _ in over) > stopped
    assert {code for _, code in over} <= {None, "stopping"}
    assert "Traceback" not in log, log
    assert log.count("its codes were read from the gallery's folder") == 3
    assert list(temporary.glob("hashsearch-*")) == []


@pytest.mark.soak
def test_a_million_codes_on_three_nodes_are_searched_while_processes_and_a_node_die(
    cluster, codes, tmp_path
):
    """From four threads without an error, and as one machine finds them."""
    many = changed(codes, 1_000_000, seed=0)
    many[-500_000::5] = many[:100_000]  # ties over parts
    queries = changed(codes, 64, seed=1)
    exact = ExactIndex(many)
    wanted = [exact.search(query[np.newaxis], 50) for query in queries]
    within = [exact.search_radius(query, 60) for query in queries]
    index = base_of(many, stored_by_shards(many, tmp_path), 4, copies=2).indexes["codes"]
    half = subsets.of_mask(np.arange(len(many)) % 2 == 0)
    same(index.search(queries, 30, half), exact.search(queries, 30, half))
    over, failures, counts = Event(), [], [0] * 4

    def search(thread: int) -> None:
        try:
            while not over.is_set():
                number = counts[thread] % 64
                same(index.search(queries[number : number + 1], 50), wanted[number])
                same(index.search_radius(queries[number], 60), within[number])
                counts[thread] += 1
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=search, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for part, copy in ((0, 0), (2, 1), (3, 0)):
        kill(index, part, copy)
        until(lambda part=part: up(index)[part] == 1)
        until(lambda: up(index) == [2, 2, 2, 2])
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    until(lambda: up(index) != [2, 2, 2, 2])
    until(lambda: up(index) == [2, 2, 2, 2], 180)
    before = sum(counts)
    until(lambda: sum(counts) > before + 20)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    for state in index.part_states():
        assert len({one.node for one in state.replicas}) == 2
    cluster.add_node()
