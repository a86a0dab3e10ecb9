"""The page in a real Chromium, served from a socket; where processes matter, by their own."""

import csv
import hashlib
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.models.card import PRETRAINED
from hashsearch.sources.folder import Folder
from tests.browsing import server_of, until_true, watched_page
from tests.conftest import CLOSENESS, listening
from tests.forked import Forked
from tests.reverse_proxy import reverse_proxy

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(gallery_folder):
    """The address of a server of the session's gallery, which trusts proxies of this machine."""
    with listening(gallery_folder, trusted_proxies="127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def measured(measured_gallery_folder):
    """The address of a server of the same, whose distances have words."""
    with listening(measured_gallery_folder) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str):
    with watched_page(browser) as opened:
        opened.goto(address)
        yield opened


@pytest.fixture(scope="module")
def picture(image_files) -> Path:
    return sorted(image_files.rglob("*.*"))[7]


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    expect(page.locator("#found")).to_be_visible()


def tiles(page: Page):
    return page.locator("#results .tile")


def columns(page: Page):
    return page.locator("section.column")


def show_all(page: Page) -> None:
    """The hits beyond the line, too."""
    page.get_by_role("button", name="Show the nearest of the others").click()


IDS = "all => all.map(one => Number(one.dataset.id))"


def answer_of(address: str, picture: Path, path: str = "/v1/search?k=60") -> dict:
    return httpx2.post(f"{address}{path}", content=picture.read_bytes()).json()


# Ask


def test_an_uploaded_picture_is_answered_by_what_is_close(page, picture, measured):
    page.goto(measured)
    upload(page, picture)
    hits = answer_of(measured, picture)["hits"]
    close = [hit for hit in hits if hit["closeness"] != "far"]
    assert 0 < len(close) < 60
    expect(tiles(page)).to_have_count(len(close))
    words = tiles(page).locator(".word").all_inner_texts()
    assert words == [CLOSENESS.word(hit["distance"]) for hit in close]
    expect(tiles(page).first.locator(".distance")).to_have_text("0 bits")
    expect(tiles(page).first.locator(".label")).to_have_text(picture.parent.name)
    expect(tiles(page).first.locator(".name")).to_have_text(picture.name)
    expect(page.locator("#found")).to_contain_text("close picture")
    expect(page.get_by_text("Here likeness ends")).to_be_visible()
    show_all(page)
    expect(tiles(page).nth(59)).to_be_attached()
    line = page.locator("#results ol > li").nth(len(close))
    expect(line).to_have_class("end")
    assert broken_pictures(page) == []


def broken_pictures(page: Page) -> list[str]:
    page.wait_for_load_state("networkidle")
    broken: list[str] = page.evaluate(
        "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth)"
        ".map(i => i.outerHTML)"
    )
    return broken


def test_where_nothing_is_close_the_page_says_so(page, measured):
    page.goto(f"{measured}/?code={'5a' * 32}")
    expect(page.locator("#found")).to_have_text("Nothing close")
    expect(page.get_by_text("The code is not sure of any picture of this gallery")).to_be_visible()
    expect(page.get_by_role("heading", name="The nearest pictures")).to_be_visible()
    expect(tiles(page)).to_have_count(8)
    assert set(tiles(page).locator(".word").all_inner_texts()) == {"far"}
    expect(page.locator("#query-picture")).to_contain_text("its picture is not at hand")
    page.get_by_role("button", name="Show more of the others").press("Enter")
    expect(tiles(page).nth(8).locator(".picture")).to_be_focused()
    expect(tiles(page).nth(59)).to_be_attached()


def test_where_likeness_was_not_measured_no_bar_looks_like_a_hit(page, address):
    page.goto(f"{address}/?id=7")
    bars = page.locator(".distances path")
    expect(page.locator(".distances")).to_contain_text("Each bar counts the pictures")
    expect(page.locator(".distances")).to_contain_text("was not measured")
    assert [bool(bars.nth(n).get_attribute("d")) for n in (0, 1)] == [False, True]
    page.goto(f"{address}/?id=7&radius=120")
    expect(bars.first).to_have_attribute("d", re.compile("^M"))


def test_a_late_answer_is_awaited_by_empty_tiles_and_a_fast_one_is_not(page, address):
    held: list = []
    page.clock.install(time=0)
    page.goto(address)
    page.clock.pause_at(60_000)
    page.route(re.compile(r"/v1/(search|compare)"), lambda route: held.append(route))
    empty, hits = page.locator("#results > .skeleton"), page.locator("#results .distance")

    def become_late(until: int) -> None:
        """The search that was asked for."""
        while len(held) < until:
            page.wait_for_timeout(10)
        page.clock.run_for(140)
        expect(empty).to_have_count(0)
        page.clock.run_for(20)
        expect(empty).to_be_visible()
        expect(hits).to_have_count(0)
        expect(page.get_by_text("Copy this request")).to_be_visible()  # what is below stays

    page.locator(".strip a").first.click()
    become_late(until=1)
    expect(page.locator("#status")).to_have_text("Searching…")
    assert empty.evaluate("one => one.getAnimations().length") == 1
    page.emulate_media(reduced_motion="reduce")
    assert empty.evaluate("one => one.getAnimations().length") == 0
    held[0].continue_()
    expect(hits).to_have_count(60)
    page.get_by_label("Hide near-duplicates").focus()
    page.keyboard.press("Space")
    become_late(until=2)
    expect(page.get_by_label("Hide near-duplicates")).to_be_focused()
    held[1].continue_()
    expect(hits.first).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    become_late(until=3)
    expect(page.get_by_label("Hide near-duplicates")).to_have_count(0)
    held[2].continue_()
    expect(columns(page)).to_have_count(2)
    page.clock.run_for(1000)
    expect(empty).to_have_count(0)


def test_more_pictures_come_by_scrolling_also_after_a_failure(page, picture, address):
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    page.route("**/v1/search?*offset=60*", lambda route: route.abort(), times=1)
    page.mouse.wheel(0, 10**5)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#results")).to_be_focused()
    expect(tiles(page).nth(119)).to_be_attached()
    ids = tiles(page).evaluate_all("all => all.map(one => Number(one.dataset.id))")
    expected = answer_of(address, picture, f"/v1/search?k={len(ids)}")["hits"]
    assert ids == [hit["id"] for hit in expected]


def test_a_photograph_that_is_taken_is_searched_for(browser, address, picture):
    with watched_page(browser, has_touch=True) as page:
        page.goto(address)
        taken = page.get_by_label("Take a photograph")
        expect(page.locator("label", has=taken)).to_be_visible()
        taken.set_input_files(picture)
        expect(tiles(page)).to_have_count(60)


def test_a_dropped_picture_is_searched_for(page, picture):
    data = transfer(page, picture)
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(tiles(page)).to_have_count(60)


def test_a_pasted_picture_is_searched_for(page, picture):
    page.evaluate(
        "given => document.dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: given, bubbles: true}))",
        transfer(page, picture),
    )
    expect(tiles(page)).to_have_count(60)


def transfer(page: Page, picture: Path):
    return page.evaluate_handle(
        "bytes => { const d = new DataTransfer();"
        " d.items.add(new File([new Uint8Array(bytes)], 'x.jpg')); return d; }",
        list(picture.read_bytes()),
    )


def test_a_drop_of_something_else_is_explained(page):
    two = (
        "() => { const d = new DataTransfer();"
        " for (const name of ['a', 'b']) d.items.add(new File([name], name)); return d; }"
    )
    page.dispatch_event("body", "drop", {"dataTransfer": page.evaluate_handle(two)})
    expect(page.locator("#problem")).to_contain_text("drop one alone")
    data = page.evaluate_handle("() => new DataTransfer()")
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator("#problem")).to_contain_text("save the picture first")
    page.locator(".strip a").first.click()
    expect(tiles(page)).to_have_count(60)
    page.mouse.wheel(0, 2000)
    expect(page.locator("header")).not_to_be_in_viewport()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator("#problem")).to_be_in_viewport()


def test_a_picture_of_chance_can_be_asked_for(page):
    page.route("**/v1/search*", lambda route: route.fulfill(json={"hits": []}), times=1)
    page.get_by_role("button", name="Surprise me").click()
    expect(page.locator("#problem")).to_contain_text("No picture came;")
    page.get_by_role("button", name="Surprise me").click()
    expect(page).to_have_url(re.compile(r"\?id=\d+$"))
    expect(tiles(page)).to_have_count(60)


def test_a_large_picture_is_made_smaller_before_it_is_sent(page, photograph, tmp_path, address):
    with Image.open(io.BytesIO(photograph)) as image:
        image.resize((3000, 2000)).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2_000_000
    with page.expect_request_finished(lambda request: "/v1/search" in request.url) as sent:
        page.set_input_files("#file", tmp_path / "large.png")
    assert sent.value.sizes()["requestBodySize"] < 500_000
    expect(tiles(page)).to_have_count(60)
    shown = page.locator("#query-picture img")
    assert shown.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [1024, 683]
    code = parse_qs(urlsplit(page.url).query)["code"][0]
    expected = answer_of(address, tmp_path / "large.png")["code"]
    # as recompressed copies are
    assert (int(code, 16) ^ int(expected, 16)).bit_count() < 26


