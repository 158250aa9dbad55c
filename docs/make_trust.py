"""Draw the figures of ``trust.md`` and ``road.md``, and fill in their numbers.

    python docs/make_trust.py --tables    # numbers only, from docs/data: a second
    python docs/make_trust.py             # figures too
    python docs/make_trust.py --measure   # measure first (`measure_trust.py`): many minutes

The text between ``<!-- measured: NAME -->`` and ``<!-- end -->`` in a page is generated from the files
in ``docs/data``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import measure_trust as measured  # noqa: E402

import camanim  # noqa: E402
from camanim import samples  # noqa: E402
from camanim.render.figures import PRINT  # noqa: E402

BLUE, RED, ORANGE, GREEN = (PRINT.colors[name] for name in ("first", "second", "third", "fourth"))
PURPLE, GREY, LIGHT = PRINT.mark, PRINT.quiet, "#BBBBBB"

IMAGES = DOCS / "images"
MEASURED = re.compile(r"(<!-- measured: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
#: Methods whose randomisation check is drawn: one that passes, and one that fails.
PASSES, FAILS = "GradCAM", "SobelCAM"
Rows = list[dict[str, Any]]


# -- Numbers ---------------------------------------------------------------------------------------


def filled(text: str) -> str:
    """Return the text of a page with its measured parts filled in."""
    if not MEASURED.search(text):
        return text
    rows, differences = measured.read()
    generated: dict[str, Callable[[], str]] = {
        "agreement": lambda: agreement_table(rows),
        "agreement in words": lambda: agreement_words(rows),
        "ties": lambda: ties_words(differences["ties"]),
        "percentiles": lambda: percentiles_words(differences["percentiles"]),
        "seeds": lambda: seeds_words(differences["seeds"]),
        "floor": lambda: floor_words(differences["floor"]),
        "checks": lambda: checks_table(differences["checks"]),
    }
    return MEASURED.sub(lambda match: f"{match[1]}{generated[match[2]]()}{match[3]}", text)


def groups(rows: Rows) -> dict[str, Rows]:
    """Return the rows by group: all phantoms together, each photograph alone."""
    phantoms = [row for row in rows if row["network"] == measured.DEMO]
    photographs = {row["image"]: [row] for row in rows if row["network"] != measured.DEMO}
    return {f"{len(phantoms)} phantoms": phantoms} | photographs


def agreement_table(rows: Rows) -> str:
    """Return the table of average precision and peaks, by choice of the layer."""
    parts = groups(rows)
    head = ["layer", *(f"{name}: {what}" for name in parts for what in ("AP", "peak inside"))]
    table = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for choice in (*measured.CHOICES, "random"):
        cells = ["mean of all layers" if choice == "random" else choice]
        for part in parts.values():
            cells.append(f"{mean(part, f'{choice}, AP'):.2f}")
            cells.append(f"{100 * mean(part, f'{choice}, peak'):.0f} %")
        table.append(cells)
    shares = [mean(part, "share") for part in parts.values()]
    table.append(["chance", *(x for s in shares for x in (f"{s:.2f}", f"{100 * s:.0f} %"))])
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def mean(rows: Rows, key: str) -> float:
    """Return the mean over the images that have a number."""
    values = known(row[key] for row in rows)
    return float(np.mean(values)) if values else float("nan")


def known(values: Iterable[Any]) -> list[float]:
    """Return the finite numbers; where no layer was chosen, there is a text or NaN."""
    return [float(v) for v in values if not isinstance(v, str) and np.isfinite(v)]


def agreement_words(rows: Rows) -> str:
    """Return the rank correlations of scores and masks, and how often both choose the same layer."""
    lines = []
    for name, part in groups(rows).items():
        rho, plain = (np.array([row[key] for row in part]) for key in ("rho", "rho plain"))
        same = sum(row["ROAD's best"] == row["mask's best"] for row in part)
        none = sum(not row["ROAD's best"] for row in part)
        how = f"{np.median(rho):.2f}"
        if len(part) > 1:
            low, high = np.percentile(rho, (25, 75))
            how += f" in the median (quartiles {low:.2f} and {high:.2f}; above 0 in "
            how += f"{(rho > 0).sum()} of {len(part)})"
        paired = "".join(f" {better(part, other)}" for other in ("last", "random"))
        lines.append(
            f"- *{name}*: rank correlation {how}; with the plain score {np.median(plain):.2f}. ROAD's "
            f"best layer is the mask's in {same} of {len(part)}. No layer is above chance in {none} of "
            f"{len(part)}; on average {mean(part, 'above'):.0f} of {mean(part, 'layers'):.0f} are."
            f"{paired if len(part) > 1 else ''}\n"
        )
    return "".join(lines)


def better(rows: Rows, other: str) -> str:
    """Compare the average precision of ROAD's best layer with that of another, image by image."""
    from scipy.stats import wilcoxon

    gains = np.array([row["ROAD's best, AP"] - row[f"{other}, AP"] for row in rows])
    name = "mean over the layers" if other == "random" else f"{other} layer's"
    return (
        f"ROAD's best has a higher AP than the {name} in {(gains > 0).sum()} and a lower one in "
        f"{(gains < 0).sum()} (Wilcoxon's signed ranks, p = {wilcoxon(gains).pvalue:.1g})."
    )


