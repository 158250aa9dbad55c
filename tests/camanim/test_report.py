"""Reports, opened in Chromium, and HTML for notebooks."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cmap import Colormap
from torch import nn

import camanim
from camanim import Animation, Cancelled, RenderError, samples, write_report
from camanim.images import Geometry
from camanim.layer_info import LayerInfo
from camanim.report.encoding import evenly, longest_side
from camanim.report.wording import file_name, recomputation, without_folders
from camanim.targets import ClassTarget

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'


def animation(
    maps: list[np.ndarray],
    *,
    image: np.ndarray | None = None,
    geometry: Geometry | None = None,
    name: str = "lesion",
    labels: str = "layer",
    **more: Any,
) -> Animation:
    """Return a result with given maps."""
    layers = [
        LayerInfo(i, f"{labels}{i}", 0, "Conv2d", (1, 4, *m.shape), 10 * i, status="ok")
        for i, m in enumerate(maps)
    ]
    if image is None:
        image = np.random.default_rng(1).integers(0, 256, (48, 64), np.uint8)
    values = {
        "layers": layers,
        "layer_calls": layers,
        "method": "GradCAM",
        "target": ClassTarget(1, name, kind="softmax"),
        "probability": 0.7312,
        "image": image,
        "geometry": geometry or Geometry(image.shape[:2]),
        "tensor": torch.zeros(1, 1, 8, 8),
        "model": None,
        "provenance": {"model": "demo/ultrasound", "image sha256": "ab" * 32},
    }
    return Animation(maps=[np.float32(m) for m in maps], **values | more)


def random_maps(count: int = 6, *, signed: bool = True) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    sizes = [(12, 16), (6, 8), (3, 4), (24, 32), (1, 1), (5, 3)]
    return [
        (i + 1) * (rng.normal(size=sizes[i % 6]) if signed else rng.random(sizes[i % 6]))
        for i in range(count)
    ]


# -- The browser -----------------------------------------------------------------------------------


class Browser:
    """Chromium with a page that was opened from a file."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(path.as_uri())

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def command(self, name: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, values)

    def logs(self) -> tuple[list[str], list[str]]:
        """Return the messages of the console and the requested addresses since the last call."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
        return messages, sent

    def wait(self, condition: str, *arguments: Any) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        code = f"return {condition}"
        return WebDriverWait(self.driver, 20, 0.02).until(lambda d: self.script(code, *arguments))

    def set(self, selector: str, value: Any, result: str = "r1") -> None:
        """Move a slider."""
        self.script(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}))",
            f"#{result} {selector}",
            value,
        )

    def choose(self, name: str, value: str, result: str = "r1") -> None:
        self.script(f"document.querySelector('#{result} input.{name}[value={value}]').click()")

    def pixels(self, layer: int, plane: int | None = None, result: str = "r1") -> np.ndarray:
        """Return the pixels of the canvas when a layer is drawn with the chosen settings."""
        self.wait(
            "((root) => root.querySelector('canvas').dataset.drawn === [arguments[1], arguments[2] ?? "
            "root.querySelector('canvas').dataset.drawn?.split(',')[1], "
            "root.querySelector('.scale:checked').value, root.querySelector('.shown:checked').value, "
            "root.querySelector('input.opacity').value].join())(document.getElementById(arguments[0]))"
            .replace("arguments[0]", f"'{result}'")
            .replace("arguments[1]", str(layer))
            .replace("arguments[2]", "null" if plane is None else str(plane))
        )  # fmt: skip
        width, height, values = self.script(
            f"const c = document.querySelector('#{result} canvas');"
            "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            ".data]]"
        )
        return np.array(values, np.int64).reshape(height, width, 4)[..., :3]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
        "window-size=1100,900", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(chromedriver)
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def interpolated(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map linearly; cells are areas, and the outer halves of the outer ones are constant."""
    for axis, count in enumerate(size):
        cells = values.shape[axis]
        at = np.clip((np.arange(count) + 0.5) * cells / count - 0.5, 0, cells - 1)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, cells - 1)
        weight = (at - below).reshape([-1 if a == axis else 1 for a in range(2)])
        values = values.take(below, axis) * (1 - weight) + values.take(above, axis) * weight
    return values


