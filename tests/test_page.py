"""The page in a real Chromium, with a real server process."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hashsearch.closeness import MEANINGS
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.sources.folder import Folder
from tests.conftest import CLOSENESS
from tests.reverse_proxy import reverse_proxy

pytestmark = pytest.mark.browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium must not contact its own servers; root needs --no-sandbox.
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            message = f"no Chromium: none of {', '.join(_NAMES)} is on the PATH"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        launched = playwright.chromium.launch(executable_path=path, args=list(_SWITCHES))
        yield launched
        launched.close()


@contextmanager
def server_of(gallery: Path, *arguments: str, **environment: str):
    """Run a server process; yields its address."""
    command = Path(sys.executable).with_name("hashsearch")
    with subprocess.Popen(
        [command, "serve", "--gallery", gallery, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    ) as server:
        try:
            yield re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        finally:
            server.terminate()
        assert server.wait(timeout=15) in (0, -15)


@pytest.fixture(scope="module")
def address(gallery_folder):
    """The address of a server of the session's gallery, which trusts proxies of this machine."""
    with server_of(gallery_folder, HASHSEARCH_TRUSTED_PROXIES="127.0.0.1") as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address)
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def picture(image_files) -> Path:
    return sorted(image_files.rglob("*.*"))[7]


def columns(page: Page):
    return page.locator("section.column")


def test_an_uploaded_picture_is_answered_by_both_methods_side_by_side(page, picture):
    page.set_input_files("#file", picture)
    expect(columns(page)).to_have_count(2)
    for number, heading in enumerate(("By 256-bit code", "By pixels")):
        column = columns(page).nth(number)
        expect(column.locator("h2")).to_have_text(heading)
        expect(column.locator("li")).to_have_count(20)
        expect(column.locator("li").first.locator(".distance")).to_have_text("0")
        expect(column.locator("li").first.locator(".label")).to_have_text(picture.parent.name)
    for width in (1280, 1000, 360):
        page.set_viewport_size({"width": width, "height": 900})
        left, right = (columns(page).nth(n).locator("li").first.bounding_box() for n in (0, 1))
        assert left["x"] + left["width"] <= right["x"]
        assert left["y"] == right["y"]  # whatever the lines above wrap to
    page.wait_for_load_state("networkidle")
    broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0


def test_hits_by_code_carry_a_word_up_to_a_line_where_likeness_ends(
    page, picture, measured_gallery_folder
):
    with server_of(measured_gallery_folder) as address:
        page.goto(address)
        page.set_input_files("#file", picture)
        by_code, by_pixels = columns(page).first, columns(page).nth(1)
        expect(by_code.locator("button")).to_have_count(20)
        distances = [int(text) for text in by_code.locator(".distance").all_inner_texts()]
        words = [CLOSENESS.word(distance) for distance in distances]
        assert by_code.locator(".closeness").all_inner_texts() == words
        title = f"same: {MEANINGS['same']}"
        expect(by_code.locator(".closeness").first).to_have_attribute("title", title)
        rows = by_code.locator("li").evaluate_all("all => all.map(li => li.className === 'end')")
        first_far = words.index("far")
        assert 0 < first_far < 20
        assert rows == [False] * first_far + [True] + [False] * (20 - first_far)
        expect(by_pixels.locator("li")).to_have_count(20)
        expect(by_pixels.locator(".closeness")).to_have_count(0)
        page.wait_for_load_state("networkidle")