def test_a_format_that_the_browser_cannot_show_is_searched_for(page, picture, tmp_path):
    with Image.open(picture) as image:
        image.save(tmp_path / "x.tiff")
    upload(page, tmp_path / "x.tiff")
    expect(tiles(page)).to_have_count(60)
    # the service's own preview is shown
    preview = page.locator("#query-picture img")
    expect(preview).to_have_attribute("src", re.compile("^data:image/png"))
    assert broken_pictures(page) == []
    sent = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request))
    page.get_by_label("Hide near-duplicates").check()
    expect(page).to_have_url(re.compile("once"))
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    expect(preview).to_have_attribute("src", re.compile("^data:image/png"))
    # Neither the search nor the preview needs the picture again.
    assert [request.post_data_json.keys() for request in sent] == [{"code"}]


# Problems


def test_a_file_that_is_not_an_image_shows_a_problem_and_the_page_stays_usable(
    page, picture, tmp_path, address
):
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.locator("#problem")).to_contain_text("not an image in an accepted format")
    expect(tiles(page)).to_have_count(0)
    query_is_shown_by_nothing(page)
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    expect(page.locator("#problem")).to_be_hidden()
    code = page.url
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.locator("#problem")).to_contain_text("not an image in an accepted format")
    expect(tiles(page)).to_have_count(60)
    expect(page).to_have_url(code)
    page.goto(f"{address}/?id=999999")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.locator("#problem")).to_contain_text("not an image in an accepted format")
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    expect(page.locator("#problem")).to_be_hidden()


def query_is_shown_by_nothing(page: Page) -> None:
    expect(page.locator("#query-picture img, .crop")).to_have_count(0)
    expect(page.locator(".understand")).to_be_hidden()
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)  # it would not help


def test_an_image_that_the_gallery_does_not_hold_or_show_leaves_no_broken_picture(page, address):
    page.goto(f"{address}/?id=999999")
    expect(page.locator("#problem")).to_have_text("The gallery holds no image with this id.")
    query_is_shown_by_nothing(page)
    page.route("**/v1/images/7/thumbnail", lambda route: route.fulfill(status=404))
    page.goto(f"{address}/?id=7")
    decoded = re.compile("/v1/codes/[0-9a-f]{64}/reconstruction")
    expect(page.locator("#query-picture img")).to_have_attribute("src", decoded)
    expect(page.locator(".crop")).to_have_count(0)
    expect(page.locator(".understand")).to_be_visible()


def test_a_drop_of_nothing_leaves_what_is_shown(page, picture, tmp_path):
    upload(page, picture)
    (tmp_path / "empty.jpg").touch()
    page.set_input_files("#file", tmp_path / "empty.jpg")
    expect(page.locator("#problem")).to_have_text("The file is empty.")
    expect(tiles(page)).to_have_count(60)


def test_a_service_that_stops_midway_is_explained(page, picture, gallery_folder):
    with server_of(gallery_folder) as address:
        page.goto(address)
        upload(page, picture)
    tiles(page).first.locator(".picture").click()
    expect(page.locator("dialog .gone")).to_have_text("The service cannot be reached.")
    page.keyboard.press("Escape")
    page.locator("#results .from").first.click()
    expect(page.locator("#problem")).to_have_text("The service cannot be reached.")
    expect(tiles(page)).to_have_count(0)
    again = page.get_by_role("button", name="Try again")
    again.evaluate("one => (one.isOfBefore = true)")
    again.press("Enter")
    until_true(page, "!document.activeElement.isOfBefore")
    expect(again).to_be_focused()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (413, "The upload is too large."),
        (502, "The service is not available; try again in a moment."),
        (403, "A proxy answered in place of the service, with status 403."),
        (200, "A proxy answered in place of the service, with status 200."),
    ],
)
def test_a_proxys_own_answer_is_shown_as_a_sentence(page, picture, status, sentence):
    page.route(
        "**/v1/search*",
        lambda route: route.fulfill(
            status=status, content_type="text/html", body="<html><h1>nginx</h1></html>"
        ),
    )
    page.set_input_files("#file", picture)
    expect(page.locator("#problem")).to_have_text(sentence)


def test_a_file_that_is_too_large_is_refused_by_the_service_in_words(page, tmp_path):
    with (tmp_path / "large.heic").open("wb") as file:
        file.truncate(17 * 2**20)
    page.set_input_files("#file", tmp_path / "large.heic")
    expect(page.locator("#problem")).to_have_text("The upload is larger than 16 MB.")
    with (tmp_path / "film.mp4").open("wb") as file:
        file.truncate(251_000_000)
    page.set_input_files("#file", tmp_path / "film.mp4")
    expect(page.locator("#problem")).to_have_text("The file is larger than 250 MB.")


def test_a_busy_service_is_asked_again(page, picture):
    answered = []

    def busy_once(route):
        answered.append(route)
        if len(answered) > 1:
            route.continue_()
            return
        route.fulfill(
            status=503,
            content_type="application/problem+json",
            headers={"Retry-After": "1"},
            body='{"detail": "the service is busy", "code": "busy"}',
        )

    page.route("**/v1/search*", busy_once)
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    assert len(answered) == 2


def test_a_page_of_a_gallery_that_is_away_says_so_and_opens_once_it_is_back(
    page, gallery_folder, tmp_path
):
    folder = tmp_path / "gallery"
    shutil.copytree(gallery_folder, folder)
    with server_of(folder) as service:
        folder.rename(tmp_path / "away")
        page.goto(f"{service}/?id=7")
        expect(page.get_by_role("heading", name="The gallery is gone or")).to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"
        (tmp_path / "away").rename(folder)
        expect(tiles(page).first).to_be_visible()


def test_an_empty_gallery_names_the_command_that_fills_it(page, model_folder, tmp_path):
    GalleryFolder.create(tmp_path / "g", model_folder).close()
    with listening(tmp_path / "g") as address:
        page.goto(address)
        expect(page.get_by_text("This gallery is empty")).to_be_visible()
        expect(page.get_by_text("hashsearch index PICTURES")).to_be_visible()
        expect(page.get_by_text("; then reload this page.")).to_be_visible()


# The address


def test_a_search_from_a_picture_changes_the_address_and_back_returns(page, address):
    example = page.locator(".strip a").first
    chosen = example.get_attribute("data-id")
    example.click()
    expect(tiles(page)).to_have_count(60)
    assert page.url.endswith(f"?id={chosen}")
    first = page.locator("#results .from").first
    following = first.get_attribute("data-id")
    assert following != chosen
    first.click()
    expect(page).to_have_url(f"{address}/?id={following}")
    page.reload()
    expect(tiles(page)).to_have_count(60)
    shown = page.locator("#query-picture img")
    expect(shown).to_have_attribute("src", f"/v1/images/{following}/thumbnail")
    page.go_back()
    expect(page).to_have_url(f"{address}/?id={chosen}")
    expect(shown).to_have_attribute("src", f"/v1/images/{chosen}/thumbnail")
    page.go_back()
    expect(tiles(page)).to_have_count(0)
    expect(page.locator(".strip")).to_be_visible()


def test_back_brings_an_uploaded_query_back_without_asking_again(page, picture):
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    before = tiles(page).evaluate_all("all => all.map(one => one.dataset.id)")
    page.locator("#results .from").nth(3).click()
    expect(page).to_have_url(re.compile(r"\?id="))
    expect(tiles(page)).to_have_count(60)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.go_back()
    expect(page).to_have_url(re.compile(r"\?code=[0-9a-f]{64}$"))
    page.wait_for_load_state("networkidle")
    assert tiles(page).evaluate_all("all => all.map(one => one.dataset.id)") == before
    expect(page.locator("#query-picture img")).to_have_attribute("src", re.compile("^blob:"))
    assert not any("/v1/search" in url for url in asked)
    page.route("**/v1/gallery", lambda route: route.abort())
    for _ in range(2):
        page.get_by_role("link", name="Gallery").click()
        expect(page.locator("#problem")).to_have_text("The service cannot be reached.")
        page.get_by_role("link", name="Search", exact=True).click()
        expect(page.locator("#problem")).to_be_hidden()
        expect(page.locator("#found")).to_be_visible()
    for _ in range(4):
        page.go_back()
    expect(tiles(page)).to_have_count(60)
    expect(page.locator("#problem")).to_be_hidden()


def test_an_uploaded_querys_link_holds_its_code(page, picture):
    upload(page, picture)
    expect(page).to_have_url(re.compile(r"\?code=[0-9a-f]{64}$"))
    before = tiles(page).evaluate_all("all => all.map(one => one.dataset.id)")
    page.goto(page.url)
    page.reload()
    expect(tiles(page)).to_have_count(60)
    assert tiles(page).evaluate_all("all => all.map(one => one.dataset.id)") == before
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("choose the picture again to compare pixels")).to_be_visible()


# Narrowing