def assert_colors(pixels: np.ndarray, shares: np.ndarray, colormap: str = "turbo") -> None:
    """Assert that pixels have the colours of shares of a colour map, up to one and a half levels."""
    table = np.round(Colormap(colormap).lut(256)[:, :3] * 255).astype(np.int64)
    levels = np.clip(shares, 0, 1) * 255
    differences = []
    for offset in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5):
        nearest = np.clip(np.round(levels + offset), 0, 255).astype(int)
        differences.append(np.abs(table[nearest] - pixels).max(axis=-1))
    assert np.min(differences, axis=0).max() == 0


@pytest.mark.parametrize("normalization", ["local", "global"])
def test_the_slider_shows_the_maps_in_the_colours_of_the_engine(
    browser: Browser, tmp_path: Path, normalization: str
) -> None:
    maps = random_maps()
    write_report(animation(maps), tmp_path / "a.html", size=128)
    browser.open(tmp_path / "a.html")
    browser.wait("document.querySelector('canvas').dataset.drawn")
    browser.choose("shown", "map")
    browser.choose("scale", normalization)
    highest = max(m.max() for m in maps)
    lowest = min(max(m.min(), 0) for m in maps)
    for i, raw in enumerate(maps):
        browser.set("input.layer", i + 1)
        pixels = browser.pixels(i)
        assert pixels.shape == (96, 128, 3)
        positive = np.maximum(raw, 0)
        low, high = (
            (positive.min(), positive.max()) if normalization == "local" else (lowest, highest)
        )
        shares = (positive - low) / (high - low) if high > low else 0 * positive
        assert_colors(pixels, interpolated(shares, (96, 128)))
        name = browser.script(
            "return document.querySelector('.overlay figcaption strong').innerText"
        )
        assert name == f"layer{i}"
        ends = browser.script(
            "return ['low', 'high'].map((n) => document.querySelector(`.ticks .${n}`).textContent)"
        )
        values = [float(end) for end in ends if end]
        assert values == pytest.approx([low, high] if high > low else [low], rel=0.01, abs=1e-12)


def test_the_map_lies_on_its_part_of_the_image_with_the_opacity(
    browser: Browser, tmp_path: Path
) -> None:
    raw = np.random.default_rng(0).random((4, 8))
    # The map covers columns 16 to 48 and rows 8 to 24 of 48 x 64 pixels.
    geometry = Geometry((4, 8), (4.0, 4.0), (8.0, 16.0))
    made = animation([raw], geometry=geometry)
    write_report(made, tmp_path / "a.html", size=64, opacity=0.25)
    browser.open(tmp_path / "a.html")
    pixels = browser.pixels(0)
    image = np.repeat(made.image[..., None].astype(np.int64), 3, axis=2)
    covered = np.zeros((48, 64), bool)
    covered[8:24, 16:48] = True
    assert (pixels[~covered] == image[~covered]).all()
    browser.choose("shown", "map")
    only = browser.pixels(0)
    assert_colors(
        only[8:24, 16:48], interpolated((raw - raw.min()) / (raw.max() - raw.min()), (16, 32))
    )
    blended = 0.75 * image[covered] + 0.25 * only[covered]
    assert np.abs(pixels[covered] - blended).max() <= 2
    browser.choose("shown", "image")
    assert (browser.pixels(0) == image).all()


def test_signed_maps_have_diverging_colours(browser: Browser, tmp_path: Path) -> None:
    maps = random_maps(3)
    write_report(animation(maps), tmp_path / "a.html", size=64, signed=True)
    browser.open(tmp_path / "a.html")
    browser.wait("document.querySelector('canvas').dataset.drawn")
    browser.choose("shown", "map")
    for normalization in ("local", "global"):
        browser.choose("scale", normalization)
        for i, raw in enumerate(maps):
            browser.set("input.layer", i + 1)
            chosen = maps if normalization == "global" else [raw]
            largest = max(np.abs(m).max() for m in chosen)
            shares = 0.5 + 0.5 * interpolated(raw / largest, (48, 64))
            assert_colors(browser.pixels(i), shares, "berlin")