def test_a_hit_whose_file_is_gone_says_so(page, picture, model_folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("gone.png", "kept.png"):
        with Image.open(picture) as image:
            image.rotate(90 * (name == "kept.png")).save(tmp_path / "pictures" / name)
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    index_sources(gallery, [Folder(tmp_path / "pictures")], workers=1)
    gallery.close()
    (tmp_path / "pictures" / "gone.png").unlink()
    with server_of(tmp_path / "g") as address:
        page.goto(address)
        page.set_input_files("#file", picture)
        gone, kept = (columns(page).first.locator("li").nth(number) for number in (0, 1))
        expect(gone.get_by_text("file gone")).to_be_visible()
        expect(gone.locator("button")).to_have_attribute("title", "pictures/gone.png (file gone)")
        expect(kept.get_by_text("file gone")).to_be_hidden()
        expect(kept.locator("button")).to_have_attribute("title", "pictures/kept.png")
        page.wait_for_load_state("networkidle")


def test_a_hit_that_was_added_as_bytes_says_so(page, picture, model_folder, tmp_path):
    data = picture.read_bytes()
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    add_image(gallery, gallery.encoder(), data)
    gallery.close()
    with server_of(tmp_path / "g") as address:
        page.goto(address)
        page.set_input_files("#file", picture)
        button = columns(page).first.locator("li").first.locator("button")
        title = f"bytes with SHA-256 {hashlib.sha256(data).hexdigest()}"
        expect(button).to_have_attribute("title", title)
        page.wait_for_load_state("networkidle")


def test_pictures_that_both_methods_found_are_outlined(page, picture):
    page.set_input_files("#file", picture)
    expect(columns(page)).to_have_count(2)
    found = [
        set(
            columns(page).nth(n).locator("button").evaluate_all("all => all.map(b => b.dataset.id)")
        )
        for n in (0, 1)
    ]
    outlined = page.locator(".hits .both").evaluate_all("all => all.map(b => b.dataset.id)")
    assert set(outlined) == found[0] & found[1]
    agreement = re.search(r"agree on (\d+) of 20", page.locator("#agreement").inner_text())
    assert int(agreement[1]) == len(found[0] & found[1])


def test_a_gallery_without_pixels_is_searched_by_code_only_and_the_page_says_so(
    page, picture, model_folder, image_files, tmp_path
):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder, pixels=False)
    index_sources(gallery, [Folder(image_files)], workers=1)
    gallery.close()
    with server_of(tmp_path / "g") as address:
        page.goto(address)
        expect(page.get_by_text("the gallery keeps no pixels to compare with")).to_be_visible()
        page.set_input_files("#file", picture)
        expect(columns(page)).to_have_count(1)
        expect(columns(page).locator("li")).to_have_count(20)
        expect(page.locator("#agreement")).to_have_text("Click any picture to search from it.")
        assert page.locator(".hits .both").count() == 0
        page.wait_for_load_state("networkidle")


def test_a_click_on_a_picture_searches_from_it_and_changes_the_address(page, address):
    example = page.locator("#examples button").first
    example.click()
    expect(columns(page)).to_have_count(2)
    chosen = example.get_attribute("data-id")
    assert page.url.endswith(f"?id={chosen}")
    first = columns(page).first.locator("button").first
    following = first.get_attribute("data-id")
    assert following != chosen
    first.click()
    expect(page).to_have_url(f"{address}/?id={following}")
    page.reload()
    expect(columns(page)).to_have_count(2)
    shown = page.locator("#query-picture")
    expect(shown).to_have_attribute("src", f"/v1/images/{following}/thumbnail")
    page.go_back()
    expect(page).to_have_url(f"{address}/?id={chosen}")
    expect(shown).to_have_attribute("src", f"/v1/images/{chosen}/thumbnail")
    page.go_back()
    expect(columns(page)).to_have_count(0)