def test_a_part_of_the_picture_is_searched_for_by_arrow_keys(page, picture, address):
    upload(page, picture)
    corner = page.get_by_role("slider", name="Lower right corner of the part")
    corner.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    where = "70% from the left, 100% from the top"
    expect(corner).to_have_attribute("aria-valuetext", where)
    expected = answer_of(address, picture, "/v1/search?crop=0,0,0.7,1&k=60")
    expect(page).to_have_url(re.compile(f"code={expected['code']}"))
    ids = tiles(page).evaluate_all("all => all.map(one => Number(one.dataset.id))")
    assert ids == [hit["id"] for hit in expected["hits"]]
    assert "crop" not in page.url  # the code is that of the part
    page.go_back()
    expect(page).not_to_have_url(re.compile(expected["code"]))


def drag(page: Page, handle: str, dx: float, dy: float) -> list[float]:
    """Move a handle of the box on the query; returns the part that is searched for then."""
    box = page.locator(f".handle.{handle}").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    with page.expect_request("**/v1/search?*") as sent:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + dx, y + dy, steps=4)
        page.mouse.up()
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    crop = parse_qs(urlsplit(sent.value.url).query)["crop"][0]
    return [float(side) for side in crop.split(",")]


def test_a_part_is_chosen_by_the_mouse_and_follows_it(page, picture):
    upload(page, picture)
    box = page.locator("#query-picture").bounding_box()
    width, height = box["width"], box["height"]
    assert drag(page, "se", -width / 2, -height / 4) == pytest.approx([0, 0, 0.5, 0.75], abs=0.01)
    assert drag(page, "move", width / 4, 0) == pytest.approx([0.25, 0, 0.75, 0.75], abs=0.01)
    corner = page.get_by_role("slider", name="Lower right corner of the part")
    corner.hover()
    page.mouse.down(button="right")
    page.mouse.move(box["x"], box["y"])
    expect(corner).to_have_attribute("aria-valuetext", "75% from the left, 75% from the top")


@pytest.mark.parametrize("size", [(1600, 80), (80, 1600)])
def test_the_handles_of_a_panorama_can_be_used_at_any_width(page, tmp_path, size):
    long = size.index(1600)
    Image.effect_noise(size, 60).save(tmp_path / "panorama.png")
    upload(page, tmp_path / "panorama.png")
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 900})
        handles_are_apart(page)
    side = page.locator("#query-picture .whole").bounding_box()[("width", "height")[long]]
    part = drag(page, "se", *(-0.9 * side if axis == long else 0 for axis in (0, 1)))
    assert part[2 + long] == pytest.approx(0.1, abs=0.02)
    assert part[3 - long] == 1
    part = drag(page, "move", *(side / 2 if axis == long else 0 for axis in (0, 1)))
    assert part[long] == pytest.approx(0.5, abs=0.02)
    handles_are_apart(page)


def handles_are_apart(page: Page) -> None:
    """Each handle is where it can be pressed, and large enough."""
    pressed = page.locator(".handle").evaluate_all(
        """all => all.map(one => {
            const { x, y, width, height } = one.getBoundingClientRect();
            const shares = one.matches(".move") ? [0.5] : [0.15, 0.5, 0.85];
            return Math.round(Math.min(width, height)) >= 24 && shares.every(
                share => one === document.elementFromPoint(x + share * width, y + share * height));
        })"""
    )
    assert pressed == [True] * 5


def test_what_has_not_come_to_rest_changes_nothing_elsewhere(page, address):
    page.goto(f"{address}/?id=7")
    page.locator("#results .from").nth(1).click()
    expect(page).not_to_have_url(re.compile("id=7$"))
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    slider = page.get_by_label("Greatest distance in bits")
    slider.press("ArrowLeft")
    page.go_back()
    page.wait_for_timeout(400)  # longer than a slider or a box waits for the next key
    expect(page).to_have_url(f"{address}/?id=7")
    page.get_by_role("slider", name="Lower right corner of the part").evaluate(
        """corner => {
          corner.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
          document.querySelector("nav a[href*=duplicates]").click();
        }"""
    )
    page.wait_for_timeout(400)
    expect(page).to_have_url(f"{address}/?view=duplicates&id=7")
    page.go_back()
    page.route("**/v1/search*", lambda route: None)
    slider.press("ArrowLeft")
    expect(page).to_have_url(re.compile("radius="))
    former = page.url
    slider.press("ArrowLeft")  # while the answer is awaited
    expect(page).not_to_have_url(former)
    expect(page).to_have_url(re.compile("id=7&radius="))


def test_what_is_shown_already_is_not_asked_for_again(page, address):
    page.goto(f"{address}/?id=7&radius=100")
    expect(page.locator(".distances")).to_be_visible()
    entries = page.evaluate("history.length")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for press in (
        page.get_by_role("link", name="Search", exact=True),
        page.get_by_text("Find", exact=True),
    ):
        press.click()
    page.get_by_text("Folder: all folders").click()
    page.get_by_role("button", name="all folders").click()
    expect(page).to_have_url(f"{address}/?id=7&radius=100")
    assert page.evaluate("history.length") == entries
    assert not any("/v1/search" in url for url in asked)
    page.get_by_role("link", name="Duplicates").click()
    expect(page).to_have_url(f"{address}/?view=duplicates&id=7")


def test_an_address_is_cleaned_of_what_means_nothing(page, address):
    page.goto(f"{address}/?id=7&crop=0,0,5,5&method=x&radius=999&utm=1")
    expect(tiles(page)).to_have_count(60)
    expect(page).to_have_url(f"{address}/?id=7")
    expect(page.locator("#problem")).to_be_hidden()


def test_a_part_of_an_image_of_the_gallery_does_not_find_it(page, address):
    page.goto(f"{address}/?id=7&crop=0,0,0.8,0.8")
    expect(tiles(page)).to_have_count(59)
    images = httpx2.get(f"{address}/v1/gallery").json()["images"]
    expect(page.locator(".distances")).to_contain_text(f"{images - 1} pictures, ")
    ids = tiles(page).evaluate_all("all => all.map(one => Number(one.dataset.id))")
    assert 7 not in ids
    # What comes next needs no picture, since the part's code is known.
    with page.expect_request("**/v1/search?*offset=60*") as more:
        page.mouse.wheel(0, 10**5)
    part = more.value.post_data_json["code"]
    tiles(page).first.get_by_role("button", name=re.compile("More like")).press("Enter")
    expect(page).to_have_url(re.compile(rf"\?code={part}&like={ids[0]}$"))
    expect(page.locator(".example")).to_have_count(1)
    page.go_back()
    expect(page).to_have_url(f"{address}/?id=7&crop=0,0,0.8,0.8")
    corner = page.get_by_role("slider", name="Lower right corner of the part")
    corner.focus()
    for key in ("ArrowRight", "ArrowDown") * 4:
        page.keyboard.press(key)
    expect(page).to_have_url(f"{address}/?id=7")
    expect(tiles(page)).to_have_count(60)
    expect(corner).to_be_focused()


def test_labels_and_folders_narrow_the_search(page, picture, address):
    upload(page, picture)
    chip = page.locator(".chips .chip").first
    label = chip.evaluate("chip => chip.firstChild.textContent")
    chip.click()
    expect(page).to_have_url(re.compile(f"label={label}"))
    expected = answer_of(address, picture, f"/v1/search?k=60&label={label}")["hits"]
    expect(tiles(page)).to_have_count(len(expected))
    assert set(tiles(page).locator(".label").all_inner_texts()) == {label}
    page.locator(".chip[aria-pressed=true]", has_text=label).click()
    expect(page).not_to_have_url(re.compile("label="))
    page.goto(f"{address}/?id=7&label=of%20no%20picture")
    page.get_by_role("button", name="of no picture").click()
    expect(page).not_to_have_url(re.compile("label="))
    expect(tiles(page).first).to_be_visible()
    page.get_by_text("Folder: all folders").click()
    page.locator(".filters details .chip", has_text="pictures").click()
    expect(page).to_have_url(re.compile("folder=pictures"))
    expect(tiles(page)).to_have_count(60)
    # The list stays open, and has a folder of the label's name.
    page.locator(".filters details .chip", has_text=label).click()
    expect(page).to_have_url(re.compile(f"folder=pictures%2F{label}$"))
    expect(page.locator("#found")).to_be_focused()
    page.get_by_role("button", name="pictures", exact=True).click()
    expect(page).to_have_url(re.compile("folder=pictures$"))


def test_many_labels_and_long_names_stay_within_a_phones_width(page, address):
    page.set_viewport_size({"width": 320, "height": 700})
    long, facts = "n" * 90, httpx2.get(f"{address}/v1/gallery").json()
    names = [f"pine {long}", *(f"label {number}" for number in range(999))]
    labels = [{"label": name, "images": 1} for name in names]
    folders = {
        "folders": [{"prefix": f"pictures/{long}", "name": long, "images": 300}],
        "images": 300,
        "next": None,
    }
    page.route("**/v1/gallery", lambda route: route.fulfill(json={**facts, "labels": labels}))
    page.route("**/v1/gallery/folders?*", lambda route: route.fulfill(json=folders))
    widest = "document.documentElement.scrollWidth"
    page.goto(f"{address}/?id=7")
    page.get_by_text("Narrow the search").click()
    chips = page.locator(".labels .chip")
    expect(chips).to_have_count(12)
    page.get_by_text("988 more").click()
    expect(chips).to_have_count(1000)
    page.get_by_text("Folder: all folders").click()
    expect(page.locator(".others .chip")).to_have_count(2)
    assert page.evaluate(widest) == 320
    for chip in page.locator(".chip").all()[:40]:
        assert chip.bounding_box()["x"] + chip.bounding_box()["width"] <= 320
    page.goto(f"{address}/?id=7&folder=pictures/{long}")  # what is in force is not folded up
    expect(page.get_by_text(f"Folder: pictures/{long}")).to_be_visible()
    assert page.evaluate(widest) == 320
    for query in ("", f"&folder=pictures/{long}/{long}"):
        page.goto(f"{address}/?view=gallery{query}")
        expect(page.locator(".gallery .bars a").first).to_be_visible()
        assert page.evaluate(widest) == 320


