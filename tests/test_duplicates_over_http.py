"""Groups of duplicates over HTTP, beside the library's."""

import io
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.removing import remove
from hashsearch.retrieval import duplicates
from hashsearch.retrieval.duplicates import DuplicateGroup, find_duplicates
from service import duplicates as serving_duplicates
from service import grouping
from service.cursors import cursor_of
from tests.conftest import CLOSENESS, serving
from tests.galleries import index
from tests.test_live import eventually
from tests.test_service import problem


@pytest.fixture(scope="module")
def folder(measured_gallery_folder, image_files, tmp_path_factory) -> Path:
    """A gallery with copies: files with the same bytes, one of which is gone, and the same picture
    in other bytes."""
    root = tmp_path_factory.mktemp("duplicates")
    shutil.copytree(measured_gallery_folder, root / "gallery")
    copies = root / "copies"
    copies.mkdir()
    files = sorted(image_files.rglob("*.*"))
    for number in (3, 50, 120):
        shutil.copyfile(files[number], copies / f"copy {number}{files[number].suffix}")
    gallery = GalleryFolder(root / "gallery")
    index(gallery, copies)
    (copies / f"copy 120{files[120].suffix}").unlink()
    gallery.close()
    return root / "gallery"


@pytest.fixture(scope="module")
def client(folder):
    with serving(folder) as opened:
        yield opened


@pytest.fixture
def changing(folder, tmp_path):
    """A gallery that the test may change, and a client of it."""
    shutil.copytree(folder, tmp_path / "changing")
    gallery = GalleryFolder(tmp_path / "changing")
    with serving(gallery.folder) as opened:
        yield gallery, opened
    gallery.close()


