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

import measure_calibration as calibration  # noqa: E402
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
        "ties": lambda: ties_words([each["ties"] for each in differences]),
        "percentiles": lambda: percentiles_words([each["percentiles"] for each in differences]),
        "seeds": lambda: seeds_words([each["seeds"] for each in differences]),
        "floor": lambda: floor_words([each["floor"] for each in differences]),
        "claims": lambda: claims_table(numbers("claims")),
        "randomisation": lambda: randomisation_table(numbers("randomisation")),
        "depth": lambda: depth_table(numbers("depth")),
        "regions": lambda: regions_words(numbers("regions")),
        "choice": lambda: choice_words(numbers("choice")),
    }
    return MEASURED.sub(lambda match: f"{match[1]}{generated[match[2]]()}{match[3]}", text)


def groups(rows: Rows) -> dict[str, Rows]:
    """Return the rows by group: the phantoms, all and by class, and each photograph alone."""
    phantoms = [row for row in rows if row["network"] == measured.DEMO]
    photographs = {row["image"]: [row] for row in rows if row["network"] != measured.DEMO}
    classes = {f"{len(part)} {kind}": part for (kind,), part in by(phantoms, "class").items()}
    return {f"{len(phantoms)} phantoms": phantoms} | classes | photographs


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
        same = sum(row["highest excess"] == row["mask's best"] for row in part)
        how = f"{np.median(rho):.2f}"
        if len(part) > 1:
            low, high = np.percentile(rho, (25, 75))
            how += f" in the median (quartiles {low:.2f} and {high:.2f}; above 0 in "
            how += f"{(rho > 0).sum()} of {len(part)})"
        paired = "".join(f" {better(part, other)}" for other in ("last", "random"))
        lines.append(
            f"- *{name}*: rank correlation {how}; with the score itself {np.median(plain):.2f}. The "
            f"layer with the highest excess is the mask's best in {same} of {len(part)}."
            f"{paired if len(part) > 1 else ''}\n"
        )
    return "".join(lines)


def better(rows: Rows, other: str) -> str:
    """Compare the average precision of the highest excess with that of another layer, by image."""
    from scipy.stats import wilcoxon

    gains = np.array([row["highest excess, AP"] - row[f"{other}, AP"] for row in rows])
    name = "mean over the layers" if other == "random" else f"{other} layer's"
    return (
        f"Its AP is higher than the {name} in {(gains > 0).sum()} and lower in {(gains < 0).sum()} "
        f"(Wilcoxon's signed ranks, p = {wilcoxon(gains).pvalue:.1g})."
    )


def ties_words(each: list[dict[str, Any]]) -> str:
    """Return the deviations of the removed shares from the requested ones, over all samples."""
    shares = [np.array(ties[name]) for ties in each for name in ("MoRF", "LeRF")]
    off = np.concatenate([np.abs(share - np.array(each[0]["requested"])) for share in shares])
    all_removed = sum(int((share > 99.99).sum()) for share in shares)
    return (
        f"Of {off.size} masks of {len(each)} samples, grad-cam's rule misses the requested share by "
        f"more than one percentage point in {(off > 1).sum()} ({100 * (off > 1).mean():.0f} %), by "
        f"{off[off > 1].mean():.0f} points on average, and removes every pixel in {all_removed}.\n"
    )


def percentiles_words(each: list[dict[str, Any]]) -> str:
    """Return how similar the scores of four and of nine percentiles are, over all samples."""
    from scipy.stats import spearmanr

    rhos, mean, largest, same = [], [], [], 0
    for scores in each:
        four, nine = (np.array(scores[key], float) for key in ("four", "nine"))
        both = np.isfinite(four) & np.isfinite(nine)
        four, nine = four[both], nine[both]
        rhos.append(spearmanr(four, nine).statistic)
        mean.append(np.abs(four - nine).mean())
        largest.append(np.abs(four - nine).max())
        same += int(four.argmax() == nine.argmax())
    return (
        f"Over the layers of {len(each)} samples both have rank correlations of {min(rhos):.3f} to "
        f"{max(rhos):.3f} and differ by {np.mean(mean):.3f} on average, by {max(largest):.3f} at most; "
        f"in {same} samples the same layer is highest.\n"
    )


