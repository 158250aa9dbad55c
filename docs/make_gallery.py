"""Rebuild the gallery of figures: ``docs/gallery.md`` and its pictures.

    python docs/make_gallery.py                # all of them: some minutes
    python docs/make_gallery.py strip curve    # the pictures of some figures, and the page

The page shows the very code that makes each picture. It needs torchvision's MobileNetV2 (downloaded on
first use, or taken from ``TORCH_HOME``); the photograph is scikit-image's ``chelsea`` (CC0). Other
networks have random weights, and are used for parameters and times only. Captions of pictures that are
not made again are read from the page.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from camanim.figures import PrintedFigure, figure_kinds

DOCS = Path(__file__).parent
PAGE, FOLDER = DOCS / "gallery.md", DOCS / "images" / "gallery"
#: Resolution of the pictures: those of 174 mm have 959 pixels.
DPI = 140
#: Plots without pictures have fewer colours.
FEW_COLORS = 4096

SETUP = """\
from skimage import data

import camanim
from camanim import figures, samples

cat = data.chelsea()
lesion = samples.image("malignant_1")
mobilenet = camanim.load_model("torchvision/mobilenet_v2")
demo = camanim.load_model("demo/ultrasound")
"""


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery.

    Attributes
    ----------
    file : str
        Name of the picture without its suffix.
    figure : str
        Name of the registered figure.
    text : str
        What is to be seen, one sentence.
    code : str
        Assigns `figure`.
    """

    file: str
    figure: str
    text: str
    code: str


PAPER = "In Kaczmarek et al. 2024:"
SECOND = "In class-activation-mapping:"

ENTRIES = (
    Entry(
        "strip",
        "strip",
        "Every tenth percentile of all 149 layers.",
        'figure = camanim.animate(mobilenet, cat).figure("strip", step=10)',
    ),
    Entry(
        "strip-methods",
        "strip",
        f"{PAPER} every tenth percentile of the layers, for all CAMs.",
        """\
methods = "GradCAM HiResCAM GradCAMElementWise GradCAM++ XGradCAM LayerCAM EigenCAM".split()
methods += ["EigenGradCAM", "AblationCAM", "ScoreCAM", "RandomCAM"]
figure = camanim.make_figure("strip", cat, mobilenet, methods, run={"layers": "blocks"}, step=10)""",
    ),
    Entry(
        "sheet",
        "sheet",
        f"{SECOND} all blocks of a network, there of ResNet50; here of MobileNetV2.",
        'figure = camanim.make_figure("sheet", cat, mobilenet, run={"layers": "blocks"})',
    ),
    Entry(
        "stages-networks",
        "stages",
        f"{PAPER} initial, middle and final layer of several networks, by HiResCAM.",
        """\
results = [
    camanim.animate(mobilenet, cat, method="HiResCAM"),
    camanim.animate(demo, lesion, method="HiResCAM"),
]
figure = figures.stages(results, width=85)""",
    ),
    Entry(
        "stages-methods",
        "stages",
        "The same of several methods.",
        """\
figure = camanim.make_figure(
    "stages", cat, mobilenet, ["GradCAM", "HiResCAM", "LayerCAM", "EigenCAM", "RandomCAM"]
)""",
    ),
    Entry(
        "matrix-method-layer",
        "matrix",
        "Method x layer; CAM has a map of the layer before the pooling only.",
        """\
figure = camanim.make_figure(
    "matrix", lesion, demo, ["GradCAM", "HiResCAM", "LayerCAM", "CAM"], signed=True
)""",
    ),
    Entry(
        "matrix-network-method",
        "matrix",
        "Network x method, each network with its image and its likeliest class.",
        """\
results = [
    camanim.animate(model, image, method=method)
    for model, image in ((mobilenet, cat), (demo, lesion))
    for method in ("GradCAM", "LayerCAM", "EigenCAM")
]
figure = figures.matrix(results, rows="network", columns="method", width=85)""",
    ),
    Entry(
        "matrix-class-layer",
        "matrix",
        "Class x layer.",
        """\
figure = camanim.make_figure(
    "matrix", lesion, demo, targets=["normal", "benign", "malignant"], rows="class"
)""",
    ),
    Entry(
        "local-global",
        "local_global",
        f"{PAPER} local beside global normalisation.",
        'figure = camanim.make_figure("local_global", lesion, demo)',
    ),
    Entry(
        "classes",
        "classes",
        f"{SECOND} the likeliest classes.",
        'figure = camanim.make_figure("classes", cat, mobilenet)',
    ),
    Entry(
        "counterfactual",
        "counterfactual",
        f"{SECOND} the counterfactual explanation.",
        'figure = camanim.make_figure("counterfactual", lesion, demo)',
    ),
    Entry(
        "guided",
        "guided",
        f"{SECOND} CAM, Grad-CAM and Grad-CAM++, and their guided versions.",
        'figure = camanim.make_figure("guided", cat, mobilenet)',
    ),
    Entry(
        "one-d",
        "one_d",
        f"{PAPER} outputs of 1-D layers as stripes.",
        'figure = camanim.make_figure("one_d", cat, mobilenet)',
    ),
    Entry(
        "panel",
        "panel",
        "Layers picked by hand, on the curve of the ROAD scores.",
        """\
picked = ["features.pool0", "features.denseblock2.denselayer2", "features.norm5", "100%"]
figure = camanim.make_figure("panel", lesion, demo, find={"draws": 16}, layers=picked)""",
    ),
    Entry(
        "curve",
        "curve",
        f"{PAPER} ROAD scores over the layers (ybROAD); with random maps and stages.",
        """\
figure = camanim.make_figure("curve", lesion, demo, find={"draws": 16, "repeats": 3}, width=174)""",
    ),
    Entry(
        "curve-methods",
        "curve",
        "The same of several methods.",
        """\
figure = camanim.make_figure(
    "curve", lesion, demo, ["GradCAM", "LayerCAM", "EigenCAM", "RandomCAM"]
)""",
    ),
    Entry(
        "removal",
        "removal",
        "MoRF and LeRF curves.",
        """\
figure = camanim.make_figure(
    "removal", lesion, demo, find={"repeats": 3}, layers="0%,50%,100%", width=174
)""",
    ),
    Entry(
        "parameters",
        "parameters",
        f"{PAPER} parameters of each layer of DenseNet161; with the time for each map.",
        """\
densenet = camanim.load_model("torchvision/densenet161", weights=None)
figure = camanim.make_figure("parameters", cat, densenet, width=174)""",
    ),
    Entry(
        "parameters-networks",
        "parameters",
        "Time against parameters, of networks of the paper.",
        """\
names = ("alexnet", "squeezenet1_1", "resnet152", "densenet161", "efficientnet_b7")
networks = [camanim.load_model(f"torchvision/{name}", weights=None) for name in names]
figure = camanim.make_figure("parameters", cat, [mobilenet, *networks], scatter=True, width=120)""",
    ),
)


