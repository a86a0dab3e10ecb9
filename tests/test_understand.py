"""What the page shows of codes and distances, in a real Chromium, beside the service's answers."""

import json
import re
import urllib.request

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.models.card import PRETRAINED
from hashsearch.sources.folder import Folder
from tests.browsing import until_true, watched_page
from tests.conftest import listening

pytestmark = pytest.mark.browser

CODE = "/static/page/code.js"
HISTOGRAM = "/static/page/histogram.js"
OCCLUSION = "/static/page/occlusion.js"


@pytest.fixture(scope="module")
def address(image_files, tmp_path_factory):
    """The address of a server of a gallery with the bundled model, whose bits are divided."""
    folder = tmp_path_factory.mktemp("understand") / "gallery"
    gallery = GalleryFolder.create(folder, PRETRAINED)
    index_sources(gallery, [Folder(image_files)], workers=1)
    gallery.close()
    with listening(folder) as found:
        yield found


@pytest.fixture
def page(browser):
    with watched_page(browser) as opened:
        yield opened


def answer(address: str, path: str, body: object = None, data: bytes | None = None):
    request = urllib.request.Request(f"{address}{path}", data)
    request.add_header("Content-Type", "application/octet-stream")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def code_of(address: str, image_id: int) -> str:
    return answer(address, f"/v1/images/{image_id}")["code"]


def bits_of(code: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(code), np.uint8))


def understand(page: Page, address: str, query: str) -> None:
    page.goto(f"{address}/?{query}")
    page.locator(".understand summary").click()
    expect(page.locator(".understand .bit.one")).not_to_have_count(0)


def squares(page: Page) -> list[int]:
    pressed = "all => all.map(one => Number(one.ariaPressed === 'true'))"
    return page.locator(".understand .bit").evaluate_all(pressed)


def of_module(page: Page, address: str, module: str, call: str):
    """The value of a call of one of the page's modules, `m`."""
    page.goto(f"{address}/livez")
    return page.evaluate(f"import('{module}').then(m => {call})")