def test_folders_come_by_the_page(page, address):
    def answer(route) -> None:
        name, following = ("z", None) if "after=" in route.request.url else ("+", "cursor")
        folders = [{"prefix": name, "name": name, "images": 3}]
        route.fulfill(json={"folders": folders, "next": following})

    page.route("**/v1/gallery/folders*", answer)
    page.goto(f"{address}/?id=7")
    page.get_by_text("Folder: all folders").click()
    chips = page.locator(".filters .others .chip")
    expect(chips).to_have_text(["all folders", "added without a file3"])
    page.get_by_role("button", name="Show more").press("Enter")
    expect(chips.nth(2)).to_have_text("z3")
    expect(chips.nth(2)).to_be_focused()
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)


@pytest.fixture(scope="module")
def copies(image_files, picture, tmp_path_factory):
    """The address of a server of 20 pictures, of which one has two recompressed copies."""
    folder = tmp_path_factory.mktemp("copies") / "pictures"
    folder.mkdir()
    for number, source in enumerate(sorted(image_files.rglob("*.*"))[:20]):
        shutil.copy(source, folder / f"{number:02}{source.suffix}")
    with Image.open(picture) as image:
        image.save(folder / "=copy.png")
        image.save(folder / "fine.jpg", quality=95)
    gallery = GalleryFolder.create(folder.with_name("gallery"), PRETRAINED)
    index_sources(gallery, [Folder(folder)], workers=1)
    gallery.close()
    with listening(folder.with_name("gallery"), originals=True) as found:
        yield found


def test_near_duplicates_can_be_hidden(page, picture, copies):
    page.goto(copies)
    upload(page, picture)
    same = page.locator("#results .word.same")
    expect(same).to_have_count(3)
    page.get_by_label("Hide near-duplicates").check()
    expect(page).to_have_url(re.compile("once"))
    expect(same).to_have_count(1)
    expect(page.locator("#found")).to_have_text(
        re.compile("^[0-9]+ close pictures?, 2 near-duplicates hidden$")
    )
    page.reload()
    expect(same).to_have_count(1)


# Compare


def compare(page: Page, picture: Path) -> None:
    upload(page, picture)
    page.get_by_role("button", name="Compare").click()
    expect(columns(page)).to_have_count(2)


def test_methods_are_compared_side_by_side(page, picture):
    compare(page, picture)
    for number, heading in enumerate(("By 256-bit code", "By pixels")):
        column = columns(page).nth(number)
        expect(column.locator("h2")).to_have_text(heading)
        expect(column.locator(".tile")).to_have_count(20)
    for width in (1280, 1000, 360):
        page.set_viewport_size({"width": width, "height": 900})
        left, right = (columns(page).nth(n).locator(".tile").first.bounding_box() for n in (0, 1))
        assert left["x"] + left["width"] <= right["x"]
        assert abs(left["y"] - right["y"]) < 1  # whatever the lines above wrap to
    found = [
        set(columns(page).nth(n).locator(".tile").evaluate_all("all => all.map(b => b.dataset.id)"))
        for n in (0, 1)
    ]
    outlined = page.locator(".tile.shared").evaluate_all("all => all.map(b => b.dataset.id)")
    assert set(outlined) == found[0] & found[1]
    agreement = re.search(r"agree on (\d+) of 20", page.locator(".agreement").inner_text())
    assert int(agreement[1]) == len(found[0] & found[1])
    assert broken_pictures(page) == []


def test_hits_of_the_querys_label_are_marked_and_counted(page, address):
    page.goto(f"{address}/?id=7&view=compare")
    expect(columns(page)).to_have_count(2)
    label = httpx2.get(f"{address}/v1/images/7").json()["label"]
    for number in (0, 1):
        column = columns(page).nth(number)
        right = column.locator(".label").all_inner_texts().count(label)
        expect(column.locator(".precision")).to_have_text(f"precision@20: {right / 20:.2f}")
        expect(column.get_by_role("img", name="Same label as the query")).to_have_count(right)
    marks = page.get_by_role("list", name="What the marks mean").get_by_role("listitem")
    expect(marks).to_have_text(["found by both", f"✓same label as the query, {label}"])


def test_what_a_given_picture_shows_can_be_said_so_that_matches_are_counted(page, picture, address):
    compare(page, picture)
    shows = page.get_by_label("The query shows")
    expect(page.locator(".precision")).to_have_count(0)
    shows.focus()
    label = picture.parent.name
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shows.select_option(label)
    expect(page).to_have_url(re.compile(f"code=[0-9a-f]+&shows={label}$"))
    right = columns(page).first.locator(".label").all_inner_texts().count(label)
    assert right > 0
    said = columns(page).first.locator(".precision")
    expect(said).to_have_text(f"precision@20: {right / 20:.2f}")
    expect(columns(page).nth(1).locator(".precision")).to_be_visible()
    expect(shows).to_be_focused()
    assert not any("/v1/compare" in url for url in asked)
    columns(page).first.locator(".from").nth(1).click()
    expect(page).to_have_url(re.compile(r"\?view=compare&id=\d+$"))
    expect(shows).to_have_count(0)
    page.go_back()
    expect(shows).to_have_value(label)
    page.reload()
    expect(said).to_have_text(f"precision@20: {right / 20:.2f}")
    page.goto(f"{page.url}&label={label}")
    expect(columns(page).first.locator(".tile").first).to_be_visible()
    expect(shows).to_have_count(0)


def test_two_or_three_methods_are_chosen_and_the_stages_of_their_time_shown(page, address):
    page.goto(f"{address}/?id=7&view=compare")
    expect(columns(page)).to_have_count(2)
    boxes, chosen = page.locator(".chooser input"), page.locator(".chooser input:checked")
    fixed = page.locator(".chooser [aria-disabled=true]")
    expect(fixed).to_have_count(2)  # there are no fewer than two
    boxes.first.click(force=True)
    expect(chosen).to_have_count(2)
    third = page.locator(".chooser label", has=page.locator("input:not(:checked)")).first
    title = third.inner_text()
    third.click()
    expect(columns(page)).to_have_count(3)
    expect(columns(page).get_by_role("heading", name=title)).to_be_visible()
    expect(page.locator(".agreement")).to_contain_text("All three agree on")
    boxes.first.click()
    expect(columns(page)).to_have_count(2)
    expect(chosen.last).to_be_checked()
    assert len(parse_qs(urlsplit(page.url).query)["method"]) == 2
    expect(columns(page).locator("h2")).to_have_text(
        page.locator(".chooser label:has(:checked)").all_inner_texts()
    )
    page.locator(".timing summary").click()
    names = page.locator(".timing dt")
    assert names.count() > 1
    assert all(name.locator("span").inner_text() for name in names.all())
    times = [float(time.split()[0]) for time in page.locator(".timing dd").all_inner_texts()]
    whole = float(page.locator(".timing summary").inner_text().split()[0])
    rounded = sum(0.5 if time >= 10 else 0.05 for time in (*times, whole))
    assert sum(times) == pytest.approx(whole, abs=rounded + 0.01)


def test_what_is_pressed_while_an_answer_is_awaited_counts(page, address):
    page.goto(f"{address}/?id=7&view=compare")
    expect(columns(page)).to_have_count(2)
    page.route(re.compile("/v1/(compare|search)"), lambda route: None)
    boxes = page.locator(".chooser input")
    other = page.locator(".chooser input:not(:checked)").first.get_attribute("id")
    first = boxes.first.get_attribute("id")
    page.locator(f"#{other}").check()
    page.locator(f"#{first}").uncheck()
    expect(page.locator(f"#{other}")).to_be_checked()
    methods = parse_qs(urlsplit(page.url).query)["method"]
    assert len(methods) == 2
    assert other.removeprefix("method-") in methods
    assert first.removeprefix("method-") not in methods
    chip = page.locator(".chips.labels .chip").first
    page.get_by_text("Narrow the search").click()
    chip.click()
    expect(page).to_have_url(re.compile("label="))
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(page).not_to_have_url(re.compile("label="))
    expect(chip).to_have_attribute("aria-pressed", "false")


def test_a_gallery_without_pixels_is_searched_by_code_only_and_the_page_says_so(
    page, picture, model_folder, image_files, tmp_path
):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder, pixels=False)
    index_sources(gallery, [Folder(image_files)], workers=1)
    gallery.close()
    with listening(tmp_path / "g") as address:
        page.goto(address)
        upload(page, picture)
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_text("This gallery was indexed without pixels.")).to_be_visible()
        expect(columns(page).first.locator(".tile")).to_have_count(20)