def ties_words(ties: dict[str, Any]) -> str:
    """Return the deviations of the removed shares from the requested ones."""
    requested = np.array(ties["requested"])
    off = {name: np.abs(np.array(ties[name]) - requested) for name in ("MoRF", "LeRF")}
    both = np.concatenate(list(off.values()))
    return (
        f"Of {both.size} masks of this sample, grad-cam's rule misses the requested share by more than "
        f"one percentage point in {(both > 1).sum()} ({100 * (both > 1).mean():.0f} %), by "
        f"{both[both > 1].mean():.0f} points on average, and removes every pixel in "
        f"{sum((np.array(ties[n]) > 99.99).sum() for n in off)}.\n"
    )


def percentiles_words(scores: dict[str, Any]) -> str:
    """Return how similar the scores of four and of nine percentiles are."""
    from scipy.stats import spearmanr

    four, nine = (np.array(scores[key], float) for key in ("four", "nine"))
    both = np.isfinite(four) & np.isfinite(nine)
    four, nine = four[both], nine[both]
    same = "the same layer is" if four.argmax() == nine.argmax() else "different layers are"
    return (
        f"Over the {both.sum()} layers with a score both have a rank correlation of "
        f"{spearmanr(four, nine).statistic:.3f} and differ by {np.abs(four - nine).mean():.3f} on "
        f"average, by {np.abs(four - nine).max():.3f} at most; {same} highest.\n"
    )


def seeds_words(seeds: dict[str, Any]) -> str:
    """Return how far the scores of repeated calls differ."""
    here, theirs = (np.array(seeds[key], float) for key in ("here", "grad-cam"))
    calls = len(here)
    return (
        f"Standard deviation over {calls} calls, mean of {here.shape[1]} layers: grad-cam's "
        f"{theirs.std(axis=0, ddof=1).mean():.4f}; here, with another seed for every call, "
        f"{here.std(axis=0, ddof=1).mean():.4f}; with one seed {seeds['same seed differs by']:.4f}.\n"
    )


def floor_words(rows: Rows) -> str:
    """Return the table of the scores of random maps, by resolution."""
    lines = ["| map | clipped at 0 (baseline) | not clipped |\n| --- | ---: | ---: |\n"]
    for row in rows:
        signed, unsigned = (np.array(row[key], float) for key in ("signed", "unsigned"))
        size = " × ".join(map(str, row["size"]))
        lines.append(f"| {size} | {_spread(signed)} | {_spread(unsigned)} |\n")
    return "".join(lines)


def _spread(values: Any) -> str:
    return f"{np.nanmean(values):.3f} ± {np.nanstd(values, ddof=1):.3f}"