def test_a_volume_has_a_slider_over_its_planes(browser: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (10, 24, 32), np.uint8)
    raw = rng.random((10, 6, 8))
    made = animation([raw, raw[::-1]], image=image, geometry=Geometry((10, 24, 32)))
    write_report(made, tmp_path / "a.html", size=64, planes=4)
    browser.open(tmp_path / "a.html")
    browser.wait("document.querySelector('canvas').dataset.drawn")
    browser.choose("shown", "map")
    planes = json.loads(browser.script("return document.getElementById('r1-data').textContent"))[
        "planes"
    ]
    assert len(planes) == 4
    assert 5 in planes
    for k, z in enumerate(planes):
        browser.set("input.plane", k)
        shares = (raw[::-1][z] - raw.min()) / (raw.max() - raw.min())
        assert_colors(browser.pixels(1, k), interpolated(shares, (48, 64)))
        shown = browser.script(
            "return [...document.querySelectorAll('img[data-plane]')].filter((i) => i.checkVisibility())"
            ".map((i) => i.alt)"
        )
        assert len(shown) == 1
        assert str(z) in shown[0]


@pytest.fixture(scope="module")
def scored() -> Animation:
    made = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), layers="blocks"
    )
    made.score(repeats=2)
    made.check_labels()
    made.localise(samples.mask("malignant_1"))
    return made