def test_the_squares_are_the_bits_of_the_code_and_the_picture_is_read_back_from_it(page, address):
    understand(page, address, "id=3")
    code = code_of(address, 3)
    assert squares(page) == bits_of(code).tolist()
    expect(page.locator(".understand .code")).to_contain_text("The picture: 96 bits")
    expect(page.locator(".understand .code")).to_contain_text("Its meaning: 160 bits")
    first, second = (page.locator(".understand .bits").nth(n).locator(".bit") for n in (0, 1))
    expect(first).to_have_count(96)
    expect(second).to_have_count(160)
    expect(second.first).to_have_attribute("aria-label", "Bit 1 of its meaning")
    read_back = page.get_by_alt_text("What the code decodes to")
    expect(read_back).to_have_attribute("src", f"/v1/codes/{code}/reconstruction.png")
    for image in page.locator(".understand img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)


def test_a_bit_is_flipped_by_the_keyboard_and_the_changed_code_searched_for_at_once(page, address):
    understand(page, address, "id=3")
    code = code_of(address, 3)
    page.locator(".understand .bit").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    steps, changed = page.locator(".walk"), f"{int(code, 16) ^ 1 << (255 - 17):064x}"
    expect(page).to_have_url(f"{address}/?code={changed}")
    expect(steps).to_contain_text("1 bit flipped.")
    expect(page.locator(".understand .marked")).to_have_attribute("title", "Bit 18 of the picture")
    expect(page.locator(".bit:focus")).to_have_attribute(
        "aria-label", "Bit 18 of the picture, flipped"
    )
    expect(page.locator(".tile").first).to_have_attribute("data-id", "3")
    expect(page.locator(".tile .distance").first).to_have_text("1 bit")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(steps).to_contain_text("2 bits flipped.")
    assert [n for n, one in enumerate(bits_of(code)) if squares(page)[n] != one] == [17, 177]
    page.go_back()
    expect(page).to_have_url(f"{address}/?id=3")
    expect(steps).to_contain_text("Press a square")
    assert squares(page) == bits_of(code).tolist()


def test_a_walk_leads_back_to_a_picture_that_was_given(page, address, image_files):
    page.goto(address)
    page.set_input_files("#file", min(image_files.rglob("*.*")))
    page.locator(".understand summary").click()
    page.locator(".understand .bit").nth(200).click()
    expect(page.locator(".walk")).to_contain_text("1 bit flipped.")
    page.locator(".understand .bit").nth(200).click()
    expect(page.locator(".walk")).to_contain_text("0 bits flipped.")
    page.get_by_role("button", name="Return to the query").click()
    expect(page.locator(".walk")).to_contain_text("Press a square")
    expect(page.locator("#query-picture .crop")).to_be_visible()
    expect(page.locator(".tile .distance").first).to_have_text("0 bits")


def test_filters_ask_for_no_new_code_and_a_query_that_fails_leaves_no_other_ones_code(
    page, address
):
    understand(page, address, "id=3")
    encoded = []
    page.on("request", lambda request: "/v1/encode" in request.url and encoded.append(request))
    page.get_by_label("Hide near-duplicates").check()
    expect(page).to_have_url(re.compile("once"))
    expect(page.locator(".understand")).to_have_attribute("aria-busy", "false")
    assert encoded == []
    page.route("**/v1/images/*", lambda route: route.fulfill(status=500, json={"detail": "no"}))
    page.locator("#results .from").nth(1).click()
    expect(page.locator(".understand [role=alert]")).to_have_text("No.")
    expect(page.locator(".understand .bit").first).to_be_hidden()
    expect(page.locator(".understand .seen")).to_be_hidden()
    page.go_back()
    expect(page.locator(".understand .bit").first).to_be_visible()
    assert squares(page) == bits_of(code_of(address, 3)).tolist()


def test_the_part_that_decides_the_bits_is_drawn_over_the_picture(page, address):
    understand(page, address, "id=3")
    with urllib.request.urlopen(f"{address}/v1/images/3/thumbnail") as response:
        picture = response.read()
    changed = np.array(answer(address, "/v1/encode?parts=occlusion", data=picture)["changed_bits"])
    button = page.get_by_role("button", name="Show which part decides the bits")
    button.click()
    expect(page.locator("#query-picture .occlusion")).to_be_visible()
    said = f"{changed.min()} of 256 in the darkest, {changed.max()} in the brightest."
    expect(page.locator(".parts")).to_contain_text(said)
    button.click()
    expect(page.locator("#query-picture .occlusion")).to_have_count(0)


def test_the_slider_sets_the_radius_and_says_how_many_pictures_are_within(page, address):
    counts = answer(address, "/v1/search?histogram=true", {"id": 3})["histogram"]
    alike = answer(address, "/v1/gallery")["closeness"]["alike"]
    page.goto(f"{address}/?id=3")
    distances = page.locator(".distances")
    slider = distances.locator("input")
    expect(distances.locator("output")).to_have_text("any distance")
    expect(distances.locator(".chance")).to_have_text("chance begins")
    expect(distances).to_contain_text(
        f"{sum(counts)} pictures, {np.flatnonzero(counts)[0]} to {np.flatnonzero(counts)[-1]} bits "
        f"away; {sum(counts[: alike + 1])} within {alike} bits, beyond which chance begins."
    )
    expect(distances).to_contain_text(
        "right of the dashed line, unlike pictures mix with like ones"
    )
    last = int(slider.get_attribute("max"))
    slider.focus()
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    set_to = last - 60
    expect(page).to_have_url(f"{address}/?id=3&radius={set_to}")
    within = sum(counts[: set_to + 1])
    expect(distances.locator("output")).to_have_text(f"{set_to} bits: {within} pictures")
    expect(slider).to_be_focused()
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))  # the answer has come
    plot = distances.locator(".plot").bounding_box()
    across = plot["width"] / (last + 1)
    page.mouse.move(plot["x"] + 20.5 * across, plot["y"] + 30)
    page.mouse.down()
    page.mouse.move(plot["x"] + 110.5 * across, plot["y"] + 30)
    page.mouse.up()
    expect(page).to_have_url(f"{address}/?id=3&radius=110")
    page.mouse.click(plot["x"] + 20.5 * across, plot["y"] + 30, button="right")
    expect(slider).to_have_value("110")
    slider.focus()
    page.keyboard.press("End")
    expect(page).to_have_url(f"{address}/?id=3")