# Results


def test_a_hit_whose_file_is_gone_says_so(page, picture, model_folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("gone.png", "kept.png"):
        with Image.open(picture) as image:
            turned = image.rotate(90 * (name == "kept.png"))
            turned.save(tmp_path / "pictures" / name, compress_level=1)  # other bytes than its own
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    index_sources(gallery, [Folder(tmp_path / "pictures")], workers=1)
    add_image(gallery, gallery.encoder(), picture.read_bytes())
    gallery.close()
    (tmp_path / "pictures" / "gone.png").unlink()
    with listening(tmp_path / "g") as address:
        page.goto(address)
        upload(page, picture)
        gone, kept, added = (
            tiles(page).filter(has_text=name) for name in ("gone.png", "kept.png", "bytes")
        )
        expect(gone.get_by_text("file gone")).to_be_visible()
        expect(gone.locator(".name")).to_have_attribute("title", "pictures/gone.png")
        expect(kept.get_by_text("file gone")).to_have_count(0)
        digest = hashlib.sha256(picture.read_bytes()).hexdigest()
        expect(added.locator(".name")).to_have_attribute("title", f"bytes with SHA-256 {digest}")


def test_a_gallery_without_thumbnails_shows_what_the_codes_decode_to(
    page, picture, model_folder, image_files, tmp_path
):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder, pixels=False, thumbnails=False)
    index_sources(gallery, [Folder(image_files)], workers=1)
    gallery.close()
    with listening(tmp_path / "g") as address:
        page.goto(address)
        upload(page, picture)
        decoded = re.compile(r"/v1/codes/[0-9a-f]{64}/reconstruction")
        expect(tiles(page).first.locator("img")).to_have_attribute("src", decoded)
        assert broken_pictures(page) == []
        page.goto(f"{address}/?id=7")
        expect(page.locator("#query-picture img")).to_have_attribute("src", decoded)
        expect(page.locator(".crop")).to_have_count(0)
        page.get_by_text("What the code knows").click()
        expect(page.locator(".understand .bit.one").first).to_be_visible()
        expect(page.get_by_alt_text("The query in 32×32 pixels")).to_be_hidden()
        assert broken_pictures(page) == []
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/?view=gallery&folder=pictures")
        expect(tiles(page).first.locator("img")).to_have_attribute("src", decoded)
        upload(page, picture)
        expect(tiles(page)).to_have_count(60)
        assert broken_pictures(page) == []
        large = open_lightbox(page, 1).get_by_role("img", name=re.compile("jpg|png"))
        expect(large).to_have_attribute("src", decoded)
        assert not [url for url in asked if url.endswith("/thumbnail")]


def test_a_result_is_shown_large_and_closed_again_by_keyboard(page, picture, address):
    upload(page, picture)
    opener = tiles(page).nth(1).locator(".picture")
    opener.focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("dialog")
    expect(box).to_be_visible()
    hits = answer_of(address, picture)["hits"]
    expect(box.get_by_role("heading")).to_have_text(hits[1]["uri"].rpartition("/")[2])
    page.keyboard.press("ArrowRight")
    expect(box.get_by_role("heading")).to_have_text(hits[2]["uri"].rpartition("/")[2])
    expect(box.locator(".differences")).to_contain_text(f"{hits[2]['distance']} of 256 bits differ")
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(tiles(page).nth(2).locator(".picture")).to_be_focused()


def open_lightbox(page: Page, place: int):
    tiles(page).nth(place).locator(".picture").click()
    box = page.get_by_role("dialog")
    expect(box.locator(".differences")).to_have_attribute("aria-busy", "false")
    return box


def test_back_closes_a_large_picture_and_closing_it_leaves_no_entry(page, picture, address):
    page.locator(".strip a").first.click()
    expect(tiles(page)).to_have_count(60)
    upload(page, picture)
    expect(page).to_have_url(re.compile("code="))
    link, entries = page.url, page.evaluate("history.length")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    tiles(page).first.evaluate("tile => (tile.isOfBefore = true)")
    cross = page.get_by_role("dialog").get_by_role("button", name="Close")
    for close in (page.go_back, lambda: page.keyboard.press("Escape"), cross.click):
        box = open_lightbox(page, 1)
        page.keyboard.press("ArrowRight")
        assert page.url == link
        assert page.evaluate("history.length") == entries + 1
        close()
        expect(box).to_have_count(0)
        assert page.url == link
        assert tiles(page).first.evaluate("tile => tile.isOfBefore")
    page.go_forward()  # to where nothing is any more
    until_true(page, "!history.state.over")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert not any("/v1/search" in url for url in asked)
    # What is searched for from a large picture takes its place in the history.
    open_lightbox(page, 1).get_by_role("link", name="Search from this").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"\?id="))
    page.go_back()
    expect(page).to_have_url(link)
    open_lightbox(page, 1)
    page.reload()
    until_true(page, "!history.state.over")
    expect(page).to_have_url(link)
    page.go_back()
    expect(page).to_have_url(re.compile(r"\?id="))


def test_large_pictures_go_on_where_the_first_results_end(page, address):
    page.goto(f"{address}/?id=7")
    box = open_lightbox(page, 0)
    count, following = box.locator(".count"), box.get_by_role("button", name="Next picture")
    expect(count).to_have_text("1 of 60+")
    expect(box.get_by_role("heading")).to_have_attribute("aria-live", "polite")
    page.evaluate(
        "for (let n = 0; n < 59; n++)"
        " dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    expect(following).to_have_attribute("aria-disabled", "false")
    expect(count).to_have_text(re.compile(r"60 of (120|180)\+"))
    page.keyboard.press("ArrowRight")
    expect(count).to_have_text(re.compile(r"61 of (120|180)\+"))


def test_large_pictures_go_on_also_where_the_last_result_is_a_hidden_copy(page, address):
    def repeat(route) -> None:
        """The first hit as the last one, too."""
        answer = route.fetch().json()
        answer["hits"][-1]["code"] = answer["hits"][0]["code"]
        route.fulfill(json=answer)

    page.route("**/v1/search?*histogram=true", repeat)
    page.goto(f"{address}/?id=7&once")
    expect(open_lightbox(page, 0).locator(".count")).to_have_text(re.compile(r"1 of \d+\+"))


def test_the_list_says_where_it_ends_before_all_pictures_are_shown(page, address):
    def most(route) -> None:
        answer = route.fetch().json()
        answer["hits"] = answer["hits"][:1] * 10_000
        route.fulfill(json=answer)

    page.route("**/v1/search*", most)
    page.goto(f"{address}/?id=7&once")
    expect(
        page.get_by_text("The list ends here, with the 10,000 nearest pictures.")
    ).to_be_visible()
    expect(tiles(page)).to_have_count(1)


def test_the_focus_returns_also_where_a_click_does_not_set_it_and_padding_closes_nothing(
    page, address
):
    page.goto(f"{address}/?id=7&view=compare")
    # As in Safari, where buttons that are clicked get no focus.
    page.evaluate("addEventListener('mousedown', (event) => event.preventDefault())")
    expect(columns(page).nth(1).locator(".tile")).to_have_count(20)
    ids = [columns(page).nth(n).locator(".tile").evaluate_all(IDS) for n in (0, 1)]
    place = next(n for n, one in enumerate(ids[1]) if one in ids[0])  # found by both
    opener = columns(page).nth(1).locator(".picture").nth(place)
    opener.click()
    dialog = page.get_by_role("dialog")
    box = dialog.bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + 3)
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(2, 2)
    page.mouse.up()
    expect(dialog).to_be_visible()
    page.mouse.click(2, 2)
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


def test_a_large_picture_is_zoomed_by_the_wheel_beside_the_part_that_was_asked(page, address):
    page.goto(f"{address}/?id=7&crop=0.5,0,1,0.5")
    box = open_lightbox(page, 1)
    part = box.get_by_role("img", name="The query")
    expect(part).to_have_js_property("tagName", "CANVAS")
    assert page.evaluate(
        """([part, whole]) => {
            const own = document.createElement("canvas");
            [own.width, own.height] = [whole.naturalWidth / 2, whole.naturalHeight / 2];
            own.getContext("2d").drawImage(whole, -own.width, 0);
            return own.toDataURL() === part.toDataURL();
        }""",
        [part.element_handle(), page.locator("#query-picture img").element_handle()],
    )
    box.locator(".window").last.hover()
    for _ in range(10):
        page.mouse.wheel(40, 0)
        page.mouse.wheel(0, -10)
    read = "one => new DOMMatrix(getComputedStyle(one).transform).a"
    until_true(page, f"({read})(document.querySelector('.content')) > 1.25")
    assert 1.25 < box.locator(".content").last.evaluate(read) < 1.35