def checks_table(rows: Rows) -> str:
    """Return the table of both checks, by method."""
    lines = ["| method | all weights shuffled | other classes |\n| --- | ---: | ---: |\n"]
    for row in rows:
        # Adding 0.0 turns -0.00 into 0.00.
        cells = [
            "nothing to compare"
            if row[check] is None
            else f"{round(row[check], 2) + 0.0:.2f}{'' if row[f'{check} passed'] else ', **fails**'}"
            for check in ("randomisation", "labels")
        ]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |\n")
    return "".join(lines)


# -- Figures ---------------------------------------------------------------------------------------


def draw() -> list[Path]:
    """Draw all figures; return their paths."""
    rows, differences = measured.read()
    IMAGES.mkdir(exist_ok=True)
    model = camanim.load_model(measured.DEMO)
    image, mask = samples.image(measured.SAMPLE), samples.mask(measured.SAMPLE)
    animation = camanim.animate(model, image)
    animation.score(repeats=3)
    removal = animation.write_plot(IMAGES / "road-removal.png", "removal")
    animation.localise(mask)
    paths = [removal, animation.write_plot(IMAGES / "trust-scores.png")]
    for method, name in ((PASSES, "passes"), (FAILS, "fails")):
        other = camanim.animate(model, image, method=method)
        other.check_randomisation()
        paths.append(other.write_plot(IMAGES / f"trust-randomisation-{name}.png", "randomisation"))
    paths.append(save(agreement_figure(rows), "trust-agreement"))
    paths.append(save(ties_figure(differences["ties"]), "road-ties"))
    paths.append(save(percentiles_figure(differences["percentiles"]), "road-percentiles"))
    paths.append(save(seeds_figure(differences["seeds"]), "road-seeds"))
    paths.append(save(floor_figure(differences["floor"]), "road-floor"))
    for path in paths:
        # 128 colours keep the files small.
        picture = Image.open(path).convert("RGB")
        picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    return paths


def save(figure: Figure, name: str) -> Path:
    """Write a figure into the pages' images."""
    path = IMAGES / f"{name}.png"
    figure.savefig(path, dpi=150)
    return path


def blank(height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Any]]:
    """Return an empty figure in the style of the package's plots."""
    figure = Figure((6, height), layout="constrained", facecolor="white")
    axes = figure.subplots(1, columns, squeeze=False, **options)[0].tolist()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#E5E5E5", linewidth=0.6)
        each.set_axisbelow(True)
        each.tick_params(labelsize=9)
    return figure, axes


def agreement_figure(rows: Rows) -> Figure:
    """Draw the rank correlation of each image, and the average precision of each choice of a layer."""
    figure, (left, right) = blank(3.4, 2, gridspec_kw={"width_ratios": (2, 3)})
    phantoms = [row for row in rows if row["network"] == measured.DEMO]
    left.hist([row["rho"] for row in phantoms], np.linspace(-1, 1, 21), color=BLUE, alpha=0.7)
    left.axvline(0, color=GREY, linewidth=0.8)
    left.set_xlabel("rank correlation over the layers:\nROAD excess, average precision")
    left.set_ylabel("phantoms")
    choices = (*measured.CHOICES, "random")
    values = [known(row[f"{choice}, AP"] for row in phantoms) for choice in choices]
    right.boxplot(values, widths=0.6, medianprops={"color": RED, "linewidth": 2}, showfliers=False)
    random = np.random.default_rng(0)
    for i, part in enumerate(values):
        right.plot(i + 1 + random.uniform(-0.2, 0.2, len(part)), part, ".", color=BLUE, alpha=0.5)
    photographs = [row for row in rows if row["network"] != measured.DEMO]
    for row, marker, color in zip(photographs, "D^", (PURPLE, GREEN), strict=False):
        ap = [mean([row], f"{choice}, AP") for choice in choices]
        right.plot(range(1, 6), ap, marker, color=color, label=row["image"], markersize=6)
        left.axvline(row["rho"], color=color, linewidth=1.5, linestyle="--", label=row["image"])
    if photographs:
        right.legend(fontsize=8, frameon=False, loc="upper right", ncols=2)
    right.set_xticks(range(1, 6), [c.replace(" ", "\n") for c in choices], fontsize=8)
    right.set_ylabel("average precision")
    right.set_ylim(0, 1.12)
    return figure