def seeds_words(each: list[dict[str, Any]]) -> str:
    """Return how far the scores of repeated calls differ, over all samples."""

    def deviation(key: str) -> float:
        deviations = [np.nanstd(np.array(s[key], float), axis=0, ddof=1) for s in each]
        return float(np.nanmean(np.concatenate(deviations)))

    calls, layers = np.shape(each[0]["here"])
    same = max(seeds["same seed differs by"] for seeds in each)
    return (
        f"Standard deviation over {calls} calls, mean of {layers} layers of {len(each)} samples: "
        f"grad-cam's {deviation('grad-cam'):.4f}; here, with another seed for every call, "
        f"{deviation('here'):.4f}; with one seed {same:.4f}.\n"
    )


def floor_words(each: list[Rows]) -> str:
    """Return the table of the scores of random maps, by resolution, over all samples."""
    lines = ["| map | clipped at 0 (baseline) | not clipped |\n| --- | ---: | ---: |\n"]
    for rows in zip(*each, strict=True):
        cells = []
        for key in ("signed", "unsigned"):
            values = [np.array(row[key], float) for row in rows]
            mean = np.mean([np.nanmean(v) for v in values])
            cells.append(f"{mean:.3f} ± {np.mean([np.nanstd(v, ddof=1) for v in values]):.3f}")
        lines.append(f"| {' × '.join(map(str, rows[0]['size']))} | {' | '.join(cells)} |\n")
    return "".join(lines)


NETWORKS = {"demo": "demo network, phantoms", "mobilenet": "MobileNetV2, ultrasound"}


def numbers(name: str) -> Rows:
    """Return the rows of a measurement, with numbers where the text is one."""
    return [{k: _number(v) for k, v in row.items()} for row in calibration.read(name)]


def _number(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text or float("nan")


def by(rows: Rows, *keys: str) -> dict[tuple[Any, ...], Rows]:
    """Return the rows by the values of some columns, in the order of their first rows."""
    parts: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        parts.setdefault(tuple(row[key] for key in keys), []).append(row)
    return parts


def table(head: list[str], lines: list[list[str]]) -> str:
    """Return a table of Markdown whose first two columns are text."""
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))


def claims_table(rows: Rows) -> str:
    """Return how often each statement is made, by network and method."""
    lines = []
    for (network, method), part in by(rows, "network", "method").items():
        layers = sum(row["layers"] for row in part)
        lines.append(
            [
                f"{NETWORKS[network]} ({len(part)})",
                "GradCAM, moved" if method == "moved" else method,
                f"{100 * sum(row['above noise'] for row in part) / layers:.0f} %",
                f"{100 * np.mean([row['above noise'] > 0 for row in part]):.0f} %",
                f"{100 * sum(row['above activation'] for row in part) / layers:.1f} %",
                f"{100 * np.mean([row['above activation'] > 0 for row in part]):.0f} %",
                f"{100 * sum(row['random p <= 0.05'] for row in part) / layers:.1f} %",
                f"{sum(row['best'] for row in part):.0f} of {len(part)}",
            ]
        )
    head = [
        *("images", "maps of", "layers above noise", "images with one"),
        *("layers above activation", "images with one", "p ≤ 0.05 against RandomCAM alone"),
        "images with a best layer",
    ]
    return table(head, lines)


def randomisation_table(rows: Rows) -> str:
    """Return the medians of both schemes, the thirds of the depth and failures, by method."""
    lines = []
    for (method, network), part in by(
        sorted(rows, key=lambda row: calibration.METHODS.index(row["method"])), "method", "network"
    ).items():
        values = [
            number([row[key] for row in part])
            for key in (
                "permuted",
                "reinitialised",
                "threshold",
                "first",
                "middle",
                "last",
                "labels",
            )
        ]
        failed = sum(row["passed"] is False for row in part)
        labels = sum(row["labels passed"] is False for row in part)
        counts = [f"{failed} of {len(part)}", f"{labels} of {len(part)}"]
        lines.append([method, NETWORKS[network], *values[:6], counts[0], values[6], counts[1]])
    head = [
        *("method", "network", "permuted", "reinitialised", "threshold", "first third"),
        *("middle", "last", "fails", "other classes", "fails"),
    ]
    return table(head, lines)


