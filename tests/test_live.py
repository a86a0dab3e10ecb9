"""Searches in a gallery that changes, against a model of its history."""

import json
import random
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import ClusterError, GalleryBusy, InvalidGallery, InvalidQuery
from hashsearch.gallery.built import built_indexes
from hashsearch.gallery.changes import Changes, Selection, move_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import FoundPlace, NewImage
from hashsearch.jobs.building import build_index, drop_index
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.removing import remove
from hashsearch.retrieval import live_searcher
from hashsearch.retrieval import state as states
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.kinds import KINDS
from hashsearch.retrieval.live_searcher import LiveSearcher
from hashsearch.retrieval.ranking import Query
from hashsearch.retrieval.searcher import Searcher
from hashsearch.search import Block, ivf, multihash
from hashsearch.search import live as segments
from hashsearch.search.live import Live, Segment

LABELS = ("cat", "dog", None)


class History:
    """A gallery of rows that are made up, and what it must hold: a dictionary by id."""

    def __init__(self, gallery: GalleryFolder, seed: int):
        self.gallery, self.random = gallery, random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.images: dict[int, tuple[np.ndarray, np.ndarray, str | None, str]] = {}
        self.removed: dict[int, tuple[np.ndarray, np.ndarray, str | None, str]] = {}
        self.next = 0

    def add(self, count: int) -> None:
        codes = self.numbers.choice(np.array([0, 1, 3], np.uint8), (count, 32))
        codes[:, 4:] = 0  # few distances, so that ties abound
        pixels = self.numbers.integers(0, 4, (count, 3072), np.uint8)
        addresses = np.packbits(self.numbers.integers(0, 2, (count, 28), np.uint8), axis=1)
        columns = {"addresses": addresses, "codes": codes, "pixels": pixels}
        writer = self.gallery.new_shard(columns)
        writer.append(columns, [None] * count)
        images = []
        for _ in range(count):
            self.next += 1
            label = self.random.choice(LABELS)
            uri = f"s/{self.random.choice(('a', 'a b', 'ab'))}/{self.next}.jpg"
            images.append(NewImage(self.next.to_bytes(32), uri, label, 1, 1, 1, self.next))
        self.gallery.commit(Changes(images=images), writer, self.gallery.fingerprint)
        found = self.gallery.catalog.images_of_keys([image.key for image in images])
        for row, image in enumerate(images):
            self.images[found[image.key][0]] = codes[row], pixels[row], image.label, image.uri

    def remove(self, count: int) -> None:
        gone = self.random.sample(sorted(self.images), min(count, len(self.images)))
        remove(self.gallery.catalog, Selection(ids=gone))
        self.removed.update({one: self.images.pop(one) for one in gone})

    def restore(self) -> None:
        """Find the content of a removed image again, if its row was not deleted meanwhile."""
        if not self.removed:
            return
        one = self.random.choice(sorted(self.removed))
        code, pixels, label, uri = self.removed.pop(one)
        with self.gallery.catalog.transaction() as db:
            (key,) = db.execute("SELECT key FROM images WHERE id = ?", (one,)).fetchone()
        self.gallery.commit(Changes(found=[FoundPlace(key, uri, label, 1, 1)]))
        self.images[one] = code, pixels, label, uri

    def relabel(self) -> None:
        if self.images:
            one = self.random.choice(sorted(self.images))
            code, pixels, _, uri = self.images[one]
            label = self.random.choice(LABELS)
            self.gallery.commit(Changes(relabelled=[(uri, label)]))
            self.images[one] = code, pixels, label, uri

    def compact(self) -> None:
        compact(self.gallery)
        self.removed.clear()

    def change(self) -> None:
        step = self.random.choices(
            (lambda: self.add(1), lambda: self.add(self.random.randint(2, 30)), self.restore,
             lambda: self.remove(self.random.randint(1, 9)), self.relabel, self.compact),
            (8, 3, 3, 6, 4, 1),
        )[0]  # fmt: skip
        step()

    def expected(self, query: Query, method: str, chosen_by: Filter) -> list[tuple[int, int]]:
        """(distance, id) of every image that may be found, nearest first."""
        found = []
        for one, (code, pixels, label, uri) in self.images.items():
            prefixes = chosen_by.uri_prefixes
            if (
                (chosen_by.label is None or label == chosen_by.label)
                and (prefixes is None or any(uri.startswith(f"{part}/") for part in prefixes))
                and (chosen_by.ids is None or one in chosen_by.ids)
                and one not in chosen_by.exclude
            ):
                if method == "codes":
                    distance = int(np.bitwise_count(code ^ query.code).sum())
                else:
                    difference = pixels.astype(int) - query.tiny.reshape(-1)
                    distance = int((difference**2).sum())
                found.append((distance, one))
        return sorted(found)

    def by_id(self, query: Query, chosen_by: Filter) -> list[tuple[int, int]]:
        """(id, distance between codes) of every image that may be found."""
        return [(one, distance) for distance, one in self.expected(query, "codes", chosen_by)]