def test_the_slider_stays_under_the_hand_until_it_is_let_go(page, address):
    held: list = []
    page.goto(f"{address}/?id=3")
    slider = page.locator(".distances input")
    expect(slider).to_be_visible()
    page.route("**/v1/search*", lambda route: held.append(route))
    page.get_by_label("Hide near-duplicates").check()
    box = slider.bounding_box()
    across, y = box["width"] / int(slider.get_attribute("max")), box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 140 * across, y)
    page.mouse.down()
    held[0].continue_()  # the answer comes meanwhile
    page.mouse.move(box["x"] + 120 * across, y)
    page.wait_for_timeout(500)  # longer than after a key
    expect(page).to_have_url(f"{address}/?id=3&once")
    page.mouse.move(box["x"] + 90 * across, y)
    value = slider.input_value()
    assert 80 < int(value) < 100
    page.mouse.up()
    expect(page).to_have_url(f"{address}/?id=3&radius={value}&once")
    assert len(held) == 2
    held[1].continue_()
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))
    expect(slider).to_have_value(value)


def test_scrolling_over_the_histogram_by_a_finger_sets_nothing(browser, address):
    size = {"width": 390, "height": 700}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{address}/?id=3")
    plot, output = page.locator(".distances .plot"), page.locator(".distances output")
    page.get_by_text("Narrow the search").click()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    session = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": x + dx, "y": y + dy} for dx, dy in points]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})

    before = page.evaluate("scrollY")
    touch("Start", (0, 0))
    expect(output).to_contain_text("bits: ")
    for step in range(1, 9):
        touch("Move", (0, -20 * step))
    touch("End")
    until_true(page, "before => scrollY > before", before)
    expect(output).to_have_text("any distance")
    page.wait_for_timeout(100)
    expect(page).to_have_url(f"{address}/?id=3")
    page.evaluate("before => scrollTo(0, before)", before)
    touch("Start", (0, 0))
    touch("Move", (20, 0))
    touch("Move", (40, 0))
    touch("End")
    expect(page).to_have_url(re.compile("radius="))
    context.close()


def test_examples_have_no_histogram(page, address):
    page.goto(f"{address}/?id=3&like=4,5&radius=90")
    expect(page.locator(".tile")).not_to_have_count(0)
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator(".distances")).to_have_count(0)


def test_the_differing_bits_of_two_codes_are_counted_and_marked(page, address):
    first, second = code_of(address, 3), code_of(address, 8)
    differ = np.flatnonzero(bits_of(first) != bits_of(second))
    page.goto(f"{address}/?id=3")
    page.evaluate(
        """async ([query, code]) => {
            const { describeBits } = await import("/static/page/understand.js");
            const section = document.createElement("section");
            document.body.append(section);
            await describeBits(section, query, { code });
            await describeBits(document.createElement("section"), null, { code });
        }""",
        [first, second],
    )
    described = page.locator("body > section")
    expect(described).to_contain_text(
        f"{len(differ)} of 256 bits differ: {(differ < 96).sum()} of the picture’s 96, "
        f"{(differ >= 96).sum()} of the meaning’s 160."
    )
    expect(described.get_by_label(": its code")).to_have_count(2)
    marked = "all => all.flatMap((one, n) => one.classList.contains('marked') ? [n % 256] : [])"
    assert described.locator(".bit").evaluate_all(marked) == [*differ, *differ]


PURE = [
    (CODE, "m.differenceIn(new Set([0, 95, 96]), 96)",
     "3 of 256 bits differ: 2 of the picture’s 96, 1 of the meaning’s 160."),
    (CODE, "m.differenceIn(new Set([7]), null)", "1 of 256 bits differs."),
    (HISTOGRAM, "m.sums([1, 0, 4])", [1, 1, 5]),
    (HISTOGRAM, "m.outline([0, 3, 0, 1], 0, 2)", "M1 64v-64.0h1V64z"),
    (HISTOGRAM, "m.outline([0, 3, 0, 1], 2, 3)", "M3 64v-32.0h1V64z"),
    (HISTOGRAM, "m.summaryOf([0, 2, 0, 1, 0], 2)",
     "3 pictures, 1 to 3 bits away; 2 within 2 bits, beyond which chance begins."),
    (HISTOGRAM, "m.summaryOf([0, 2, 0, 1, 0], null)", "3 pictures, 1 to 3 bits away."),
    (HISTOGRAM, "m.summaryOf([0, 0], 1)", "There is no picture to be found."),
    (OCCLUSION, "m.squareOf(null, {width: 400, height: 100})", [0.375, 0, 0.25, 1]),
    (OCCLUSION, "m.squareOf('0.5,0,1,1', {width: 100, height: 100})", [0.5, 0.25, 0.5, 0.5]),
]  # fmt: skip


def test_pure_parts_give_what_is_worked_out_by_hand(page, address):
    """In one page, since opening one takes longer than all of these."""
    for module, call, expected in PURE:
        assert of_module(page, address, module, call) == expected, call
