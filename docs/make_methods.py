"""Fill in the tables of the docs from the code, and draw the figures of the methods' pages.

    python docs/make_methods.py           # tables and pictures
    python docs/make_methods.py --tables  # tables only: a second

The text between ``<!-- made: NAME -->`` and ``<!-- end -->`` in a page is generated: the facts of a
method by its name, and the tables ``methods``, ``ingredients`` and ``settings`` (of `camanim.animate`).
The figures need only the demo network and a sample image.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from cmap import Colormap
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

import camanim
from camanim import samples
from camanim.cam_methods import Method
from camanim.cam_methods.method import INGREDIENTS
from camanim.declarations import settings_of
from camanim.settings import Settings, WindowSettings
from camanim.stack import upsample

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
#: The page of each family, by the module of its methods.
PAGES = {
    "gradient": "gradient",
    "eigen": "principal-components",
    "activation": "activations",
    "perturbation": "perturbation",
    "guided": "guided",
    "meta": "combined",
    "baseline": "baselines",
}
MADE = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)

#: Early, middle and late batch normalisations; every family has maps of them.
LAYERS = ("features.norm0", "features.transition2.norm", "features.norm5")
SAMPLE = "malignant_1"
COLORS = np.uint8(255 * Colormap("turbo").lut(256)[:, :3])
TILE, GAP, LINE, WIDEST = 128, 6, 18, 5


def shipped() -> dict[str, Method]:
    """Return the methods of the package, without those of grad-cam."""
    return {name: m for name, m in camanim.methods().items() if not m.source}


def page_of(method: Method) -> str:
    """Return the name of the page that describes a method."""
    return PAGES[method.function.__module__.rpartition(".")[2]]


# -- Tables ----------------------------------------------------------------------------------------


def filled(text: str) -> str:
    """Return the text of a page with its generated parts filled in."""
    return MADE.sub(lambda match: f"{match[1]}{_made(match[2])}{match[3]}", text)


def _made(name: str) -> str:
    if name == "methods":
        return _all_methods()
    if name == "ingredients":
        return _table(["name", "value"], [[f"`{n}`", text] for n, text in INGREDIENTS.items()])
    if name == "settings":
        return _settings(Settings)
    if name == "windows":
        return _settings(WindowSettings)
    return _facts(shipped()[name])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell or ' ' for cell in line)} |\n" for line in lines)


def _all_methods() -> str:
    rows = [
        [
            f"[{name}]({page_of(method)}.md#{_anchor(method)})",
            _yes(method.class_specific),
            "as its base" if method.meta else _yes(method.needs_gradient),
            method.cost,
            method.summary,
            method.caveat,
        ]
        for name, method in shipped().items()
    ]
    head = ["method", "class", "gradients", "cost in passes", "map", "caveat"]
    return _table(head, rows)


def _facts(method: Method) -> str:
    options = [
        f"`{o.name}={o.default:.3g}`: {_plain(o.help)}"
        if isinstance(o.default, float)
        else f"`{o.name}={o.default}`: {_plain(o.help)}"
        for o in method.options.values()
    ]
    facts = {
        "shows": method.summary,
        "caveat": method.caveat,
        "class-specific": _yes(method.class_specific),
        "cost": method.cost,
        "options": "<br>".join(options) or "none",
        "also called": ", ".join(method.aliases),
        "paper": method.paper,
    }
    return _table([" ", " "], [[f"*{key}*", value] for key, value in facts.items() if value])


def _settings(declared: type) -> str:
    """Return declarations of settings as a table."""
    rows = [
        [
            f"`{setting.name}`",
            setting.expected,
            f"`{getattr(setting.default, '__name__', repr(setting.default))}`",
            _plain(setting.help),
        ]
        for setting in settings_of(declared).values()
    ]
    return _table(["setting", "value", "default", "effect"], rows)


def _plain(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def anchors(text: str) -> dict[str, str]:
    """Return the anchor that GitHub makes of each title of a page."""
    links: dict[str, str] = {}
    fences = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    for title in re.findall(r"^#+ (.+)$", fences.sub("", text), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        same = sum(re.fullmatch(rf"{kept}(-\d+)?", other) is not None for other in links.values())
        links[title] = f"{kept}-{same}" if same else kept
    return links


def _anchor(method: Method) -> str:
    page = DOCS / "methods" / f"{page_of(method)}.md"
    known = anchors(page.read_text(encoding="utf-8"))
    if method.name not in known:
        raise SystemExit(
            f"{page.relative_to(DOCS.parent)} has no section {method.name!r}: write it first, "
            f"with the lines '## {method.name}', '<!-- made: {method.name} -->' and '<!-- end -->'."
        )
    return known[method.name]


# -- Figures ---------------------------------------------------------------------------------------


class Sheet:
    """A grid of maps: a column for each method, a row for each layer."""

    def __init__(self, columns: int, title: str) -> None:
        self.columns = columns
        bands = -(-columns // WIDEST)
        self._band = 2 * LINE + len(LAYERS) * (TILE + LINE)
        # At least four columns, so that the title and the names of layers fit.
        width = (min(max(columns, 3), WIDEST) + 1) * (TILE + GAP) + GAP
        self.picture = Image.new("RGB", (width, 2 * LINE + bands * self._band), "white")
        self._pen = ImageDraw.Draw(self.picture)
        self._font, self._small = ImageFont.load_default(12), ImageFont.load_default(11)
        self._pen.multiline_text((GAP, 3), title, "black", self._small)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Return the upper left corner of a tile; column -1 is that of the image."""
        band, place = divmod(max(column, 0), WIDEST)
        x = GAP + (0 if column < 0 else place + 1) * (TILE + GAP)
        return x, 2 * LINE + band * self._band + 2 * LINE + row * (TILE + LINE)

    def head(self, column: int, text: str) -> None:
        """Write a column's title."""
        x, y = self.corner(column, 0)
        self._pen.text((x, y - 2 * LINE + 2), text, "black", self._font)

    def rows(self, labels: list[str]) -> None:
        """Write the layers' names above their rows, in each band."""
        for column in range(0, self.columns, WIDEST):
            for row, label in enumerate(labels):
                self.label(column, row, label)

    def label(self, column: int, row: int, text: str) -> None:
        """Write text above a tile."""
        x, y = self.corner(column, row)
        self._pen.text((x, y - LINE + 3), text, "#555555", self._small)

    def tile(self, column: int, row: int, tile: Image.Image, words: str = "") -> None:
        """Place a map, with text over it."""
        at = self.corner(column, row)
        self.picture.paste(tile.resize((TILE, TILE), Image.Resampling.BICUBIC), at)
        if words:
            middle = (at[0] + TILE // 2, at[1] + TILE // 2)
            wrapped = re.sub(r"(.{8,}?) ", r"\1\n", words)
            self._pen.multiline_text(middle, wrapped, "#555555", self._small, "mm", align="center")

    def save(self, path: Path) -> None:
        """Write the sheet with a palette: 192 colours of maps and 64 greys."""
        greys = np.repeat(np.linspace(0, 255, 64), 3).reshape(64, 3)
        colors = np.uint8(np.concatenate([greys, COLORS[::4], COLORS[1::2]]))
        nearest = cKDTree(colors.astype(float)).query(np.asarray(self.picture, float))[1]
        reduced = Image.fromarray(np.uint8(nearest))
        reduced.putpalette(colors.tobytes())
        reduced.save(path, optimize=True)


def draw(page: str, model: camanim.Model) -> Path:
    """Draw the figure of one family's page."""
    image, mask = samples.image(SAMPLE), samples.mask(SAMPLE)
    assert mask is not None
    animations = {
        name: camanim.animate(model, image, method=method, layers=LAYERS)
        for name, method in shipped().items()
        if page_of(method) == page
    }
    first = next(iter(animations.values()))
    label = f"{first.target.name}, probability {first.probability:.2f}"
    title = f"{model.name}, {SAMPLE}: {label}\nWhite: the lesion. Each map is on its own scale."
    sheet = Sheet(len(animations), title)
    sheet.tile(-1, 0, _outlined(Image.fromarray(image).convert("RGB"), mask))
    sheet.head(-1, "image")
    shown = [layer for layer in first.layer_calls if layer.name in LAYERS]
    sizes = [" x ".join(map(str, (layer.shape or ())[-2:])) for layer in shown]
    sheet.rows([f"{x.name}, {x.kind}, {s}" for x, s in zip(shown, sizes, strict=True)])
    for column, (name, animation) in enumerate(animations.items()):
        sheet.head(column, name)
        stack = animation.stack("local")
        places = {layer.name: i for i, layer in enumerate(animation.layers)}
        for row, layer in enumerate(LAYERS):
            if layer in places:
                sheet.tile(column, row, _outlined(_coloured(stack[places[layer]]), mask))
            else:
                [status] = [x.status for x in animation.layer_calls if x.name == layer]
                sheet.tile(column, row, Image.new("RGB", (TILE, TILE), "#eeeeee"), status)
        if animation.guided is not None and column == 0:
            sheet.tile(-1, 1, _grey(animation.guided[0].sum(0).numpy()))
            sheet.label(-1, 1, "guided gradient")
    path = IMAGES / f"methods-{page}.png"
    sheet.save(path)
    return path


def _coloured(plane: np.ndarray) -> Image.Image:
    return Image.fromarray(COLORS[np.uint8(255 * plane)])


def _grey(plane: np.ndarray) -> Image.Image:
    scaled = plane / np.percentile(np.abs(plane), 99.5)
    return Image.fromarray(np.uint8(127.5 + 127.5 * scaled.clip(-1, 1)))


def _outlined(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Draw the lesion's border, one pixel of the tile wide."""
    inside = upsample(mask.astype(np.float32), (TILE, TILE)) > 0.5
    steps = (np.roll(inside, step, axis) for axis in (0, 1) for step in (-1, 1))
    border = inside & ~np.logical_and.reduce(list(steps))
    tile = np.array(picture.resize((TILE, TILE), Image.Resampling.BICUBIC))
    tile[border] = 255
    return Image.fromarray(tile)


def main() -> None:
    """Fill in the tables; draw the figures unless ``--tables`` is given."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (fresh := filled(text)) != text:
            path.write_text(fresh, encoding="utf-8")
            print(f"Filled in {path}")
    if "--tables" not in sys.argv:
        IMAGES.mkdir(exist_ok=True)
        model = camanim.load_model("demo/ultrasound")
        for page in PAGES.values():
            print(f"Wrote {draw(page, model)}")


if __name__ == "__main__":
    main()
