"""The gallery's labels, folders and failures over HTTP, beside slow loops over the catalog."""

import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import Changes, Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import Failure
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.removing import remove
from hashsearch.models.card import PRETRAINED_MODELS, read_card
from hashsearch.sources.folder import Folder
from hashsearch.sources.zipped import ZipArchive
from service.cursors import cursor_of
from tests.conftest import KEY, WITH_KEY, serving
from tests.galleries import another_png, index
from tests.test_service import problem


@pytest.fixture(scope="module")
def folder(model_folder, image_files, tmp_path_factory) -> Path:
    """A gallery of nested folders with odd names, archives in a folder and as a source, copies in
    several folders, an image without a file, and files that cannot be read."""
    root = tmp_path_factory.mktemp("folders")
    files = iter(sorted(image_files.rglob("*.*")))
    pictures = root / "my pictures"
    for name, count in (
        ("", 3), ("a", 2), ("a/deep/er", 2), ("a-b", 1), ("a b", 2), ("a.zip", 1), ("a!b", 1),
        ("é", 2), ("100%", 1), ("a/deep!/x", 1), ("z#1", 1),
    ):  # fmt: skip
        (pictures / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            file = next(files)
            shutil.copyfile(file, pictures / name / f"{number}{file.suffix}")
    copied = next((pictures / "a").glob("0.*"))
    shutil.copyfile(copied, pictures / "a-b" / f"copy{copied.suffix}")
    shutil.copyfile(copied, pictures / "a" / f"copy{copied.suffix}")
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (pictures / "a" / "empty.png").write_bytes(b"")
    with zipfile.ZipFile(root / "members.zip", "w") as archive:
        for name in ("top.png", "in/one.png", "in/two.png", "in/side/x.png"):
            archive.write(next(files), name)
    gallery = GalleryFolder.create(root / "gallery", model_folder)
    index_sources(gallery, [Folder(pictures), ZipArchive(root / "members.zip")], workers=1)
    add_image(gallery, gallery.encoder(), another_png())
    ids = gallery.catalog.rows().ids.tolist()
    remove(gallery.catalog, Selection(ids=[ids[4]]))
    gallery.close()
    return root / "gallery"


@pytest.fixture(scope="module")
def client(folder):
    with serving(folder, **WITH_KEY) as opened:
        opened.headers |= {"Authorization": f"Bearer {KEY}"}
        yield opened


@pytest.fixture(scope="module")
def catalog(folder):
    gallery = GalleryFolder(folder)
    yield gallery.catalog
    gallery.close()


def slow_folders(catalog: Catalog, prefix: str) -> dict[str, int]:
    """Number of images by uri of the folders directly in another, by a loop over all places."""
    places = catalog.places(catalog.rows().ids.tolist())
    images: dict[str, set[int]] = {}
    for image_id, every in places.items():
        for place in every:
            rest = place.uri
            if prefix:
                if not re.match(re.escape(prefix) + "[/!#]", rest):
                    continue
                rest = rest[len(prefix) :].lstrip("/!#")
            if re.search("[/!#]", rest):
                part = re.split("[/!#]", rest)[0]
                inner = place.uri[: len(place.uri) - len(rest)]
                images.setdefault(inner + part, set()).add(image_id)
    return {one: len(ids) for one, ids in images.items()}


def listed(client, **parameters) -> list[dict]:
    """All folders of a list, page by page."""
    pages = [client.get("/v1/gallery/folders", params=parameters).json()]
    while pages[-1]["next"]:
        after = parameters | {"after": pages[-1]["next"]}
        pages.append(client.get("/v1/gallery/folders", params=after).json())
        assert 0 < len(pages[-1]["folders"]) <= parameters.get("limit", 100)
    return [one for page in pages for one in page["folders"]]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_every_folder_is_listed_with_its_images(client, catalog, limit):
    prefixes, seen = [""], []
    while prefixes:
        prefix = prefixes.pop()
        found = listed(client, prefix=prefix, limit=limit)
        assert {one["prefix"]: one["images"] for one in found} == slow_folders(catalog, prefix)
        assert len({one["prefix"] for one in found}) == len(found)
        prefixes += [one["prefix"] for one in found]
        seen += found
    names = {one["name"] for one in seen}
    assert names == {
        "my pictures", "members.zip", "+", "a", "deep", "er", "a-b", "a b", "a.zip", "a!b", "é",
        "100%", "deep!", "x", "z#1", "in", "side",
    }  # fmt: skip


def test_a_folder_is_named_with_or_without_encoding_and_separator(client, catalog):
    expected = client.get("/v1/gallery/folders?prefix=my%2520pictures").json()
    assert expected["prefix"] == "my%20pictures"
    assert expected["images"] == slow_folders(catalog, "")["my%20pictures"] > 10
    assert expected["generation"] == catalog.generation()
    for prefix in ("my pictures", "my%20pictures/", "my pictures/"):
        url = f"/v1/gallery/folders?prefix={quote(prefix, safe='')}"
        assert client.get(url).json() == expected
    whole = client.get("/v1/gallery/folders").json()
    assert (whole["prefix"], whole["images"]) == ("", catalog.count())
    nothing = client.get("/v1/gallery/folders?prefix=nowhere").json()
    assert (nothing["images"], nothing["folders"], nothing["next"]) == (0, [], None)


def test_a_folders_uri_chooses_its_images_in_a_search(client):
    for one in listed(client, prefix="my pictures"):
        answer = client.post(
            "/v1/search", params={"k": 1000, "uri_prefix": one["prefix"]}, json={"code": "00" * 32}
        ).json()
        assert len(answer["hits"]) == one["images"]


def test_an_archive_that_became_a_folder_is_listed_once(empty_gallery, image_files, tmp_path):
    files = sorted(image_files.rglob("*.*"))
    (tmp_path / "s").mkdir()
    shutil.copyfile(files[0], tmp_path / "s" / "0.png")
    index(empty_gallery, tmp_path / "s")
    places = ["s/x!/1.png", "s/x!/2.png", "s/x-/3.png", "s/x/4.png", "s/x/5.png", "s/x#6"]
    with empty_gallery.catalog.transaction() as db:
        for number, uri in enumerate(places):
            db.execute(
                "INSERT INTO images (key, uri, width, height, size, mtime, shard, row) "
                "SELECT ?, ?, 1, 1, 1, 1, shard, row FROM images WHERE id = 1",
                (bytes([number]), uri),
            )
    with serving(empty_gallery.folder) as client:
        for limit in (1, 100):
            found = listed(client, prefix="s", limit=limit)
            assert [(one["prefix"], one["images"]) for one in found] == [("s/x", 5), ("s/x-", 1)]
        assert listed(client, prefix="s/x") == []


@pytest.mark.parametrize("path", ["/v1/gallery/folders", "/v1/gallery/failures"])
def test_a_cursor_that_no_list_gave_is_refused(client, path):
    name = path.rpartition("/")[2]
    other = {"folders": "failures", "failures": "folders"}[name]
    surrogate = cursor_of(name, "\ud800")
    for after in ("x", cursor_of(name, 1), cursor_of(name, "a", "b"), cursor_of(other, "a"),
                  cursor_of("images", 1), surrogate, "e30", "Ww"):  # fmt: skip
        response = client.get(path, params={"after": after})
        detail = problem(response, 422, "invalid-parameter")
        assert detail == "after must be `next` of the previous page"
    problem(client.get(f"{path}?limit=0"), 422, "invalid-parameter")
    problem(client.get(f"{path}?limit=1001"), 422, "invalid-parameter")


def test_failures_are_listed_page_by_page_without_paths_of_the_server(client, catalog, folder):
    recorded = [
        {"uri": failure.uri, "reason": failure.reason, "time": time}
        for failure, time in catalog.failures()
    ]
    assert len(recorded) == 2
    answer = client.get("/v1/gallery/failures").json()
    assert (answer["failures"], answer["next"]) == (recorded, None)
    assert answer["generation"] == catalog.generation()
    assert str(folder.parent) not in client.get("/v1/gallery/failures").text
    first = client.get("/v1/gallery/failures?limit=1").json()
    second = client.get(f"/v1/gallery/failures?limit=1&after={first['next']}").json()
    assert first["failures"] + second["failures"] == recorded
    assert second["next"] is None


def test_the_gallery_says_its_labels_with_their_numbers_of_images(
    gallery_folder, image_files, tmp_path
):
    shutil.copytree(gallery_folder, tmp_path / "g")
    gallery = GalleryFolder(tmp_path / "g")
    with serving(gallery.folder) as client:
        expected = Counter(path.parent.name for path in image_files.rglob("*.*"))
        for _ in range(2):
            answer = client.get("/v1/gallery").json()
            assert {one["label"]: one["images"] for one in answer["labels"]} == expected
            counts = [one["images"] for one in answer["labels"]]
            assert counts == sorted(counts, reverse=True)
            assert answer["n_labels"] == len(expected)
        record = gallery.catalog.record(7)
        gallery.commit(Changes(relabelled=[(record.uri, "a new one")]))
        expected.subtract([record.label])
        answer = client.get("/v1/gallery").json()
        found = {one["label"]: one["images"] for one in answer["labels"]}
        assert found == expected | {"a new one": 1}
        assert answer["generation"] == gallery.catalog.generation()
    gallery.close()


def test_labels_are_counted_once_for_a_generation(folder, monkeypatch):
    counted = []
    original = Catalog.labels
    monkeypatch.setattr(
        Catalog, "labels", lambda self, most: counted.append(most) or original(self, most)
    )
    with serving(folder) as client:
        answers = [client.get("/v1/gallery").json() for _ in range(5)]
    assert counted == [1000]
    assert all(answer == answers[0] for answer in answers)


def test_the_most_frequent_labels_are_shown(empty_gallery, image_files, tmp_path):
    (tmp_path / "s").mkdir()
    file = min(image_files.rglob("*.*"))
    shutil.copyfile(file, tmp_path / "s" / file.name)
    index(empty_gallery, tmp_path / "s")
    with empty_gallery.catalog.transaction() as db:
        for number in range(1100):
            for copy in range(1 + (number < 20)):
                db.execute(
                    "INSERT INTO images (key, uri, label, width, height, size, mtime, shard, row) "
                    "SELECT ?, ?, ?, 1, 1, 1, 1, shard, row FROM images WHERE id = 1",
                    (f"{number} {copy}".encode(), f"s/{number}-{copy}.png", f"label {number}"),
                )
    with serving(empty_gallery.folder) as client:
        answer = client.get("/v1/gallery").json()
    assert answer["n_labels"] == 1100
    assert len(answer["labels"]) == 1000
    assert {one["label"] for one in answer["labels"][:20]} == {f"label {n}" for n in range(20)}


def test_the_gallery_says_what_can_be_done_with_it(client, model_folder, tmp_path):
    answer = client.get("/v1/gallery").json()
    assert (answer["thumbnails"], answer["originals"], answer["writes"]) == (True, False, True)
    GalleryFolder.create(tmp_path / "g", model_folder, thumbnails=False).close()
    with serving(tmp_path / "g") as other:
        answer = other.get("/v1/gallery").json()
        assert (answer["thumbnails"], answer["writes"]) == (False, False)
        assert (answer["labels"], answer["n_labels"]) == ([], 0)


def test_the_gallery_names_its_model_and_says_how_many_bits_encode_the_picture(client, tmp_path):
    answer = client.get("/v1/gallery").json()
    assert (answer["picture_bits"], answer["model"]) == (None, None)  # of a dense model
    for name, folder in PRETRAINED_MODELS.items():
        GalleryFolder.create(tmp_path / name, folder).close()
        depths = read_card(folder).architecture["depths"]
        with serving(tmp_path / name) as other:
            answer = other.get("/v1/gallery").json()
        assert answer["picture_bits"] == sum(count * bits for count, bits in depths) == 96
        assert answer["model"] == name


def test_failures_of_many_files_follow_each_other(empty_gallery):
    failures = [Failure(f"s/{number:04}.jpg", "it is damaged", 1, 1) for number in range(250)]
    empty_gallery.commit(Changes(failures=failures))
    with serving(empty_gallery.folder, **WITH_KEY) as client:
        client.headers |= {"Authorization": f"Bearer {KEY}"}
        found, after = [], ""
        while after is not None:
            path = f"/v1/gallery/failures?limit=100{after and f'&after={after}'}"
            answer = client.get(path).json()
            found += [one["uri"] for one in answer["failures"]]
            after = answer["next"]
    assert found == [failure.uri for failure in failures]