def test_what_is_asked_can_be_copied_and_a_large_picture_opened_and_saved(page, copies, picture):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{copies}/?id=7")
    page.get_by_text("Copy this request").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()").replace("\\\n", "")
    _, address, _, header, _, data = shlex.split(command)
    headers = dict([header.split(": ")])
    answer = httpx2.post(address, content=data, headers=headers).json()
    found = tiles(page).evaluate_all("all => all.map(one => Number(one.dataset.id))")
    assert [hit["id"] for hit in answer["hits"] if hit["id"] != 7][: len(found)] == found
    expect(page.get_by_role("group", name="Python")).to_contain_text("client.search(7, k=60")
    hit = next(hit for hit in answer["hits"] if hit["id"] == found[0])
    content = httpx2.get(f"{copies}/v1/images/{hit['id']}/original").content
    box = open_lightbox(page, 0)
    box.get_by_role("button", name="Copy its uri").click()
    expect(box.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == hit["uri"]
    with page.expect_download() as saved:
        box.get_by_role("link", name="Download").click()
    assert saved.value.path().read_bytes() == content
    assert saved.value.suggested_filename == hit["uri"].rpartition("/")[2]
    with page.context.expect_page() as opened:
        box.get_by_role("link", name="Open the original").click()
    expect(opened.value).to_have_url(f"{copies}/v1/images/{hit['id']}/original")


def test_fingers_turn_and_zoom_large_pictures(browser, address):
    size = {"width": 390, "height": 700}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{address}/?id=7")
    box = open_lightbox(page, 1)
    count, contents = box.locator(".count"), box.locator(".content")
    session = context.new_cdp_session(page)
    middle = centre(box.locator(".window").last)

    def touch(*ways) -> None:
        """Move fingers, each from one offset of the picture's middle to another."""
        for kind, part in [("Start", 0), *(("Move", n / 8) for n in range(1, 9)), ("End", None)]:
            points = [
                {
                    "id": number,
                    **{a: middle[a] + way[0][a] + part * (way[1][a] - way[0][a]) for a in "xy"},
                }
                for number, way in enumerate(ways)
                if part is not None
            ]
            session.send(
                "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points}
            )

    def at(x: int, y: int = 0) -> dict[str, int]:
        return {"x": x, "y": y}

    def scales() -> list[float]:
        read = "all => all.map(one => new DOMMatrix(getComputedStyle(one).transform).a)"
        return contents.evaluate_all(read)

    touch((at(70), at(-70)))
    expect(count).to_have_text("3 of 60+")
    touch((at(-70), at(70, 20)))
    expect(count).to_have_text("2 of 60+")
    touch((at(-20, -20), at(-60, -60)), (at(20, 20), at(60, 60)))
    assert scales() == pytest.approx([3, 3], rel=0.01)
    touch((at(70), at(-70)))  # moves what is zoomed
    expect(count).to_have_text("2 of 60+")
    touch((at(-60, -60), at(-10, -10)), (at(60, 60), at(10, 10)))
    assert scales() == [1, 1]
    touch((at(0, 50), at(10, -90)))  # scrolls to the rest
    until_true(page, "document.querySelector('.sheet').scrollTop > 20")
    expect(count).to_have_text("2 of 60+")
    context.close()


def centre(place) -> dict[str, float]:
    box = place.bounding_box()
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def test_a_large_picture_is_selected_and_made_an_example_by_keys(page, address):
    page.goto(f"{address}/?id=7")
    box = open_lightbox(page, 1)
    select = box.get_by_role("checkbox", name="Select")
    page.keyboard.press("s")
    expect(select).to_be_checked()
    expect(box.get_by_role("status")).to_have_text("1 selected")
    select.focus()
    page.keyboard.press("ArrowRight")
    expect(select).not_to_be_checked()
    expect(select).to_be_focused()
    summary = box.locator("summary")
    summary.focus()
    page.keyboard.press("ArrowLeft")
    expect(select).to_be_checked()
    expect(box.locator(".differences")).to_have_attribute("aria-busy", "false")
    expect(summary).to_be_focused()
    box.get_by_text("Keys: ").click()  # takes the focus away
    page.keyboard.press("ArrowRight")
    expect(select).not_to_be_checked()
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(tiles(page).nth(1).get_by_role("checkbox")).to_be_checked()
    for key, words, name in (("m", "More like this", "like"), ("l", "Less like this", "unlike")):
        chosen = tiles(page).nth(2).get_attribute("data-id")
        expect(open_lightbox(page, 2).get_by_role("button", name=words)).to_be_visible()
        page.keyboard.press(key)
        expect(box).to_have_count(0)
        expect(page).to_have_url(re.compile(rf"[?&]{name}={chosen}"))
        expect(page.locator("body")).not_to_have_class(re.compile("busy"))
        expect(page.locator("#results")).to_be_focused()
    page.go_back()
    expect(page).not_to_have_url(re.compile("unlike="))
    page.go_back()
    expect(page).to_have_url(f"{address}/?id=7")


def test_examples_are_added_and_removed(page, picture, address):
    upload(page, picture)
    second = tiles(page).nth(1)
    number = int(second.get_attribute("data-id"))
    second.get_by_role("button", name=re.compile("More like")).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"like={number}"))
    code = parse_qs(urlsplit(page.url).query)["code"][0]
    asked = {"code": code, "like": [number]}
    expected = httpx2.post(f"{address}/v1/search?k=60", json=asked).json()["hits"]
    expect(page.locator(".example")).to_have_count(1)
    ids = tiles(page).evaluate_all("all => all.map(one => Number(one.dataset.id))")
    assert ids == [hit["id"] for hit in expected]
    page.locator(".example").click()
    expect(page).not_to_have_url(re.compile("like="))


def test_selected_hits_are_exported(page, picture, address):
    upload(page, picture)
    for number in (0, 2):
        tiles(page).nth(number).hover()
        tiles(page).nth(number).get_by_role("checkbox").check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    hits = answer_of(address, picture)["hits"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(saved.value.path().read_text().splitlines()))
    assert [int(row["id"]) for row in rows] == [hits[0]["id"], hits[2]["id"]]
    assert [row["uri"] for row in rows] == [hits[0]["uri"], hits[2]["uri"]]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export JSON").click()
    rows = json.loads(saved.value.path().read_text())
    assert [row["distance"] for row in rows] == [hits[0]["distance"], hits[2]["distance"]]


def exported(page: Page) -> list[dict]:
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export JSON").click()
    rows: list[dict] = json.loads(saved.value.path().read_text())
    return rows


def test_a_selection_outlives_examples_and_their_sums_are_shown_as_no_distance(page, address):
    page.goto(f"{address}/?id=7")
    tiles(page).nth(1).hover()
    tiles(page).nth(1).get_by_role("checkbox").check()
    before = exported(page)
    tiles(page).nth(2).get_by_role("button", name=re.compile("Less like")).click()
    expect(page.locator(".example")).to_have_count(1)
    nothing = {"distance": None, "unit": None, "closeness": None}
    assert exported(page) == [{**before[0], **nothing}]
    expect(page.locator("#results .distance")).to_have_count(0)
    page.get_by_role("button", name="Compare").click()
    expect(columns(page).nth(1).locator(".tile")).to_have_count(20)
    expect(page.locator("#results .distance")).to_have_count(0)
    columns(page).nth(1).locator(".picture").first.click()
    expect(page.locator(".about")).to_contain_text("pixels, ")
    expect(page.locator(".about")).not_to_contain_text(re.compile("NaN|bit|grey"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="Duplicates").click()
    expect(page.get_by_text("1 selected")).to_be_hidden()
    page.get_by_role("link", name="Search", exact=True).click()
    page.locator(".example").click()
    expect(page).to_have_url(f"{address}/?id=7")
    expect(page.locator("#results .distance").first).to_be_visible()
    assert exported(page) == before


# Duplicates and the gallery


def test_duplicates_are_shown_and_exported(page, copies):
    page.goto(copies)
    page.get_by_role("link", name="Duplicates").click()
    group = page.locator(".group")
    expect(group).to_have_count(1)
    (expected,) = httpx2.get(f"{copies}/v1/duplicates").json()["groups"]
    expect(group.locator(".tile")).to_have_count(3)
    expect(group.locator(".tile").first.get_by_text("keep")).to_be_visible()
    ids = group.locator(".tile").evaluate_all("all => all.map(one => Number(one.dataset.id))")
    assert ids == [file["id"] for file in expected["files"]]
    export = page.get_by_role("button", name="Export as CSV")
    page.route("**/v1/duplicates?*limit=1000*", lambda route: route.fulfill(status=500, json={}))
    export.press("Enter")
    again = page.locator(".filters").get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    expect(export).to_be_focused()
    page.unroute_all()
    with page.expect_download() as saved:
        again.press("Enter")
    expect(again).to_have_count(0)
    expect(export).to_be_focused()
    rows = list(csv.DictReader(saved.value.path().read_text().splitlines()))
    assert [row["keep"] for row in rows] == ["1", "0", "0"]
    assert [int(row["id"]) for row in rows] == ids
    assert "pictures/=copy.png" in {row["path"] for row in rows}


def test_a_duplicate_is_shown_large_beside_the_one_to_keep(page, copies):
    page.goto(f"{copies}/?view=duplicates")
    box = open_lightbox(page, 1)
    files = httpx2.get(f"{copies}/v1/duplicates").json()["groups"][0]["files"]
    for place in (0, 1):
        size = f"{files[place]['width']} × {files[place]['height']} pixels"
        expect(box.locator("figcaption").nth(place)).to_contain_text(size)
    expect(box.locator(".about")).to_contain_text(f"{files[1]['distance']} bit")
    box.get_by_text("Which bits differ").click()
    expect(box.locator(".compared figcaption").first).to_have_text("The one to keep")
    page.keyboard.press("ArrowLeft")
    expect(box.locator(".frames figcaption:visible")).to_have_text([re.compile("^Keep: ")])
    expect(box.locator(".compared")).to_have_count(0)
    expect(box.locator(".about")).not_to_contain_text("bits")
    page.keyboard.press("Escape")
    expect(tiles(page).first.locator(".picture")).to_be_focused()


def test_a_slider_sets_how_near_duplicates_are(page, copies, measured):
    page.goto(f"{copies}/?view=duplicates")
    shown = page.locator(".group .tile")
    expect(shown).to_have_count(3)
    slider = page.get_by_label("Within")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".slider output")).to_have_text("0 of 256 bits: equal codes")
    expect(page).to_have_url(f"{copies}/?view=duplicates&radius=0")
    expect(slider).to_be_focused()
    (expected,) = httpx2.get(f"{copies}/v1/duplicates?radius=0").json()["groups"]
    expect(shown).to_have_count(len(expected["files"]))
    expect(page.locator(".status")).to_have_text("1 group within 0 bits")
    page.goto(f"{measured}/?view=duplicates&radius=0")
    expect(page.get_by_role("heading", name="No duplicates")).to_be_visible()
    expect(page.get_by_text("Move the slider to the right")).to_be_visible()
    expect(page.get_by_role("button", name="Export as CSV")).to_have_count(0)