@pytest.fixture(scope="module")
def page(scored: Animation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of two results and one error."""
    path = tmp_path_factory.mktemp("report") / "two.html"
    other = animation(random_maps(), name="other")
    return write_report(
        {"first": scored, "second": other}, path, errors={"/home/someone/c.png": "it is empty"}
    )


def test_nothing_is_requested_and_the_console_is_empty(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait("document.querySelector('#r1 canvas').dataset.drawn")
    for _ in range(3):
        browser.script("document.querySelector('#r1 .next').click()")
    browser.script("document.querySelector('#r2').scrollIntoView()")
    browser.wait("document.querySelector('#r2 canvas').dataset.drawn")
    messages, addresses = browser.logs()
    assert messages == []
    assert page.as_uri() in addresses
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data", "blob"}
    assert [a for a in addresses if a.startswith("file")] == [page.as_uri()]


def test_the_policy_prevents_requests_and_scripts_of_others(browser: Browser, page: Path) -> None:
    browser.open(page)
    blocked = browser.driver.execute_async_script(
        """
        const done = arguments[0], found = [];
        document.addEventListener("securitypolicyviolation", (event) => {
          found.push(event.effectiveDirective);
          if (found.length === 4) done(found);
        });
        const add = (name, values) => {
          document.body.append(Object.assign(document.createElement(name), values));
        };
        add("img", {src: "http://127.0.0.1:9/a.png"});
        add("script", {textContent: "window.hacked = 3"});
        add("style", {textContent: "body { color: red }"});
        fetch("http://127.0.0.1:9/").catch(() => null);
        """
    )
    assert {name.removesuffix("-elem") for name in blocked} == {
        "img-src", "script-src", "style-src", "connect-src",
    }  # fmt: skip
    assert browser.script("return window.hacked") is None


def test_tables_sort_and_missing_values_are_last(
    browser: Browser, page: Path, scored: Animation
) -> None:
    browser.open(page)
    names = browser.script(
        "return [...document.querySelectorAll('#r1-table th')].map((h) => h.textContent)"
    )
    rows = scored.table()
    assert len(names) >= 15
    for column in ("ROAD", "parameters", "kind"):
        k = names.index(column)
        known = [row[column] for row in rows if row[column] is not None]
        for reverse in (False, True):
            browser.script(
                f"document.querySelectorAll('#r1-table th')[{k}].querySelector('button').click()"
            )
            shown = browser.script(
                "return [...document.querySelectorAll('#r1-table tbody tr')]"
                f".map((r) => [r.cells[{k}].dataset.value ?? null, r.cells[{k}].innerText])"
            )
            values = [v if column == "kind" else v and float(v) for v, v2 in shown]
            if column == "kind":
                values = [text for _, text in shown]
                assert [v.lower() for v in values] == sorted(
                    (v.lower() for v in known), reverse=reverse
                )
            else:
                assert values[: len(known)] == sorted(known, reverse=reverse)
                assert values[len(known) :] == [None] * (len(rows) - len(known))
            direction = browser.script(
                f"return document.querySelectorAll('#r1-table th')[{k}].ariaSort"
            )
            assert direction == ("descending" if reverse else "ascending")
    # Failed images stay at the end of the overview.
    for _ in range(2):
        browser.script("document.querySelector('#overview th:nth-child(2) button').click()")
        last = browser.script(
            "return document.querySelector('#overview tbody').lastElementChild.innerText"
        )
        assert "c.png" in last
        assert "it is empty" in last


def test_rows_curve_keys_and_buttons_move_the_slider(
    browser: Browser, page: Path, scored: Animation
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    browser.wait("document.querySelector('#r1 canvas').dataset.drawn")
    layer = "Number(document.querySelector('#r1 input.layer').value) - 1"
    assert browser.script(f"return {layer}") == scored.initial_index
    browser.script("document.querySelector('#r1-table a[data-place=\"3\"]').click()")
    assert browser.script(f"return {layer}") == 3
    slider = browser.driver.switch_to.active_element
    slider.send_keys(Keys.ARROW_RIGHT)
    assert browser.script(f"return {layer}") == 4
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert browser.script(f"return {layer}") == 2
    browser.script("document.querySelector('#r1 .next').click()")
    assert browser.script(f"return {layer}") == 3
    marked = browser.script("return document.querySelector('#r1-table tr.current').innerText")
    assert scored.layers[3].label in marked
    # A click where the cursor of layer 7 is.
    browser.set("input.layer", 8)
    place = "document.querySelector('#r1 .cursor line').getBoundingClientRect()"
    browser.script("document.querySelector('#r1 .chart').scrollIntoView({block: 'center'})")
    x = browser.script(f"return {place}.x")
    browser.set("input.layer", 1)
    assert browser.script(f"return {place}.x") < x
    chart = browser.driver.find_element("css selector", "#r1 .chart")
    left, width = browser.script(
        "const b = arguments[0].getBoundingClientRect(); return [b.x, b.width]", chart
    )
    ActionChains(browser.driver).move_to_element_with_offset(
        chart, round(x - left - width / 2), 0
    ).click().perform()
    assert browser.script(f"return {layer}") == 7
    browser.script("document.querySelector('#r1 .play').click()")
    browser.wait(f"{layer} !== 7")


def test_the_cursor_is_at_the_value_of_the_layer(browser: Browser, tmp_path: Path) -> None:
    made = animation(random_maps(24))
    made.add(_finding(made, {"value": np.random.default_rng(0).random(24)}))
    write_report(made, tmp_path / "a.html")
    browser.open(tmp_path / "a.html")
    browser.wait("document.querySelector('#r1 canvas').dataset.drawn")
    lines = browser.script(
        "return [...document.querySelectorAll('.chart path')].map((p) => p.getAttribute('d') ?? '')"
    )
    points = [re.findall(r"[ML] ([\d.-]+) [\d.-]+", line) for line in lines]
    xs = next([float(x) for x in line] for line in points if len(line) == 24)
    for i in (0, 11, 23):
        browser.set("input.layer", i + 1)
        at = browser.script("return document.querySelector('.cursor line').getAttribute('x1')")
        assert float(at) == pytest.approx(xs[i], abs=0.5)


def test_names_with_html_are_text(browser: Browser, tmp_path: Path) -> None:
    made = animation(random_maps(), name=HOSTILE, labels=HOSTILE, method=HOSTILE)
    made.notes.append(HOSTILE)
    made.provenance |= {"model": HOSTILE, "torch": HOSTILE, "target": {"name": HOSTILE}}
    columns = {HOSTILE: np.arange(6.0)}
    made.add(_finding(made, columns))
    path = write_report({HOSTILE: made, "b": made}, tmp_path / "a.html", errors={HOSTILE: HOSTILE})
    browser.open(path)
    browser.wait("document.querySelector('#r1 canvas').dataset.drawn")
    browser.set("input.layer", 2)
    browser.pixels(1)
    assert browser.script("return window.hacked") is None
    messages, addresses = browser.logs()
    assert messages == []
    assert not [a for a in addresses if a.startswith("file") and a != path.as_uri()]
    assert browser.script("return document.querySelector('#r1 .class').textContent") == HOSTILE
    name = browser.script("return document.querySelector('.overlay figcaption strong').textContent")
    assert name == f"{HOSTILE}1"
    assert browser.script("return document.querySelectorAll('[onerror]').length") == 0
    # The page: an overview, two results and limits, none of which ends early.
    assert browser.script("return document.querySelectorAll('main > section').length") == 4


def _finding(made: Animation, columns: dict[str, Any]) -> Any:
    from dataclasses import dataclass

    from camanim.findings import Finding

    @dataclass(frozen=True)
    class Hostile(Finding):
        kind = "hostile"
        title = HOSTILE

        def columns(self) -> dict[str, Any]:
            return columns

    return Hostile(made.layers)


def test_without_scripts_the_page_shows_pictures(browser: Browser, page: Path) -> None:
    visible = (
        "JSON.stringify(['.strip', '.controls', 'canvas', '.strip img', '.image img', '#r1-table']"
        ".map((s) => document.querySelector(s).checkVisibility()))"
    )
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        answer = browser.command("Runtime.evaluate", expression=visible)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert json.loads(answer["result"]["value"]) == [True, False, False, True, True, True]
    browser.open(page)
    browser.wait("document.querySelector('canvas').dataset.drawn")
    assert json.loads(browser.script(f"return {visible}")) == [False, True, True, False, True, True]
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert json.loads(browser.script(f"return {visible}")) == [
            True, False, False, True, True, True,
        ]  # fmt: skip
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const background = (e) => {
  for (; e; e = e.parentElement) {
    const color = parse(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const found = {};
for (const e of document.body.querySelectorAll("*")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.closest("script, svg")) continue;
  const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(background(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found[`${e.tagName}.${e.className}`] = ratio;
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_and_fits_a_phone(
    browser: Browser, page: Path, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.command("Emulation.setEmulatedMedia", features=features)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.command("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.open(page)
        browser.wait("document.querySelector('canvas').dataset.drawn")
        dark = browser.script(
            "return getComputedStyle(document.body).backgroundColor !== 'rgb(255, 255, 255)'"
        )
        assert dark == (scheme == "dark")
        assert browser.script(CONTRAST) == {}
        assert browser.script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")
        browser.command("Emulation.setEmulatedMedia", features=[])


def test_nothing_plays_for_those_who_prefer_reduced_motion(browser: Browser, page: Path) -> None:
    shown = "document.querySelector('.play').checkVisibility()"
    browser.open(page)
    browser.wait(f"document.querySelector('canvas').dataset.drawn && {shown}")
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.command("Emulation.setEmulatedMedia", features=features)
    try:
        browser.open(page)
        browser.wait("document.querySelector('canvas').dataset.drawn")
        assert not browser.script(f"return {shown}")
    finally:
        browser.command("Emulation.setEmulatedMedia", features=[])


# -- The file --------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_identifiers_are_unique_and_pictures_described(page: Path) -> None:
    elements = Elements(page.read_text("utf-8")).elements
    ids = Counter(a["id"] for _, a in elements if "id" in a)
    assert ids
    assert max(ids.values()) == 1
    for tag, attributes in elements:
        for name in ("aria-labelledby", "href", "xlink:href"):
            value = attributes.get(name)
            if value is not None:
                assert value.removeprefix("#") in ids
        assert tag != "img" or "alt" in attributes
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    headings = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


def test_the_page_tells_what_was_found_and_what_was_not(page: Path, scored: Animation) -> None:
    import html

    text = html.unescape(page.read_text("utf-8"))
    for finding in scored.findings.values():
        for sentence in (finding.summary(), *finding.warnings()):
            assert sentence in text
    assert "No check was run" in text
    assert "Not for diagnosis" in text
    for name in ("weights sha256", "image sha256"):
        assert scored.provenance[name] in text
    assert "/home/someone" not in text


def test_warnings_of_failed_checks_random_weights_and_cancelled_runs(tmp_path: Path) -> None:
    made = animation([np.full((4, 4), 3.0), np.full((4, 4), -1.0), np.zeros((2, 2))])
    made.provenance["weights"] = "random"
    made.layer_calls = [*made.layers, replace(made.layers[0], index=9, status="cancelled")]
    text = write_report(made, tmp_path / "a.html").read_text("utf-8")
    assert "random weights" in text
    assert "cancelled" in text
    assert "2 of 3 layers have no positive evidence" in text
    assert "random weights" in made._repr_html_()


def test_windows_have_a_report(tmp_path: Path) -> None:
    image = np.kron(samples.image("malignant_1"), np.ones((1, 2), np.uint8))
    made = camanim.animate_windows(
        camanim.load_model("demo/ultrasound"), image, size=128, overlap=0, layers="blocks"
    )
    text = write_report(made, tmp_path / "a.html").read_text("utf-8")
    assert "8 of 8 windows" in text
    assert "animate_windows" in text
    assert "windows" in made._repr_html_()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("/home/some body/images/a.png cannot be read: see energy / area", "some body"),
        (r"C:\Users\somebody\a.png cannot be read", "somebody"),
        (r"\\server\somebody\a.png", "somebody"),
        ("'/home/somebody/a.png'", "somebody"),
        ("file:///home/somebody/a.png", "somebody"),
        ("~somebody/x/a.png", "somebody"),
        ("/data/pat, somebody/a.png", "somebody"),
        ("/data/O'somebody/a.png cannot be read: it is empty", "somebody"),
        ("'/data/O'somebody/a.png' is empty; use 'b/c'", "somebody"),
        ("/data/x (somebody)/a.png", "somebody"),
        ("There is no file /data/x; somebody: y|z  w/a.png.", "somebody"),
        (r"C:\pat, somebody; (2)\x\a.png and 1 / 2", "somebody"),
        ("file:///data/pat, somebody/a.png", "somebody"),
        ("/data/a.somebody, 1950/a.png", "somebody"),
        ("/data/b.png has 3 rows, /data/pat, somebody/a.png has 4", "somebody"),
    ],
)
def test_paths_lose_their_folders(name: str, folder: str) -> None:
    assert folder not in without_folders(name)
    assert "a.png" in without_folders(name)
    assert name.partition("a.png")[2] == without_folders(name).partition("a.png")[2]


@pytest.mark.parametrize(
    "text",
    ["demo/ultrasound", "energy / area", "1/2", "images/a.png", "a: b", "p <= 0.05 / 3", "//"],
)
def test_other_text_stays(text: str) -> None:
    assert without_folders(text) == text


@pytest.mark.parametrize(
    "folder",
    ["pat, Jane", "O'Jane", "x (Jane)", "a; Jane: b | c  d", "'Jane", "Jane.dcm and b", 'Jane "'],
)
@pytest.mark.parametrize("pattern", ["/data/{}/x y, z.png", "C:\\data\\{}\\x y, z.png"])
def test_an_absolute_path_has_only_its_name(folder: str, pattern: str, tmp_path: Path) -> None:
    path = pattern.format(folder)
    assert file_name(path) == "x y, z.png"
    made = animation(random_maps(), provenance={"model": path, "mask": [path]})
    page = write_report({path: made}, tmp_path / "a.html", errors={path: f"{path} is empty"})
    assert "Jane" not in page.read_text("utf-8")
    assert "Jane" not in made._repr_html_()


def test_two_paths_in_a_line_keep_both_names() -> None:
    text = "/data/pat, Jane/a.png has 3 rows, /data/O'Jane/b.png has 4 / 5: see https://x.org/y"
    assert without_folders(text).startswith("a.png has 3 rows, b.png has 4 / 5: see https:")
    quoted = "/data/a.png is neither 'b/c' nor \"d/e\"; /data/pat, Jane/b.png"
    assert without_folders(quoted) == "a.png is neither 'b/c' nor \"d/e\"; b.png"
    assert without_folders(f"{text}\n{text}").count("b.png has 4") == 2


def test_the_call_computes_the_same_maps(scored: Animation, tmp_path: Path) -> None:
    settings = {"layers": ["features.transition1", "features.norm5"], "fit": "crop", "seed": 3}
    image = samples.image("malignant_1")
    made = camanim.animate(
        camanim.load_model("demo/ultrasound"), image, method="LayerCAM", target="benign", **settings
    )
    made.score(draws=4)
    code = recomputation(made)
    file = tmp_path / "image.npy"
    np.save(file, image)
    names: dict[str, Any] = {"load": np.load, "file": file}
    exec(code.replace("camanim.read_image('IMAGE')", "load(file)"), names)
    again = names["animation"]
    assert [x.label for x in again.layers] == settings["layers"]
    for a, b in zip(made.maps, again.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.road.parameters == made.road.parameters
    np.testing.assert_array_equal(again.road.scores, made.road.scores)
    names.clear()
    compile(recomputation(scored), "recomputation", "exec")


@pytest.mark.parametrize(
    "made",
    [
        animation(random_maps(), name="a\n'b\"", provenance={}),
        animation(random_maps(), provenance={"model": "My\nNet", "layers": "<lambda>", "windows": {}}),
        animation(random_maps(), target=camanim.targets.ClassTarget(1, "a", of="probability")),
    ],
)  # fmt: skip
def test_the_call_is_python_for_any_record(made: Animation) -> None:
    compile(recomputation(made), "recomputation", "exec")


def test_many_large_maps_are_reduced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [np.maximum(rng.normal(size=(224, 224)), 0).astype(np.float32)] * 600
    stages: list[tuple[str, int, int]] = []
    path = write_report(
        animation(maps), tmp_path / "a.html", progress=lambda *stage: stages.append(stage)
    )
    # Noise, which cannot be compressed: 2**22 cells are 5.6 MB in base64.
    assert path.stat().st_size < 8e6
    assert "Reduced maps" in path.read_text("utf-8")
    assert stages == [("report", 1, 1)]
    write_report(animation(maps), path, max_layers=7)
    data = re.search(r'id="r1-data">(.*?)</script>', path.read_text("utf-8"))[1]
    numbers = [layer["number"] for layer in json.loads(data)["layers"]]
    assert len(numbers) == 7
    assert 599 in numbers


def test_selections_have_the_wanted_number_and_layers() -> None:
    for count in (1, 5, 24, 25, 600):
        for wanted in (0, count // 3, count - 1):
            chosen = evenly(count, 24, wanted)
            assert wanted in chosen
            assert chosen == sorted(set(chosen))
            assert len(chosen) == min(count, 24)
    shapes = [(224, 224)] * 10 + [(7, 7)] * 3
    assert longest_side(shapes, 512, 10**9) == 512
    side = longest_side(shapes, 512, 100_000)
    assert 10 * side**2 + 3 * 49 <= 100_000 < 10 * (side + 1) ** 2 + 3 * 49
    assert longest_side(shapes, 512, 1) == 16


def test_wrong_input_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    made, path = animation(random_maps()), tmp_path / "a.html"
    wrong: list[Callable[[], Any]] = [
        lambda: write_report(made, tmp_path / "a.txt"),
        lambda: write_report(made, path, opacity=2),
        lambda: write_report(made, path, max_layers=0),
        lambda: write_report(made, path, colormap="no such map"),
        lambda: write_report(made, path, normalization="none"),
        lambda: write_report({}, path),
        lambda: write_report(3, path),
        lambda: write_report([made, "x"], path),
        lambda: write_report(replace(made, maps=[], layers=[]), path),
    ]
    for call in wrong:
        with pytest.raises(RenderError):
            call()

    def cancel(*_: Any) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        write_report(made, path, progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_only_errors_have_a_report(tmp_path: Path) -> None:
    path = write_report({}, tmp_path / "a.html", errors={"a.png": "it is empty"})
    assert "it is empty" in path.read_text("utf-8")


def test_equal_names_are_kept_apart(tmp_path: Path) -> None:
    made = animation(random_maps())
    path = write_report({"/x/a.png": made, "/y/a.png": made}, tmp_path / "a.html")
    text = path.read_text("utf-8")
    assert ">a.png<" in text
    assert ">a.png (2)<" in text
    errors = {"/x/a.png": "it is empty", "/y/a.png": "it is damaged"}
    for results, names in (
        ({}, ("a.png", "a.png (2)")),
        ({"/z/a.png": made}, ("a.png (2)", "a.png (3)")),
    ):
        text = write_report(results, tmp_path / "b.html", errors=errors).read_text("utf-8")
        for name, message in zip(names, errors.values(), strict=True):
            assert re.search(rf"{re.escape(name)}\W[^\n]*\s*[^\n]*{message}", text)


@pytest.mark.parametrize("what", ["none", "thumbnail"])
def test_a_report_says_that_the_image_is_missing(tmp_path: Path, what: str) -> None:
    image = samples.image("malignant_1")
    made = camanim.animate(camanim.load_model("demo/ultrasound"), image, layers="blocks")
    loaded = camanim.load(made.save(tmp_path / "a.camanim.zip", image=what))
    text = write_report(loaded, tmp_path / "a.html").read_text("utf-8")
    caption = re.search("<figcaption>Image.*?</figcaption>", text)[0]
    assert loaded.image_note in caption
    assert loaded.image_note in loaded._repr_html_()
    text = write_report(made, tmp_path / "a.html").read_text("utf-8")
    assert "file does not hold" not in text


def test_a_plane_has_the_same_words_everywhere(tmp_path: Path) -> None:
    maps = np.full((2, 3, 4, 4), -1.0)
    maps[0, 0, 1, 1] = 2
    image = np.zeros((9, 48, 48), np.uint8)
    made = animation(list(maps), image=image, geometry=Geometry(image.shape))
    for text in (write_report(made, tmp_path / "a.html").read_text("utf-8"), made._repr_html_()):
        assert "plane 4 of 0 to 8" in text
        assert text.count("no positive evidence in this plane") == 1
        # Of the second layer, which has none in any plane.
        assert re.search(r"no positive evidence(?! in| for)", text)


# -- Notebooks -------------------------------------------------------------------------------------


def test_notebooks_show_a_small_static_summary(scored: Animation) -> None:
    text = scored._repr_html_()
    assert len(text) < 150_000
    elements = Elements(text).elements
    tags = Counter(tag for tag, _ in elements)
    assert not tags["script"]
    assert tags["img"] == 8
    sources = [a["src"] for tag, a in elements if tag == "img"]
    assert all(source.startswith("data:image/") for source in sources)
    assert scored.target.name in text
    assert scored.layers[scored.initial_index].label in text


def test_notebook_html_of_any_result() -> None:
    hostile = animation(random_maps(), name=HOSTILE, labels=HOSTILE)
    hostile.notes.append(HOSTILE)
    tags = Counter(tag for tag, _ in Elements(hostile._repr_html_()).elements)
    assert (tags["script"], tags["img"]) == (0, 6)
    volume = animation(
        [np.ones((3, 4, 4))], image=np.zeros((9, 8, 8), np.uint8), geometry=Geometry((9, 8, 8))
    )
    assert "middle plane" in volume._repr_html_()
    assert "no map" in replace(volume, maps=[], layers=[])._repr_html_()
    unnamed = replace(volume, provenance={})
    assert "network" in unnamed._repr_html_()
    assert "Jane" not in replace(volume, provenance={"model": "/data/pat, Jane/x.pt"})._repr_html_()
    many = animation([np.random.default_rng(0).random((112, 112))] * 600)
    assert len(many._repr_html_()) < 150_000


def test_notebook_html_computes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made = camanim.animate(net, np.zeros((16, 16), np.uint8))
    calls = []
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    made._repr_html_()
    handle.remove()
    assert calls == []
    assert made.findings == {}