def number(values: list[float]) -> str:
    """Return the mean of the finite values with two digits."""
    finite = known(values)
    return f"{np.mean(finite):.2f}" if finite else "-"


def depth_table(rows: Rows) -> str:
    """Return the mean scores over five parts of the depth, beside their nulls."""
    lines = []
    for (network, method), part in by(rows, "network", "method").items():
        for what in ("score", "random") if method == "GradCAM" else ("score",):
            values = np.array([[row[f"{what} {i}"] for i in range(1, 6)] for row in part])
            name = "random maps" if what == "random" else method
            cells = [f"{value:.3f}" for value in np.nanmean(values, axis=0)]
            shape = np.nansum((values[:, 0] > values[:, 2]) & (values[:, 4] > values[:, 2]))
            lines.append([f"{NETWORKS[network]} ({len(part)})", name, *cells, f"{shape:.0f}"])
    head = ["images", "maps of", "first fifth", "2nd", "3rd", "4th", "last", "high, low, high"]
    return table(head, lines)


def regions_words(rows: Rows) -> str:
    """Return how often the region test finds lesions, and places at random."""
    lesions = known(row["lesion p"] for row in rows)
    places = known(row["random p"] for row in rows)
    return (
        f"Of {len(lesions)} lesions of correctly classified phantoms, {sum(p <= 0.05 for p in lesions)} "
        f"have p ≤ 0.05. Of {len(places)} regions at random places, over both networks, "
        f"{sum(p <= 0.05 for p in places)} have ({5 * len(places) / 100:.1f} are promised; a place at "
        f"random may lie on a lesion).\n"
    )


def choice_words(rows: Rows) -> str:
    """Return the average precision of a layer chosen by its mean excess over other images."""
    from scipy.stats import wilcoxon

    names = [key.removeprefix("excess ") for key in rows[0] if key.startswith("excess ")]
    excess = np.array([[row[f"excess {name}"] for name in names] for row in rows], float)
    ap = np.array([[row[f"AP {name}"] for name in names] for row in rows], float)
    count, generator = len(rows), np.random.default_rng(0)

    def chosen(others: Any) -> int:
        defined = np.isfinite(excess[others]).mean(axis=0) >= 0.8
        sums = np.where(np.isfinite(excess[others]), excess[others], 0).sum(axis=0)
        counts = np.isfinite(excess[others]).sum(axis=0)
        means = np.where(defined, sums / np.maximum(counts, 1), -np.inf)
        return int(means.argmax())

    def left_out(i: int) -> Any:
        return np.delete(np.arange(count), i)

    all_others = np.array([ap[i, chosen(left_out(i))] for i in range(count)])
    few = {
        k: np.nanmean(
            [
                ap[i, chosen(generator.choice(left_out(i), k, replace=False))]
                for i in range(count)
                for _ in range(20)
            ]
        )
        for k in (3, 5, 10)
    }
    own = np.array([ap[i, int(np.nanargmax(excess[i]))] for i in range(count)])
    last = ap[:, -1]
    gain = np.nan_to_num(all_others) - np.nan_to_num(own)
    others = ", ".join(f"{value:.2f} with {k}" for k, value in few.items())
    mean_all, mean_own, mean_last = (np.nanmean(values) for values in (all_others, own, last))
    return (
        f"Average precision of {count} phantoms: {mean_all:.2f} at the layer with the highest mean "
        f"excess over all other images ({others} others at random), {mean_own:.2f} at the layer with "
        f"the highest excess in the same image, {mean_last:.2f} at the last layer. The first is above "
        f"the second in {(gain > 0).sum()} images and below it in {(gain < 0).sum()} (Wilcoxon, "
        f"p = {wilcoxon(gain).pvalue:.1g}).\n"
    )


# -- Figures ---------------------------------------------------------------------------------------


def draw() -> list[Path]:
    """Draw all figures; return their paths."""
    rows, (differences, *_) = measured.read()
    IMAGES.mkdir(exist_ok=True)
    model = camanim.load_model(measured.DEMO)
    image, mask = samples.image(measured.SAMPLES[0]), samples.mask(measured.SAMPLES[0])
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