def test_the_gallery_names_a_model_that_comes_with_the_package(page, copies):
    page.goto(f"{copies}/?view=gallery")
    name = page.locator("dt", has_text=re.compile("^name$")).locator("+ dd")
    expect(name).to_have_text("bundled")


def test_the_gallery_says_what_it_holds_and_lists_pictures_of_a_label(page, address):
    page.get_by_role("link", name="Gallery").click()
    facts = httpx2.get(f"{address}/v1/gallery").json()
    main = page.locator("#results")
    expect(main).to_contain_text(f"{facts['images']}")
    expect(main).to_contain_text(facts["fingerprint"])
    expect(main.locator("dt", has_text=re.compile("^name$"))).to_have_count(0)  # of no such model
    label = facts["labels"][0]
    main.get_by_role("link", name=label["label"]).first.click()
    expect(page).to_have_url(re.compile(f"label={label['label']}"))
    expect(tiles(page)).to_have_count(label["images"])
    number = tiles(page).first.get_attribute("data-id")
    box = open_lightbox(page, 0)
    expect(box.locator("figure:visible")).to_have_count(1)
    expect(box.get_by_text("Which bits differ")).to_be_hidden()
    expect(box.get_by_text("Select")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(box.locator(".count")).to_have_text(f"2 of {label['images']}")
    page.keyboard.press("ArrowLeft")
    box.get_by_role("link", name="Search from this").click()
    expect(page).to_have_url(f"{address}/?id={number}")  # the list does not narrow the search
    page.locator(".chips .chip").first.click()
    expect(page).to_have_url(re.compile("label="))
    page.get_by_role("link", name="Gallery").click()
    expect(page).to_have_url(f"{address}/?view=gallery&id={number}")
    expect(main.get_by_role("heading", name="Labels")).to_be_visible()


# Indexes, and stops before the first commit until a signal lets it go on.
STOPPING = """
import os, signal, sys
from hashsearch.gallery.gallery_folder import GalleryFolder
commit = GalleryFolder.commit
def stop_and_commit(*given):
    GalleryFolder.commit = commit
    os.kill(os.getpid(), signal.SIGSTOP)
    return commit(*given)
GalleryFolder.commit = stop_and_commit
from hashsearch.cli import main
sys.exit(main())
"""


def test_the_progress_of_a_job_is_shown_until_it_is_done(page, gallery, image_files, tmp_path):
    shutil.copytree(image_files, tmp_path / "more")
    for path in (tmp_path / "more").rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"of another file")
    command = (sys.executable, "-c", STOPPING, "index", tmp_path / "more", "--workers", "1")
    with (
        listening(gallery.folder) as address,
        Forked([*command, "--gallery", gallery.folder], stderr=subprocess.DEVNULL) as job,
    ):
        try:
            while psutil.Process(job.pid).status() != psutil.STATUS_STOPPED:
                assert job.poll() is None
                page.wait_for_timeout(20)
            page.goto(f"{address}/?view=gallery")
            newest = page.locator(".card", has_text="Newest job")
            expect(newest).to_contain_text("index: at work")
            expect(newest.get_by_role("progressbar")).to_be_visible()
        finally:
            job.send_signal(signal.SIGCONT)
        expect(newest).to_contain_text("index: done", timeout=20_000)
        expect(newest.get_by_role("progressbar")).to_have_count(0)
        expect(page.get_by_role("heading", name="600 pictures")).to_be_visible()