def ties_figure(ties: dict[str, Any]) -> Figure:
    """Draw the removed share over the layers, for each requested share."""
    figure, axes = blank(3.4, 2, sharey=True)
    colors = (GREEN, BLUE, ORANGE, RED)
    for each, name in zip(axes, ("MoRF", "LeRF"), strict=True):
        for share, values, color in zip(
            ties["requested"], np.array(ties[name]).T, colors, strict=True
        ):
            each.axhline(share, color=color, linewidth=1)
            each.plot(np.arange(1, len(values) + 1), values, ".", color=color, label=f"{share} %")
        each.set_title(
            f"{name}: {'most' if name == 'MoRF' else 'least'} relevant first", fontsize=10
        )
        each.set_xlabel("layer")
    axes[0].set_ylabel("removed pixels (%)")
    figure.legend(
        *axes[0].get_legend_handles_labels(), title="requested (lines: removed here)",
        loc="outside upper center", ncols=4, fontsize=8, title_fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


def percentiles_figure(scores: dict[str, Any]) -> Figure:
    """Draw the scores of four and of nine percentiles over the layers."""
    figure, [axes] = blank(2.6)
    for key, color, stroke in (("four", BLUE, "-"), ("nine", ORANGE, "--")):
        values = np.array(scores[key], float)
        label = "20, 40, 60, 80 % (here)" if key == "four" else "10 to 90 % (grad-cam)"
        axes.plot(np.arange(1, len(values) + 1), values, stroke, color=color, label=label)
    axes.set_xlabel("layer, in order of execution")
    axes.set_ylabel("ROAD")
    axes.legend(fontsize=8, frameon=False)
    return figure


def seeds_figure(seeds: dict[str, Any]) -> Figure:
    """Draw the scores of repeated calls, layer by layer."""
    here, theirs = (np.array(seeds[key], float) for key in ("here", "grad-cam"))
    figure, [axes] = blank(3.0)
    for values, shift, marker, color, label in (
        (theirs, -0.12, "s", ORANGE, "grad-cam, repeated calls"),
        (here, 0.12, "o", BLUE, "here, other seeds"),
    ):
        x = np.tile(np.arange(1, values.shape[1] + 1) + shift, (len(values), 1))
        values = values - values.mean(axis=0)
        axes.plot(x, values, marker, color=color, markersize=4, alpha=0.6)
        axes.plot([], [], marker, color=color, label=label)
    names = [f"layer {i + 1}" for i in seeds["layers"]]
    axes.set_xticks(range(1, len(names) + 1), names)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylabel("ROAD minus the mean of calls")
    axes.legend(fontsize=8, frameon=False)
    return figure


def floor_figure(rows: Rows) -> Figure:
    """Draw the scores of random maps by resolution."""
    figure, [axes] = blank(2.8)
    kinds = (
        ("signed", -0.17, BLUE, "clipped at 0 (baseline)"),
        ("unsigned", 0.17, LIGHT, "not clipped"),
    )
    for key, shift, color, label in kinds:
        values = [[v for v in row[key] if v is not None] for row in rows]
        axes.boxplot(
            values,
            positions=np.arange(len(rows)) + shift,
            widths=0.3,
            patch_artist=True,
            boxprops={"facecolor": color},
            medianprops={"color": "black"},
            flierprops={"markersize": 3},
        )
        axes.plot([], [], "s", color=color, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(rows)), [" × ".join(map(str, row["size"])) for row in rows])
    axes.set_xlabel("resolution of the map")
    axes.set_ylabel("ROAD of random maps")
    axes.legend(fontsize=8, frameon=False)
    return figure


def main() -> None:
    """Measure with ``--measure``, draw unless ``--tables`` is given, and fill in the pages."""
    if "--measure" in sys.argv:
        measured.write()
    if "--tables" not in sys.argv:
        for path in draw():
            print(f"Wrote {path}")
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (fresh := filled(text)) != text:
            path.write_text(fresh, encoding="utf-8")
            print(f"Filled in {path}")


if __name__ == "__main__":
    main()