def page(captions: dict[str, str]) -> str:
    """Return the text of the page.

    Parameters
    ----------
    captions : dict of str to str
        By the name of the picture.
    """
    parts = [
        "# Gallery of figures",
        "Generated by `python docs/make_gallery.py`. Each picture has its caption, as "
        "`PrintedFigure.save` writes it beside the file, and the call that makes it. "
        "[The guide](guide.md#figures-for-print) describes figures in general. The photograph is "
        "scikit-image's `chelsea` (CC0), ultrasound images are the synthetic ones of the package. "
        "MobileNetV2 has Google's weights here (Coral test data, Apache-2.0): torchvision's give "
        "somewhat other maps. Networks named *(random weights)* show parameters and times only.",
        f"All calls begin with:\n\n```py\n{SETUP}```",
        "| figure | shows | of |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| [`{name}`](#{name}) | {kind.help} | {kind.needs} |"
            for name, kind in figure_kinds().items()
        ),
    ]
    for name, kind in figure_kinds().items():
        parts.append(f"## {name}\n\n{kind.help}")
        for entry in ENTRIES:
            if entry.figure == name:
                parts += [
                    f"{entry.text}",
                    f"```py\n{entry.code}\n```",
                    f"![{kind.title}](images/gallery/{entry.file}.png)",
                    f"*{captions[entry.file]}*",
                ]
    return "\n\n".join(parts) + "\n"


def written_captions() -> dict[str, str]:
    """Return the captions in the page, by the name of the picture."""
    if not PAGE.exists():
        return {}
    found = re.findall(r"gallery/([\w-]+)\.png\)\n\n\*(.+)\*\n", PAGE.read_text(encoding="utf-8"))
    return dict(found)


def picture(figure: PrintedFigure) -> bytes:
    """Return a PNG; one with maps has a palette of 256 colours and a third of the size."""
    drawn = Image.open(BytesIO(figure.rendered("png", DPI))).convert("RGB")
    if len(drawn.getcolors(drawn.width * drawn.height) or ()) > FEW_COLORS:
        palette = drawn.quantize(256, Image.Quantize.MAXCOVERAGE)
        colors = palette.getpalette() or []
        # The paper is white.
        brightest = max(range(0, len(colors), 3), key=lambda i: sum(colors[i : i + 3]))
        colors[brightest : brightest + 3] = [255, 255, 255]
        palette.putpalette(colors)
        drawn = drawn.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    content = BytesIO()
    drawn.save(content, "PNG", optimize=True)
    return content.getvalue()


def main(names: list[str]) -> None:
    """Make the pictures of the named figures, or of all, and write the page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    captions = written_captions()
    scope: dict[str, object] = {}
    exec(SETUP, scope)
    for entry in ENTRIES:
        if names and entry.figure not in names and entry.file not in names:
            continue
        begun = time.perf_counter()
        exec(entry.code, scope)
        figure = scope["figure"]
        assert isinstance(figure, PrintedFigure)
        assert figure.name == entry.figure
        (FOLDER / f"{entry.file}.png").write_bytes(picture(figure))
        captions[entry.file] = figure.caption.replace("*", "\\*")
        print(f"{entry.file}: {time.perf_counter() - begun:.0f} s")
    PAGE.write_text(page(captions), encoding="utf-8")
    size = sum(path.stat().st_size for path in FOLDER.glob("*.png"))
    print(f"Wrote {PAGE}; the pictures have {size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main(sys.argv[1:])