def test_a_file_that_is_not_an_image_shows_a_problem_and_the_page_stays_usable(
    page, picture, tmp_path
):
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.locator("#problem")).to_contain_text("not an image in an accepted format")
    expect(columns(page)).to_have_count(0)
    page.set_input_files("#file", picture)
    expect(columns(page)).to_have_count(2)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_dropped_picture_is_searched_for(page, picture):
    data = page.evaluate_handle(
        "bytes => { const d = new DataTransfer();"
        " d.items.add(new File([new Uint8Array(bytes)], 'x.jpg')); return d; }",
        list(picture.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(columns(page)).to_have_count(2)


def test_a_format_that_the_browser_cannot_show_is_searched_for(page, picture, tmp_path):
    with Image.open(picture) as image:
        image.save(tmp_path / "x.tiff")
    page.set_input_files("#file", tmp_path / "x.tiff")
    expect(columns(page)).to_have_count(2)
    expect(page.locator("#query-picture")).to_be_hidden()


def test_the_page_can_be_used_by_keyboard(page):
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    expect(columns(page)).to_have_count(2)
    expect(page.locator("#agreement")).to_be_focused()
    page.keyboard.press("Tab")
    expect(columns(page).first.locator("button").first).to_be_focused()


def test_nothing_spills_over_on_a_narrow_screen(page, picture):
    page.set_viewport_size({"width": 360, "height": 700})
    page.set_input_files("#file", picture)
    expect(columns(page)).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


# Under a prefix, and within the content policy


def walk_through(page: Page, address: str, prefix: str, picture: Path, operations: int = 1):
    """Use the page and the documentation, as shown at an address under a prefix.

    Everything that the browser asks for lies under the prefix, and nothing is refused.
    operations: how many are opened in the documentation, beside /livez.
    """
    asked, refused, said = [], [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: answer.status < 400 or refused.append(answer.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{address}{prefix}/")
    page.set_input_files("#file", picture)
    expect(columns(page)).to_have_count(2)
    expect(columns(page).first.locator("li")).to_have_count(20)
    page.locator("#examples button").first.click()
    expect(page.locator("#query-picture")).to_have_attribute(
        "src", re.compile(rf"^{prefix}/v1/images/\d+/thumbnail$")
    )
    page.wait_for_load_state("networkidle")
    broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0
    page.get_by_role("link", name="HTTP interface").click()
    expect(page).to_have_url(f"{address}{prefix}/docs")
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
    assert f"{address}{prefix}/livez" in asked
    assert all(url.startswith((f"{address}{prefix}/", "blob:", "data:")) for url in asked)
    assert refused == []
    assert said == []


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (413, "the upload is too large"),
        (502, "the service is not available; try again in a moment"),
        (504, "the service is not available; try again in a moment"),
        (403, "a proxy answered in place of the service, with status 403"),
        (200, "a proxy answered in place of the service, with status 200"),
    ],
)
def test_a_proxys_own_answer_is_shown_as_a_sentence(page, picture, status, sentence):
    page.route(
        "**/v1/compare*",
        lambda route: route.fulfill(
            status=status, content_type="text/html", body="<html><h1>nginx</h1></html>"
        ),
    )
    page.set_input_files("#file", picture)
    expect(page.locator("#problem")).to_have_text(f"No answer: {sentence}")


def test_page_and_documentation_work_behind_a_proxy_under_a_prefix(page, picture, gallery_folder):
    """Whether it takes the prefix off the path or leaves it there."""
    with server_of(gallery_folder, "--root-path", "/pictures") as server:
        for strips in (True, False):
            with reverse_proxy(server, "/pictures", strips=strips) as proxy:
                walk_through(page, proxy, "/pictures", picture)
                page.goto(f"{proxy}/pictures")  # without the slash
                page.locator("#examples button").first.click()
                expect(columns(page)).to_have_count(2)
                page.wait_for_load_state("networkidle")


def test_two_proxies_show_one_service_under_two_prefixes(page, picture, address):
    for prefix in ("/pictures", "/a/b"):
        headers = {"X-Forwarded-Prefix": prefix}
        with reverse_proxy(address, prefix, strips=True, headers=headers) as proxy:
            walk_through(page, proxy, prefix, picture)


def test_page_and_documentation_live_within_their_content_policy(page, address, picture):
    walk_through(page, address, "", picture, operations=5)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_script_that_is_injected_does_not_run(page, address, path):
    page.goto(address + path)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
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
    assert page.title().startswith("HashSearch")
    assert page.evaluate("document.baseURI") == address + path
    assert sum("Content Security Policy" in text for text in said) >= 3