def test_files_that_could_not_be_read_are_listed_once_however_often_they_are_asked_for(
    page, address
):
    described = httpx2.get(f"{address}/v1/gallery").json()
    failed = {"uri": "pictures/a.jpg", "reason": "damaged", "time": "2026-01-01T00:00:00Z"}
    page.route("**/v1/gallery", lambda route: route.fulfill(json={**described, "writes": True}))
    page.route(
        "**/v1/gallery/failures?*",
        lambda route: route.fulfill(json={"failures": [failed], "next": None}),
    )
    page.get_by_role("link", name="Gallery").click()
    page.get_by_label("API key").fill("k")
    page.locator(".gallery form").evaluate(
        "form => { form.requestSubmit(); form.requestSubmit(); }"
    )
    expect(page.locator(".gallery form")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    expect(page.locator(".failures li")).to_have_count(1)


# Everyone


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    for _ in range(60):
        if target.evaluate("one => one === document.activeElement"):
            return
        page.keyboard.press(key)
    pytest.fail(f"{target} is not reached by {key}")


def test_the_page_can_be_used_by_keyboard_alone(page):
    tab_to(page, page.locator(".strip a").first)
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(60)
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    find, compare = (page.get_by_role("button", name=name) for name in ("Find", "Compare"))
    tab_to(page, compare, "Shift+Tab")
    page.keyboard.press("Enter")
    expect(columns(page)).to_have_count(2)
    tab_to(page, page.locator(".chooser input").first)
    tab_to(page, find, "Shift+Tab")
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(60)
    tab_to(page, page.locator(".handle.nw"), "Shift+Tab")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"crop=0.05,0,1,1"))
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    page.keyboard.press("ArrowLeft")
    expect(page).not_to_have_url(re.compile("crop="))
    chip = page.locator(".chips.labels .chip").first
    for pressed in ("true", "false"):
        tab_to(page, chip)
        page.keyboard.press("Space")
        expect(chip).to_have_attribute("aria-pressed", pressed)
        expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    slider = page.locator(".distances input")
    tab_to(page, slider)
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("radius="))
    expect(slider).to_be_focused()
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    page.keyboard.press("End")
    expect(page).not_to_have_url(re.compile("radius="))
    first = tiles(page).first
    tab_to(page, first.locator(".picture"))
    page.keyboard.press("Enter")
    box = page.get_by_role("dialog")
    expect(box.get_by_role("button", name="Next picture")).to_be_focused()
    tab_to(page, box.get_by_role("link", name="Search from this"))
    tab_to(page, box.get_by_role("button", name="Close"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(first.locator(".picture")).to_be_focused()
    for name in ("More like", "Less like", "Select"):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused.startswith(name)
    page.keyboard.press("Tab")
    expect(first.locator(".from")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_be_focused()  # the link that had the focus is gone
    tab_to(page, page.get_by_label("Hide near-duplicates"))
    page.keyboard.press("Space")
    expect(page).to_have_url(re.compile("once"))
    expect(page.get_by_label("Hide near-duplicates")).to_be_focused()
    chip = page.locator(".chips.labels .chip").first
    chip.press("Enter")
    expect(chip).to_have_attribute("aria-pressed", "true")
    expect(chip).to_be_focused()
    page.get_by_role("button", name="Compare").press("Enter")
    expect(columns(page)).to_have_count(2)
    chip.press("Enter")
    expect(chip).to_have_attribute("aria-pressed", "false")
    expect(chip).to_be_focused()
    columns(page).first.locator(".from").nth(1).press("Enter")
    expect(columns(page).first.locator("h2")).to_be_focused()


# The engine alone is used, within pages whose content policy is lifted for it.
AXE = resources.files("axe_playwright_python") / "axe.min.js"
# What each address shows, by which it is known that it is there.
VIEWS = {
    "": ".strip img",
    "?id=7": "#results .tile",
    "?id=7&view=compare": ".columns .tile",
    "?view=duplicates": ".duplicates :is(.group, .empty)",
    "?view=gallery": ".gallery .card",
    "?id=999999": "#problem",
}


def unfold(page: Page) -> None:
    """Whatever the page folds up, and what appears once a picture is selected."""
    page.get_by_text("What the code knows").click()
    expect(page.locator(".bit.one").first).to_be_visible()
    page.get_by_text("Copy this request").click()
    if page.locator(".in-find:not([open])").count():  # as on phones
        page.get_by_text("Narrow the search").click()
    page.get_by_text("What the bars mean").click()
    page.get_by_text("Folder: all folders").click()
    expect(page.locator(".others .chip").first).to_be_visible()
    tiles(page).first.get_by_role("checkbox").check(force=True)
    expect(page.get_by_role("region", name="Selection")).to_be_visible()


def violations(page: Page, selector: str = ":root") -> list[list[str]]:
    """Rules of accessibility that a part of the page breaks, each with the first place."""
    # Descriptions of the hundreds of places that keep the rules take much of the time.
    found: list[list[str]] = page.evaluate(
        """selector => axe.run(selector, {resultTypes: ["violations"]}).then(({violations}) =>
            violations.map(one => [one.id, one.nodes[0].html]))""",
        selector,
    )
    return found


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_each_view_is_accessible_and_spills_over_nowhere(browser, measured, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    for view, content in VIEWS.items():
        page.goto(f"{measured}/{view}")
        expect(page.locator(content).first).to_be_visible()
        expect(page.locator("#ask")).to_be_visible(
            visible=not re.search("duplicates|gallery", view)
        )
        expect(page.locator("body")).not_to_have_class(re.compile("busy"))
        if view == "?id=7":
            unfold(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        page.add_script_tag(path=str(AXE))
        assert violations(page) == []
    context.close()


def test_states_are_seen_in_the_colours_that_a_system_forces(page, measured):
    page.emulate_media(forced_colors="active")
    page.goto(f"{measured}/?id=7")
    page.get_by_text("What the code knows").click()
    page.locator(".chips.labels .chip").first.click()
    expect(page.locator(".chip[aria-pressed=true]")).to_have_count(1)
    ground = "one => getComputedStyle(one).backgroundColor"
    pressed = "[aria-pressed=true]"
    states = {
        ".bit": ".one",
        ".chip": pressed,
        ".switch button": pressed,
        "nav a": "[aria-current]",
    }
    for kind, state in states.items():
        either = [page.locator(f"{kind}{one}").first for one in (state, f":not({state})")]
        assert either[0].evaluate(ground) != either[1].evaluate(ground), kind


# The controls of a box that cannot be scrolled into it whole.
CUT_OFF = """box => [...box.querySelectorAll("a, button, label, summary")].filter((one) => {
    one.scrollIntoView({block: "nearest"});
    const [outer, inner] = [box, one].map((either) => either.getBoundingClientRect());
    return inner.left < outer.left || inner.right > outer.right
        || inner.top < outer.top || inner.bottom > outer.bottom;
}).map((one) => one.outerHTML)"""


def test_a_large_picture_is_accessible_and_stays_large_beside_its_bits(browser, measured):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    page = context.new_page()
    page.goto(f"{measured}/?id=7")
    box = open_lightbox(page, 1)
    box.get_by_text("Which bits differ").click()
    expect(box.locator(".compared")).to_be_visible()
    page.add_script_tag(path=str(AXE))
    for width, height, scheme in ((1280, 800, "light"), (640, 400, "dark")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        for window in box.locator(".window").all():
            assert window.bounding_box()["height"] >= 240
        assert box.evaluate(CUT_OFF) == []
        assert violations(page, "dialog") == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert box.evaluate(CUT_OFF) == []
    context.close()


def test_the_page_weighs_less_than_100_kb(browser, address):
    """What a browser that keeps none of them receives of the service's own files."""
    context = browser.new_context()
    page = context.new_page()
    answered = []
    page.on("response", lambda response: answered.append(response))
    page.goto(address)
    page.locator(".strip a").first.click()
    expect(tiles(page)).to_have_count(60)
    for view in ("Duplicates", "Gallery"):  # whose modules are loaded when they are needed
        page.get_by_role("link", name=view).click()
        expect(page.locator(f".{view.lower()}")).to_be_visible()
    page.wait_for_load_state("networkidle")
    own = [one for one in answered if "/static/" in one.url or one.url.rstrip("/") == address]
    assert {one.status for one in own} == {200}
    assert len(own) > 30
    assert sum(one.request.sizes()["responseBodySize"] for one in own) < 100_000
    context.close()


def test_the_start_fills_a_wide_screen_and_is_not_shown_first_where_something_else_is_asked(
    page, address
):
    page.set_viewport_size({"width": 1920, "height": 1080})
    box = page.locator("#ask").bounding_box()
    assert 850 < box["y"] + box["height"] < 1080
    bodies = {
        "": '<body data-view="find">',
        "?id=7": '<body data-view="find" class="asked">',
        "?unlike=7": '<body data-view="find" class="asked">',
        "?view=compare&id=7": '<body data-view="compare" class="asked">',
        "?view=gallery&id=7": '<body data-view="gallery">',
        "?view=duplicates": '<body data-view="duplicates">',
        '?view="><b>': '<body data-view="find">',
    }
    assert bodies == {
        query: re.search("<body.*>", httpx2.get(f"{address}/{query}").text)[0] for query in bodies
    }


def test_the_modules_are_announced_and_not_found_one_by_one(page):
    page.wait_for_load_state("networkidle")
    announced = page.locator("link[rel=modulepreload]").evaluate_all("all => all.map(a => a.href)")
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map(one => one.name)"
        r".filter(name => /\/page\/.*\.js$/.test(name))"
    )
    assert {url for url in loaded if not url.endswith("/main.js")} == set(announced)
    assert len(announced) > 20


# Under a prefix, and within the content policy


def walk_through(page: Page, address: str, prefix: str, picture: Path, operations: int = 0):
    """Use the page and the documentation, as shown at an address under a prefix.

    Everything that the browser asks for lies under the prefix, and nothing is refused.
    operations: how many are opened in the documentation, beside /livez; 0 leaves it out, which
    takes longer to draw than all the rest.
    """
    page.goto("about:blank")  # ends what a former address still asks for
    asked, refused, said = [], [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: answer.status < 400 or refused.append(answer.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{address}{prefix}/")
    page.locator(".strip a").first.click()
    expect(page.locator("#query-picture img")).to_have_attribute(
        "src", re.compile(rf"^{prefix}/v1/images/\d+/thumbnail$")
    )
    upload(page, picture)
    expect(tiles(page)).to_have_count(60)
    page.get_by_role("button", name="Compare").click()
    expect(columns(page).first.locator(".tile")).to_have_count(20)
    for view in ("Duplicates", "Gallery"):
        page.get_by_role("link", name=view).click()
        expect(page).to_have_url(re.compile(f"view={view.lower()}"))
        page.wait_for_load_state("networkidle")
    assert broken_pictures(page) == []
    if operations:
        read_documentation(page, f"{address}{prefix}", operations)
        assert f"{address}{prefix}/livez" in asked
    within = (f"{address}{prefix}/", "blob:", "data:")
    assert [url for url in asked if not url.startswith(within)] == []
    assert refused == []
    assert said == []


def read_documentation(page: Page, service: str, operations: int) -> None:
    page.get_by_role("link", name="HTTP interface").click()
    expect(page).to_have_url(f"{service}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    expect(page.locator(".info .title")).to_contain_text("HashSearch")
    for operation in page.locator(".opblock-summary-control").all()[:operations]:
        operation.click()
    livez = page.locator("#operations-health-livez")
    livez.locator(".opblock-summary-control").click()
    livez.get_by_role("button", name="Try it out").click()
    livez.get_by_role("button", name="Execute").click()
    status = livez.locator(".live-responses-table td.response-col_status").last
    expect(status).to_contain_text("200")
    page.wait_for_load_state("networkidle")


def test_page_and_documentation_work_behind_a_proxy_under_a_prefix(page, picture, gallery_folder):
    """Whether it takes the prefix off the path or leaves it there."""
    with server_of(gallery_folder, "--root-path", "/pictures") as server:
        for strips in (True, False):
            with reverse_proxy(server, "/pictures", strips=strips) as proxy:
                walk_through(page, proxy, "/pictures", picture, operations=2 * strips)
                page.goto(f"{proxy}/pictures")  # without the slash
                page.locator(".strip a").first.click()
                expect(tiles(page)).to_have_count(60)
                page.wait_for_load_state("networkidle")


def test_two_proxies_show_one_service_under_two_prefixes(page, picture, address):
    for prefix in ("/pictures", "/a/b"):
        headers = {"X-Forwarded-Prefix": prefix}
        with reverse_proxy(address, prefix, strips=True, headers=headers) as proxy:
            walk_through(page, proxy, prefix, picture)


def test_the_page_lives_within_its_content_policy(page, address, picture):
    walk_through(page, address, "", picture)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_script_that_is_injected_does_not_run(page, address, path):
    page = page.context.new_page()  # in whose console errors are expected
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address + path)
    expect(page.locator(".strip img, .opblock").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert said == []  # it lives within its content policy
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'injected'";
            document.body.append(script);
            const image = document.createElement("img");
            image.setAttribute("onerror", "document.title = 'injected'");
            image.src = "data:,";
            document.body.append(image);
            const base = document.createElement("base");
            base.href = "https://evil.example/";
            document.head.append(base);
        }"""
    )
    page.wait_for_timeout(300)
    assert "HashSearch" in page.title()
    assert page.evaluate("document.baseURI") == address + path
    assert sum("Content Security Policy" in text for text in said) >= 3