def first_page(client: TestClient, query: str = "") -> dict:
    """The first page, once it is computed."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        response = client.get(f"/v1/duplicates?{query}")
        if response.status_code == 200:
            return response.json()
        assert "are being computed" in problem(response, 503, "being-computed")
        assert response.headers["retry-after"] == "2"
        time.sleep(0.01)
    raise AssertionError("the groups were not computed")


def every_page(client: TestClient, query: str) -> list[dict]:
    pages = [first_page(client, query)]
    while (after := pages[-1]["next"]) is not None:
        limit = "&".join(part for part in query.split("&") if part.startswith("limit"))
        response = client.get(f"/v1/duplicates?{limit}&after={after}")
        assert response.status_code == 200, response.text
        pages.append(response.json())
    return pages


def on_the_wire(groups: list[DuplicateGroup]) -> list[dict]:
    return [
        {
            "diameter": group.diameter,
            "diameter_is_lower_bound": group.diameter_is_lower_bound,
            "images": len({file.id for file in group.files}),
            "n_files": len(group.files),
            "files": [
                {
                    "id": file.id,
                    "uri": file.uri,
                    "label": file.label,
                    "width": file.width,
                    "height": file.height,
                    "size": file.size,
                    "distance": file.distance,
                    "keep": file.keep,
                    "missing": file.missing,
                    "thumbnail": f"/v1/images/{file.id}/thumbnail",
                    "code": None,
                }
                for file in group.files
            ],
        }
        for group in groups
    ]


def test_the_groups_are_the_librarys_page_by_page(client, folder):
    gallery = GalleryFolder(folder)
    for radius, limit in ((0, 100), (CLOSENESS.same, 1), (CLOSENESS.near, 7)):
        expected = on_the_wire(find_duplicates(gallery, radius))
        pages = every_page(client, f"radius={radius}&limit={limit}")
        assert [group for page in pages for group in page["groups"]] == expected
        assert {page["total"] for page in pages} == {len(expected)}
        assert {page["radius"] for page in pages} == {radius}
        assert {page["generation"] for page in pages} == {gallery.catalog.generation()}
        assert all(len(page["groups"]) == limit for page in pages[:-1])
        assert len(expected) >= 2
    gallery.close()


def test_the_default_radius_is_that_of_copies_and_the_largest_that_of_near_pictures(client):
    assert first_page(client)["radius"] == CLOSENESS.same
    response = client.get(f"/v1/duplicates?radius={CLOSENESS.near + 1}")
    detail = problem(response, 422, "invalid-parameter")
    assert detail == "radius must be at most 50, the largest distance of near pictures"
    assert response.json()["parameter"] == "radius"


def test_a_model_that_does_not_say_what_is_near_needs_a_radius(gallery_folder):
    with serving(gallery_folder) as client:
        detail = problem(client.get("/v1/duplicates"), 422, "invalid-query")
        assert "give a radius" in detail
        assert first_page(client, "radius=32")["radius"] == 32
        detail = problem(client.get("/v1/duplicates?radius=33"), 422, "invalid-parameter")
        assert detail.startswith(
            "radius must be at most 32, since the gallery's model does not say"
        )


def test_pages_stay_what_they_are_while_the_gallery_changes(changing):
    gallery, client = changing
    expected = on_the_wire(find_duplicates(gallery, 50))
    first = first_page(client, "radius=50&limit=2")
    gone = expected[-1]["files"][0]["id"]
    remove(gallery.catalog, Selection(ids=[gone]))
    found = first["groups"]
    page = first
    while page["next"]:
        page = client.get(f"/v1/duplicates?limit=2&after={page['next']}").json()
        assert page["generation"] == first["generation"]
        found += page["groups"]
    assert found[:-1] == expected[: len(found) - 1]
    assert gone not in {file["id"] for group in found for file in group["files"]}
    again = first_page(client, "radius=50&limit=1000")
    assert again["generation"] == gallery.catalog.generation() > first["generation"]
    assert again["groups"] == on_the_wire(find_duplicates(gallery, 50))


def test_a_list_whose_groups_are_gone_is_to_be_begun_again(changing):
    gallery, client = changing
    first = first_page(client, "radius=50&limit=1")
    for number in range(2):  # two more results are kept
        remove(gallery.catalog, Selection(ids=[200 + number]))
        first_page(client, f"radius={40 + number}")
    response = client.get(f"/v1/duplicates?after={first['next']}")
    detail = problem(response, 409, "list-changed")
    assert detail == "these groups are no longer kept; start again without after"


def test_a_gallery_that_changes_all_the_time_has_duplicates_too(changing, monkeypatch):
    gallery, client = changing
    find = grouping.find_groups

    def changed_meanwhile(*arguments, **options):
        groups = find(*arguments, **options)
        remove(gallery.catalog, Selection(ids=[gallery.catalog.rows().ids.tolist()[-1]]))
        return groups

    monkeypatch.setattr(grouping, "find_groups", changed_meanwhile)
    first = first_page(client, "radius=20")
    assert first["generation"] == gallery.catalog.generation() - 1
    problem(client.get("/v1/duplicates?radius=20"), 503, "being-computed")


@pytest.mark.parametrize(("seconds", "status"), [(50, 200), (70, 503)])
def test_groups_of_a_former_state_are_given_for_a_minute_to_a_client_that_waited(
    changing, monkeypatch, seconds, status
):
    gallery, client = changing
    problem(client.get("/v1/duplicates?radius=20"), 503, "being-computed")
    eventually(lambda: "duplicates" not in {thread.name for thread in threading.enumerate()})
    remove(gallery.catalog, Selection(ids=[1]))
    late = SimpleNamespace(monotonic=lambda: time.monotonic() + seconds, sleep=time.sleep)
    monkeypatch.setattr(grouping, "time", late)
    response = client.get("/v1/duplicates?radius=20")
    assert response.status_code == status
    if status == 200:
        assert response.json()["generation"] == gallery.catalog.generation() - 1


def test_one_radius_is_computed_at_a_time_and_one_waits(folder, monkeypatch):
    go_on, at_work = threading.Event(), []
    find = grouping.find_groups

    def slow(gallery, radius, threads):
        at_work.append(radius)
        assert threads == 1
        go_on.wait(30)
        return find(gallery, radius, threads)

    monkeypatch.setattr(grouping, "find_groups", slow)
    monkeypatch.setattr(grouping, "_MOST_WAITING", 1)
    with serving(folder) as client:
        for radius in (10, 10, 20, 20, 10):
            path = f"/v1/duplicates?radius={radius}"
            problem(client.get(path), 503, "being-computed")
        detail = problem(client.get("/v1/duplicates?radius=30"), 503, "busy")
        assert "groups of other radii are being computed" in detail
        assert client.post("/v1/search", json={"id": 5}).status_code == 200
        assert at_work == [10]
        go_on.set()
        assert first_page(client, "radius=20")["radius"] == 20
        assert at_work == [10, 20]
        assert client.get("/v1/duplicates?radius=10").status_code == 200  # both are kept


def test_a_large_group_and_a_long_page_are_cut(changing, monkeypatch, photograph):
    gallery, client = changing
    expected = on_the_wire(find_duplicates(gallery, 50))
    largest = max(range(len(expected)), key=lambda number: expected[number]["images"])
    monkeypatch.setattr(serving_duplicates, "MOST_FILES", 2)
    monkeypatch.setattr(serving_duplicates, "_MOST_ON_PAGE", 4)
    pages = every_page(client, "radius=50&limit=1000")
    groups = [group for page in pages for group in page["groups"]]
    assert max(sum(len(g["files"]) for g in p["groups"]) for p in pages) <= 4
    assert len(pages) > 1
    for field in ("images", "n_files"):
        assert [group[field] for group in groups] == [group[field] for group in expected]
    ids = sorted({file["id"] for file in expected[largest]["files"]})
    assert {file["id"] for file in groups[largest]["files"]} == set(ids[:2])
    assert len(ids) > 2


def test_a_group_of_many_files_with_the_same_bytes_is_cut_before_they_are_looked_for(
    gallery, tmp_path, photograph, monkeypatch
):
    (tmp_path / "copies").mkdir()
    with Image.open(io.BytesIO(photograph)) as image:
        image.resize((64, 43)).save(tmp_path / "small.png")
    for number in range(1200):
        shutil.copy(tmp_path / "small.png", tmp_path / "copies" / f"{number:04}.png")
    index(gallery, tmp_path / "copies")
    with serving(gallery.folder) as client:
        first_page(client, "radius=0")  # computes the groups
        looked_for = []
        is_gone_at = duplicates.is_gone_at
        monkeypatch.setattr(
            duplicates, "is_gone_at", lambda *of: looked_for.append(of) or is_gone_at(*of)
        )
        group = first_page(client, "radius=0")["groups"][0]
    assert (group["images"], group["n_files"], len(group["files"])) == (1, 1200, 1000)
    assert len({file["uri"] for file in group["files"]}) == 1000
    copies = [uri for uri, *_ in looked_for if uri.startswith("copies/")]
    assert 1000 <= len(copies) <= 1001
    assert [file["keep"] for file in group["files"]] == [True] + [False] * 999


@pytest.mark.parametrize(
    "after",
    ["x", "!!!", "é", "W10", "W1tb", cursor_of("images", 1, 2, 3),
     *(cursor_of("duplicates", *values)
       for values in ((), (1, 2), (1, "2", 3), (-1, 2, 3), (10**30, 2, 3)))],
)  # fmt: skip
def test_a_cursor_that_no_list_gave_is_refused(client, after):
    response = client.get("/v1/duplicates", params={"after": after})
    detail = problem(response, 422, "invalid-parameter")
    assert detail == "after must be `next` of the previous page"
    assert response.json()["parameter"] == "after"


def test_a_cursor_is_of_one_radius_and_may_lie_after_the_end(client):
    page = first_page(client, "radius=50&limit=1")
    response = client.get(f"/v1/duplicates?radius=20&after={page['next']}")
    assert problem(response, 422, "invalid-parameter") == "radius must be that of the previous page"
    beyond = cursor_of("duplicates", page["generation"], 50, 2**62)
    answer = client.get(f"/v1/duplicates?radius=50&after={beyond}").json()
    assert (answer["groups"], answer["next"]) == ([], None)


def test_a_gallery_without_images_has_no_groups(empty_gallery):
    with serving(empty_gallery.folder) as client:
        answer = first_page(client, "radius=5")
        assert (answer["total"], answer["groups"], answer["next"]) == (0, [], None)


def test_the_service_stops_while_groups_are_computed(folder, monkeypatch):
    begun = threading.Event()

    def endless(gallery, radius, threads):
        from hashsearch.progress import progress_report

        with progress_report("comparing codes", None, "codes") as report:
            while True:
                begun.set()
                report.advance(1)
                time.sleep(0.01)

    monkeypatch.setattr(grouping, "find_groups", endless)
    with serving(folder) as client:
        client.get("/v1/duplicates")
        assert begun.wait(10)
        started = time.monotonic()
    assert time.monotonic() - started < 5


def failed(client: TestClient, query: str, caplog) -> None:
    """Ask for groups until they could not be computed."""
    problem(client.get(f"/v1/duplicates?{query}"), 503, "being-computed")
    deadline = time.monotonic() + 10
    while "duplicates cannot be found" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_failure_is_reported_and_tried_again_after_a_while(changing, caplog, monkeypatch):
    gallery, client = changing
    shard = next((gallery.folder / "shards").iterdir())
    (shard / "codes.npy").rename(shard / "moved")
    failed(client, "radius=7", caplog)
    for _ in range(3):
        problem(client.get("/v1/duplicates?radius=7"), 503, "gallery-unavailable")
    assert caplog.text.count("duplicates cannot be found") == 1
    (shard / "moved").rename(shard / "codes.npy")
    assert first_page(client, "radius=8")["radius"] == 8
    monkeypatch.setattr(grouping, "_FAILED_S", 0.0)
    assert first_page(client, "radius=7")["radius"] == 7


def test_a_failure_of_any_class_ends_the_waiting(folder, caplog, monkeypatch):
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        raise MemoryError

    monkeypatch.setattr(grouping, "find_groups", fail)
    with serving(folder) as client:
        failed(client, "radius=7", caplog)
        for _ in range(3):
            problem(client.get("/v1/duplicates?radius=7"), 500, "internal-error")
    assert len(calls) == 1


def test_a_thread_that_cannot_be_started_keeps_nobody_waiting(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("can't start new thread")

    with serving(folder) as client:
        with monkeypatch.context() as broken:
            broken.setattr(grouping, "Thread", refuse)
            problem(client.get("/v1/duplicates?radius=7"), 500, "internal-error")
        assert first_page(client, "radius=7")["radius"] == 7


def test_every_client_gets_its_groups_whatever_others_ask_for(folder, monkeypatch):
    """Others ask for other radii all the time, and clients ask again after a while."""
    monkeypatch.setattr(grouping, "_KEPT", 1)
    with serving(folder) as client:
        problem(client.get("/v1/duplicates?radius=5"), 503, "being-computed")
        for radius in range(6, 12):
            client.get(f"/v1/duplicates?radius={radius}")
        deadline = time.monotonic() + 30
        while client.get("/v1/duplicates?radius=5").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert first_page(client, "radius=6")["radius"] == 6