def a_filter(of: random.Random, ids: list[int]) -> Filter:
    return Filter(
        label=of.choice((None, None, "cat", "dog", "cow")),
        uri_prefixes=of.choice((None, None, ("s/a",), ("s/a", "s/ab"), ("s",), ("none",))),
        ids=of.choice((None, None, tuple(of.sample(ids, len(ids) // 3)))),
        exclude=tuple(of.sample(ids, of.choice((0, 0, 1, len(ids) // 2)))),
    )


def pairs(ranking) -> list[tuple[int, int]]:
    return [(hit.distance, hit.id) for hit in ranking.hits]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("waits", [True, False])
def test_every_search_finds_what_the_gallery_holds(empty_gallery, seed, waits, monkeypatch):
    """Additions, removals, restored and relabelled images, compacting, and renewed bases."""
    monkeypatch.setattr(states, "_MOST_ADDED", 60)
    monkeypatch.setattr(segments, "MOST_COPIED", 12)
    history = History(empty_gallery, seed)
    history.add(50)
    live = LiveSearcher(empty_gallery, waits=waits)
    for _ in range(60):
        history.change()
        chosen_by = a_filter(history.random, sorted(history.images))
        code = history.numbers.choice(np.array([0, 1, 3], np.uint8), 32)
        code[4:] = 0
        query = Query(code, history.numbers.integers(0, 4, (32, 32, 3), np.uint8))
        k = history.random.choice((1, 7, 1000))
        for method in ("codes", "pixels"):
            expected = history.expected(query, method, chosen_by)
            with live.searcher() as searcher:
                assert len(searcher) == len(history.images)
                assert_array_equal(searcher.ids, sorted(history.images))
                found = searcher.search(query, method, k=k, chosen_by=chosen_by)
                assert pairs(found) == expected[:k]
                codes = [history.images[one][0] for one in found.ids]
                assert_array_equal(searcher.codes(found.ids), np.reshape(codes, (-1, 32)))
                radius = expected[len(expected) // 2][0] if expected else 5
                found = searcher.search(query, method, radius=radius, chosen_by=chosen_by)
                assert pairs(found) == [pair for pair in expected if pair[0] <= radius]
                if history.images:
                    some = history.random.choice(sorted(history.images))
                    assert_array_equal(searcher.query_by_id(some).code, history.images[some][0])
        after = history.random.choice((0, 20, 60, 10**6))
        chosen = sorted(one for _, one in expected if one > after)
        with live.searcher() as searcher:
            assert searcher.ids_after(after, k, chosen_by) == chosen[:k]
        with live.searcher() as searcher:
            other = Query(history.numbers.choice(np.array([0, 1, 3], np.uint8), 32))
            each = [dict(history.by_id(one, chosen_by)) for one in (query, other)]
            least = [min(distance, each[1][one]) for one, distance in each[0].items()]
            counts = searcher.distance_counts(replace(query, views=(other,)), chosen_by)
            assert counts.tolist() == [least.count(distance) for distance in range(257)]


def built_to_find_all(gallery: GalleryFolder, kind: str, monkeypatch) -> None:
    """Build an index that visits everything, so that it finds what exact search finds."""
    monkeypatch.setattr(ivf, "choose_nprobe", lambda lists, *_: lists.number)
    built = build_index(gallery, kind)
    if kind == "buckets":
        with gallery.catalog.transaction() as db:
            whole = json.dumps({"radius": built.parameters["radius"]})
            ball = json.dumps({"radius": 28})
            db.execute(
                "UPDATE settings SET value = replace(value, ?, ?) WHERE name = 'index:buckets'",
                (whole, ball),
            )


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"exact"}))
@pytest.mark.parametrize("waits", [True, False])
def test_every_index_follows_the_gallery(empty_gallery, kind, waits, monkeypatch):
    """An index that visits everything finds what the gallery holds, under changes and filters."""
    monkeypatch.setattr(states, "_MOST_ADDED", 60)
    monkeypatch.setattr(multihash, "_SECONDS_TO_START", 0)  # tables even for few codes
    history = History(empty_gallery, 11)
    history.add(150)
    built_to_find_all(empty_gallery, kind, monkeypatch)
    live = LiveSearcher(empty_gallery, waits=waits)
    for turn in range(30):
        if turn == 15:
            built_to_find_all(empty_gallery, kind, monkeypatch)
            with suppress(GalleryBusy), live.searcher(kind):
                pass
            built = built_indexes(empty_gallery.catalog)[kind]
            eventually(lambda built=built: live.current.state.built.get(kind) == built)
        history.change()
        chosen_by = a_filter(history.random, sorted(history.images))
        code = history.numbers.choice(np.array([0, 1, 3], np.uint8), 32)
        code[4:] = 0
        query = Query(code, address=np.zeros(4, np.uint8))
        k = history.random.choice((1, 7, 1000))
        expected = history.expected(query, "codes", chosen_by)
        with live.searcher(kind) as searcher:
            found = searcher.search(query, index=kind, k=k, chosen_by=chosen_by)
            assert pairs(found) == expected[:k]
            is_kind = KINDS[kind].is_exact or chosen_by == Filter()
            assert found.index == (kind if is_kind else "exact")
            within = [pair for pair in expected if pair[0] <= 3]
            found = searcher.search(query, index=kind, radius=3, chosen_by=chosen_by)
            assert pairs(found) == within
            # Without a kind, a radius is looked up by the index that is made for it.
            found = searcher.search(query, radius=3, chosen_by=chosen_by)
            assert pairs(found) == within
            assert found.index == ("multihash" if kind == "multihash" else "exact")


def test_an_index_that_cannot_answer_is_refused_with_a_sentence(empty_gallery):
    history = History(empty_gallery, 0)
    history.add(30)
    query = Query(np.zeros(32, np.uint8), np.zeros((32, 32, 3), np.uint8))
    build_index(empty_gallery, "ivf")
    build_index(empty_gallery, "buckets")
    with LiveSearcher(empty_gallery, waits=False).searcher() as searcher:
        for message, options in (
            (
                "there is no index 'tree'; there are exact, ivf, buckets, multihash",
                {"index": "tree"},
            ),
            (
                "the gallery has no index multihash; `hashsearch gallery build",
                {"index": "multihash"},
            ),
            ("the index ivf is of codes; pixels are", {"index": "ivf", "method": "pixels"}),
            ("a query by code has no address, which the index bu", {"index": "buckets"}),
            ("without the index ivf", {"index": "ivf", "like": [query]}),
        ):
            with pytest.raises(InvalidQuery, match=message):
                searcher.search(query, **options)


def test_relabelling_touches_no_index(empty_gallery):
    history = History(empty_gallery, 0)
    history.add(30)
    live = LiveSearcher(empty_gallery, waits=True)
    with live.searcher() as before:
        pass
    for _ in range(5):
        history.relabel()
        with live.searcher() as after:
            assert after.state.live.segments[0] is before.state.live.segments[0]
            assert len(after.state.live.segments) == 1


def test_a_removed_image_that_was_compacted_unseen_is_not_found(empty_gallery):
    """The catalog no longer says what was removed, so all is read again."""
    history = History(empty_gallery, 0)
    history.add(30)
    for waits in (True, False):
        live = LiveSearcher(empty_gallery, waits=waits)
        history.remove(3)
        history.compact()
        query = Query(np.zeros(32, np.uint8))
        with live.searcher() as searcher:
            found = searcher.search(query, k=1000)
            assert pairs(found) == history.expected(query, "codes", Filter())


def test_compacting_what_was_seen_renews_nothing_in_the_request(empty_gallery):
    history = History(empty_gallery, 0)
    history.add(30)
    live = LiveSearcher(empty_gallery, waits=True)
    history.remove(3)
    with live.searcher() as before:
        pass
    compact(empty_gallery)
    with live.searcher() as after:
        assert after.state.live.segments[0].indexes is before.state.live.segments[0].indexes
        assert pairs(after.search(Query(np.zeros(32, np.uint8)), k=1000))


def test_the_base_is_renewed_beside_and_swapped(empty_gallery, monkeypatch):
    monkeypatch.setattr(states, "_MOST_ADDED", 5)
    history = History(empty_gallery, 1)
    history.add(10)
    live = LiveSearcher(empty_gallery, waits=True)
    for _ in range(8):
        history.add(1)
        with live.searcher() as searcher:
            assert len(searcher) == len(history.images)
    for _ in range(100):
        if len(live.current.state.live.base.ids) > 10:
            break
        time.sleep(0.05)
    assert len(live.current.state.live.base.ids) >= 16
    with live.searcher() as searcher:
        assert_array_equal(searcher.ids, sorted(history.images))


def test_what_a_long_job_adds_is_joined_and_the_base_stays(empty_gallery, monkeypatch):
    """In few segments, for which each row was copied a few times."""
    history = History(empty_gallery, 1)
    history.add(10)
    live = LiveSearcher(empty_gallery, waits=True)
    base = live.current.state.live.base
    copied, make = [], segments.segment_of
    for module in (segments, states):
        monkeypatch.setattr(module, "MOST_COPIED", 10)
        monkeypatch.setattr(
            module, "segment_of", lambda ids, *rest: copied.append(len(ids)) or make(ids, *rest)
        )
    for number in range(64):
        history.add(20 - number % 3)
        with live.searcher() as searcher:
            assert len(searcher) == len(history.images)
            now = searcher.state.live
            assert now.base is base
            assert len(now.segments) <= 8
    assert sum(copied) <= 8 * now.added
    assert not isinstance(now.segments[1].columns["pixels"], np.ndarray)  # they stay on disk
    query = Query(np.zeros(32, np.uint8))
    with live.searcher() as searcher:
        expected = history.expected(query, "codes", Filter())
        assert pairs(searcher.search(query, k=5000)) == expected


def test_much_that_was_added_little_by_little_renews_the_base(empty_gallery, monkeypatch):
    """Its pixels are in memory until then."""
    monkeypatch.setattr(states, "_MOST_COPIED", 5)
    history = History(empty_gallery, 1)
    history.add(10)
    live = LiveSearcher(empty_gallery, waits=True)
    for _ in range(7):
        history.add(1)
        with live.searcher():
            pass
    eventually(lambda: len(live.current.state.live.base.ids) >= 16)


@pytest.mark.parametrize("waits", [True, False])
def test_concurrent_searches_return_only_states_that_existed(empty_gallery, waits, monkeypatch):
    """Four threads search while the gallery changes; each answer is that of its generation."""
    monkeypatch.setattr(states, "_MOST_ADDED", 40)
    history = History(empty_gallery, 7)
    history.add(40)
    catalog = empty_gallery.catalog
    query = Query(np.zeros(32, np.uint8), np.zeros((32, 32, 3), np.uint8))
    cats = Filter(label="cat")
    expected = {}

    def note() -> None:
        for name, chosen_by in (("all", Filter()), ("cats", cats)):
            found = history.expected(query, "codes", chosen_by)
            expected[catalog.generation(), name] = found

    note()
    live = LiveSearcher(empty_gallery, waits=waits)
    stop, answers, errors = threading.Event(), [], []

    def search(number: int) -> None:
        try:
            while not stop.is_set():
                with live.searcher() as searcher:
                    name, chosen_by = (("all", Filter()), ("cats", cats))[number % 2]
                    found = searcher.search(query, k=1000, chosen_by=chosen_by)
                    labels = {hit.label for hit in found.hits}
                    answers.append((searcher.generation, name, pairs(found), labels))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 4
    while time.monotonic() < until:
        step = history.random.choice((1, 1, 2, 3, 4))
        if step == 1:
            history.add(history.random.choice((1, 1, 1, 20)))
        elif step == 2:
            history.remove(2)
        elif step == 3:
            history.relabel()
        else:
            history.restore()
        note()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert len({generation for generation, *_ in answers}) > 10
    for generation, name, found, labels in answers:
        assert found == expected[generation, name]
        assert name == "all" or labels <= {"cat"}


def test_a_searcher_of_a_former_state_stays_as_it_was(empty_gallery):
    history = History(empty_gallery, 3)
    history.add(20)
    searcher = Searcher(empty_gallery)
    query = Query(np.zeros(32, np.uint8))
    before = pairs(searcher.search(query, k=50))
    history.add(5)
    assert pairs(searcher.search(query, k=50)) == before


def test_a_filter_by_uri_follows_further_places(empty_gallery):
    """An image found at a second place is below both, until a place is dropped."""
    history = History(empty_gallery, 0)
    history.add(12)
    live = LiveSearcher(empty_gallery, waits=True)
    one = 7
    uri = history.images[one][3]
    key = one.to_bytes(32)

    def below(prefix: str) -> set[int]:
        with live.searcher() as searcher:
            chosen_by = Filter(uri_prefixes=(prefix,))
            query = Query(np.zeros(32, np.uint8))
            return {hit.id for hit in searcher.search(query, k=99, chosen_by=chosen_by).hits}

    assert below("s/new") == set()
    empty_gallery.commit(Changes(found=[FoundPlace(key, "s/new/x.jpg", None, 1, 1)]))
    assert below("s/new") == {one}
    assert one in below(uri.rpartition("/")[0])
    with empty_gallery.catalog.transaction() as db:
        move_place(db, "s/new/x.jpg", "s/newer/x.jpg")
        next_generation(db)
    assert (below("s/new"), below("s/newer")) == (set(), {one})
    empty_gallery.commit(Changes(dropped=[(uri, key)]))
    assert one not in below(uri.rpartition("/")[0])
    assert below("s/newer") == {one}


def eventually(holds, seconds: float = 10) -> None:
    """Wait for another thread."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_renewal_that_fails_stops_nothing_and_is_not_repeated(empty_gallery, monkeypatch, caplog):
    monkeypatch.setattr(states, "_MOST_ADDED", 5)
    history = History(empty_gallery, 1)
    history.add(10)
    live = LiveSearcher(empty_gallery, waits=False)
    reads = []

    def fail(gallery):
        reads.append(gallery)
        raise InvalidGallery("a shard is damaged")

    monkeypatch.setattr("hashsearch.retrieval.live_searcher.read_state", fail)
    for _ in range(3):
        history.add(6)
        for _ in range(4):
            with live.searcher() as searcher:
                assert_array_equal(searcher.ids, sorted(history.images))
            eventually(lambda: not live._threads)
    assert len(reads) <= 3  # once for each change


def test_a_renewal_that_a_cluster_refuses_is_tried_again_after_a_while(empty_gallery, monkeypatch):
    """Not at once, however much is committed; then also if nothing is."""
    monkeypatch.setattr(states, "_MOST_ADDED", 5)
    history = History(empty_gallery, 1)
    history.add(10)
    live = LiveSearcher(empty_gallery, waits=False)
    read, reads = live_searcher.read_state, []

    def refused(*given):
        reads.append(given)
        if len(reads) < 3:
            raise ClusterError("no node has room")
        return read(*given)

    def search() -> None:
        with live.searcher() as searcher:
            assert_array_equal(searcher.ids, sorted(history.images))
        eventually(lambda: not live._threads)

    monkeypatch.setattr(live_searcher, "read_state", refused)
    for _ in range(3):
        history.add(6)
        search()
    assert len(reads) == 1
    monkeypatch.setattr(live_searcher, "_RECOVERY_S", 0.0)
    search()
    assert len(reads) == 2
    search()
    assert len(live.current.state.live.base.ids) == 28
    for _ in range(3):
        search()
    assert len(reads) == 3


def test_many_images_removed_unseen_cost_two_searches(empty_gallery, monkeypatch):
    """The former state is searched, while all is read again; the 40 nearest of it are gone."""
    history = History(empty_gallery, 2)
    history.add(60)
    live = LiveSearcher(empty_gallery, waits=False)
    monkeypatch.setattr(LiveSearcher, "_start", lambda *_: None)
    query = Query(np.zeros(32, np.uint8))
    nearest = [one for _, one in history.expected(query, "codes", Filter())[:40]]
    remove(empty_gallery.catalog, Selection(ids=nearest))
    for one in nearest:
        del history.images[one]
    compact(empty_gallery)
    searches, search = [], Live.search
    monkeypatch.setattr(Live, "search", lambda *given: searches.append(1) or search(*given))
    with live.searcher() as searcher:
        found = searcher.search(query, k=1)
    assert pairs(found) == history.expected(query, "codes", Filter())[:1]
    assert len(searches) == 2


def test_an_index_built_while_a_service_runs_is_loaded_beside(empty_gallery):
    history = History(empty_gallery, 3)
    history.add(120)
    query = Query(np.zeros(32, np.uint8))
    live = LiveSearcher(empty_gallery, waits=False)
    build_index(empty_gallery, "ivf")
    busy = pytest.raises(GalleryBusy, match="the index ivf is being loaded; try again")
    with busy, live.searcher("ivf"):
        pass
    eventually(lambda: "ivf" in live.current.state.built)
    with live.searcher("ivf") as searcher:
        assert searcher.search(query, index="ivf").index == "ivf"
    drop_index(empty_gallery, "ivf")
    refused = pytest.raises(InvalidQuery, match="has no index ivf")
    with refused, live.searcher("ivf") as searcher:
        searcher.search(query, index="ivf")


@pytest.mark.parametrize("waits", [True, False])
def test_a_damaged_index_is_reported_where_it_is_asked_for_alone(empty_gallery, waits, caplog):
    history = History(empty_gallery, 4)
    history.add(120)
    build_index(empty_gallery, "ivf")
    for path in (empty_gallery.folder / "indexes").iterdir():
        path.write_bytes(b"damaged")
    live = LiveSearcher(empty_gallery, waits=waits)
    query = Query(np.zeros(32, np.uint8))
    for _ in range(3):
        damaged = pytest.raises(InvalidGallery, match="hashsearch gallery build")
        with damaged, live.searcher("ivf"):
            pass
        with live.searcher() as searcher:
            assert (
                pairs(searcher.search(query, k=5)) == history.expected(query, "codes", Filter())[:5]
            )
    assert len(caplog.records) == (0 if waits else 1)


def test_codes_are_held_once(empty_gallery):
    history = History(empty_gallery, 5)
    history.add(100)
    searcher = Searcher(empty_gallery)
    base = searcher.state.live.base
    assert np.shares_memory(base.columns["codes"], base.indexes["codes"]._codes)


def test_a_capped_radius_is_cut_where_everything_within_it_would_be(empty_gallery):
    history = History(empty_gallery, 6)
    history.add(90)
    searcher = Searcher(empty_gallery)
    query = Query(np.zeros(32, np.uint8), np.zeros((32, 32, 3), np.uint8))
    for method in ("codes", "pixels"):
        expected = history.expected(query, method, Filter())
        for radius in (expected[30][0], 10**6):
            within = [pair for pair in expected if pair[0] <= radius]
            for cap in (len(within) - 1, len(within), len(within) + 1):
                found = searcher.search(query, method, radius=radius, cap=cap)
                assert pairs(found) == within[:cap]
                assert found.truncated == (cap < len(within))


def test_values_are_read_from_blocks_of_any_order_and_type():
    """Positions may be in few bytes, need not ascend, and may be asked for twice."""
    values = np.random.default_rng(0).integers(0, 256, (70_000, 4), np.uint8)
    places = [
        np.arange(0, 65_536, dtype=np.uint16),
        np.array([69_999, 65_536, 65_537], np.uint32),  # in no order
        np.arange(65_538, 69_999, dtype=np.uint32),
    ]
    blocks = [Block(values[some], np.arange(len(some), dtype=np.uint16), some) for some in places]
    segment = Segment(np.arange(70_000), {"codes": blocks}, {})
    positions = np.array([69_999, 0, 65_535, 65_536, 68_000, 0, 65_537])
    assert_array_equal(segment.values("codes", positions), values[positions])
    for position in positions.tolist():
        assert_array_equal(segment.value("codes", position), values[position])
