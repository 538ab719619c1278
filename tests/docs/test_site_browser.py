"""The built site in a real browser: no console message, no request elsewhere, every image there."""

import os

import chromium
import pytest
from viz.test_grid import contrast

pytestmark = chromium.NEEDED


@pytest.fixture(scope="module")
def page():
    with chromium.started() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.wrong = []
        page.on("console", lambda message: page.wrong.append(message.text))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on(
            "requestfailed", lambda request: page.wrong.append(request.url) if _lost(request) else 0
        )
        page.on(
            "request", lambda request: page.wrong.append(request.url) if _foreign(request) else 0
        )
        yield page


def _foreign(request):
    return not request.url.startswith(("file:", "about:", "data:"))


def _lost(request):
    return not request.url.endswith("favicon.svg")  # a browser that goes on drops it


@pytest.fixture
def clean(page):
    page.wrong.clear()
    yield page
    assert page.wrong == []


def test_every_page_opens_without_a_message_with_all_its_images_and_fits_the_window(clean, pages):
    assert len(pages) > 60
    similar = [p for p in pages if {"reference", "gallery"} & {*p.parts}]  # of a few templates
    thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    opened = pages if thorough else {*pages} - {*similar} | {*similar[::4]}
    for path in sorted(opened):
        clean.set_viewport_size({"width": 1280, "height": 900})
        clean.goto(path.as_uri())
        missing = clean.evaluate(
            """() => [...document.images].filter((image) => !(image.complete && image.naturalWidth))
               .map((image) => image.src)"""
        )
        assert missing == [], path
        assert clean.wrong == [], path
        for width in (1280, 390):
            clean.set_viewport_size({"width": width, "height": 900})
            wide = clean.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= width or path.parent.name == "_frames", path


def test_code_and_tables_are_not_cut_on_a_desktop(clean, site):
    clean.set_viewport_size({"width": 1280, "height": 900})
    demos = sorted((site / "gallery").glob("[0-9]*.html"))[::4]
    ops = site / "reference" / "ops" / "index.html"
    for path in (site / "tour.html", site / "guides" / "coming_from.html", ops, *demos):
        clean.goto(path.as_uri())
        cut = clean.evaluate(
            """() => [...document.querySelectorAll(".highlight-python pre, .names .table-wrapper, "
                                                   + ".table-wrapper:has(.op-table)")]
               .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.textContent)"""
        )
        assert cut == [], path


def test_a_long_formula_scrolls_by_itself_at_every_width(clean, site):
    clean.goto((site / "reference" / "ops" / "fused.html").as_uri())
    for width in range(390, 1290, 90):
        clean.set_viewport_size({"width": width, "height": 900})
        assert clean.evaluate("() => document.documentElement.scrollWidth") <= width


def test_on_a_phone_the_index_is_not_cut_and_no_full_stop_begins_a_line(clean, site):
    clean.set_viewport_size({"width": 360, "height": 900})
    clean.goto((site / "genindex.html").as_uri())
    right = "(found) => Math.max(...found.map((one) => one.getBoundingClientRect().right))"
    assert clean.locator(".genindextable li").evaluate_all(right) <= 360
    clean.goto((site / "guides" / "batch_norm.html").as_uri())
    height = "(found) => Math.max(...found.map((one) => one.getClientRects().length))"
    assert clean.locator(".together").evaluate_all(height) == 1


def test_the_stepper_in_its_page_steps(clean, site):
    clean.set_viewport_size({"width": 1280, "height": 900})
    clean.goto((site / "guides" / "stepping.html").as_uri())
    frame = clean.frame_locator("iframe.stepper")
    frame.get_by_text("1 / 26", exact=True).wait_for()
    frame.locator("main").click()  # keys go where the reader clicked last
    frame.locator("body").press("Home")
    frame.locator("body").press("ArrowRight")
    frame.get_by_text("2 / 26", exact=True).wait_for()
    frame.locator("body").press("End")
    frame.get_by_text("26 / 26", exact=True).wait_for()
    alone = clean.locator("p.alone a").get_attribute("href")
    assert (site / "guides" / alone).resolve().is_file()


@pytest.mark.parametrize(
    ("query", "found"), [("cotangent", "Glossary"), ("batch_norm", "minigrad.ops.batch_norm")]
)
def test_the_search_page_finds_pages(clean, site, query, found):
    clean.goto(f"{(site / 'search.html').as_uri()}?q={query}")
    clean.wait_for_selector("#search-results li", timeout=10_000)
    clean.wait_for_function(
        """(found) => [...document.querySelectorAll("#search-results li a")]
           .some((link) => link.textContent === found)""",
        arg=found,
        timeout=10_000,
    )


def test_brackets_stretch_and_letters_are_those_of_the_math_font(clean, site):
    clean.goto((site / "guides" / "batch_norm.html").as_uri())
    loaded = clean.evaluate("() => document.fonts.check('16px \"minigrad math\"')")
    assert loaded
    heights = clean.evaluate(
        """() => [...document.querySelectorAll("math mo")].filter((mo) => mo.textContent === "(")
                 .map((mo) => mo.getBoundingClientRect().height)"""
    )
    assert max(heights) > 1.5 * min(heights)  # around fractions and around letters


def test_text_can_be_read_in_both_schemes(clean, site):
    for scheme, dark in (("light", False), ("dark", True)):
        clean.emulate_media(color_scheme=scheme)
        clean.goto((site / "index.html").as_uri())
        background, ink = clean.evaluate(
            """() => ["backgroundColor", "color"].map((key) =>
               getComputedStyle(document.body)[key].match(/\\d+/g).slice(0, 3)
               .reduce((sum, part) => sum + Number(part), 0))"""
        )
        assert (background < ink) == dark
        assert abs(background - ink) > 300  # of 765


def test_code_can_be_read_in_both_schemes(clean, site):
    for scheme in ("light", "dark"):
        clean.emulate_media(color_scheme=scheme)
        clean.goto((site / "tour.html").as_uri())
        colors = clean.evaluate(
            """() => [...document.querySelectorAll(".highlight span")]
               .filter((part) => part.textContent.trim()).map((part) =>
                   [getComputedStyle(part).color,
                    getComputedStyle(part.closest(".highlight")).backgroundColor].map((color) =>
                   color.match(/\\d+/g).slice(0, 3).map(Number)))"""
        )
        pairs = {tuple(f"#{bytes(color).hex()}" for color in pair) for pair in colors}
        assert len(pairs) > 5
        assert min(contrast(*pair) for pair in pairs) >= 4.5  # as WCAG asks


def test_on_paper_no_link_covers_the_text(clean, site):
    clean.goto((site / "index.html").as_uri())
    clean.emulate_media(media="print")
    try:
        assert not clean.locator(".skip-to-content").is_visible()
    finally:
        clean.emulate_media(media="screen")
