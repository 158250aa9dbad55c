"""``camanim run``: explain one image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

import camanim
from camanim.cli import options
from camanim.cli.report import listing, report
from camanim.errors import ScoreError
from camanim.progress import console
from camanim.writing import checked_path

if TYPE_CHECKING:
    from camanim.render.plots import Plot


def run(
    image: options.Image,
    model: options.Network = "demo/ultrasound",
    weights: options.Weights = "DEFAULT",
    classes: options.Classes = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    channels: options.Channels = None,
    outputs: options.Outputs = None,
    device: options.Device = None,
    precision: options.Precision = "float32",
    trust: options.Trust = False,
    save_card: options.SaveCard = None,
    method: options.Method = "GradCAM",
    option: options.MethodOptions = None,
    target: options.Target = None,
    counterfactual: options.Counterfactual = False,
    eigen_smooth: options.EigenSmooth = False,
    augment: options.Augment = False,
    layers: options.Layers = None,
    layout: options.Layout = None,
    show_1d: options.Show1d = False,
    slices: options.Slices = False,
    batch_size: options.BatchSize = 16,
    fit: options.FitImage = "stretch",
    window: options.Window = None,
    road: options.ScoreRoad = False,
    repeats: options.Repeats = 1,
    no_baseline: options.NoBaseline = False,
    draws: options.Draws = 8,
    checks: options.Checks = False,
    mask: options.Mask = None,
    mask_label: options.MaskLabel = None,
    measure: options.Measures = None,
    plot: options.PlotFile = None,
    plot_kind: options.PlotKind = None,
    seed: options.Seed = 0,
    movie: options.Movie = None,
    z: options.Plane = None,
    normalization: options.Scale = "local",
    signed: options.Signed = False,
    fps: options.Fps = 5,
    quality: options.Quality = "standard",
    table: options.Table = None,
) -> None:
    """Explain one image: the maps of all layers, their scores, a movie, a table, a plot.

    Without --table the layers are listed on the terminal.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    # Before the work, not after it.
    for path, suffix in ((movie, ".mp4"), (table, ".csv"), (save_card, ".toml")):
        if path is not None:
            checked_path(path, suffix)
    _check_scores(road=road, asked=repeats > 1 or no_baseline or draws != 8)
    measures = _measures(measure)
    kind = _plot_kind(plot, plot_kind, road=road, mask=mask is not None, checks=checks)
    pixels, marked = camanim.read_image(image), None if mask is None else _read_mask(mask)
    with console() as progress:
        loaded = camanim.load_model(
            model,
            None if weights.lower() == "none" else weights,
            classes=classes,
            size=options.size(size),
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            channels=channels,
            outputs=outputs,
            trust=trust,
            progress=progress,
        )
        animation = camanim.animate(
            loaded,
            pixels,
            method=method,
            options={key: options.value(x) for key, x in options.pairs(option, "--option")},
            target=target,
            counterfactual=counterfactual,
            eigen_smooth=eigen_smooth,
            augment=augment,
            layers=layers or "unique",
            layouts=dict(options.pairs(layout, "--layout")),
            show_1d=show_1d,
            slices=slices,
            batch_size=batch_size,
            fit=fit,
            window=window,
            device=device,
            precision=precision,
            seed=seed,
            progress=progress,
        )
        if marked is not None:
            # First, as this is where a mask of another size is told.
            animation.localise(marked, label=mask_label)
        wanted: list[Callable[[], object]] = []
        if road:
            settings: dict[str, Any] = {
                "repeats": repeats,
                "baseline": not no_baseline,
                "draws": draws,
            }
            wanted.append(partial(animation.score, seed, **settings, progress=progress))
        for name, imputation in measures:
            asked = partial(animation.measure, name, imputation, seed=seed)
            wanted.append(partial(asked, progress=progress))
        if checks:
            wanted.append(partial(animation.check_randomisation, seed=seed, progress=progress))
            wanted.append(partial(animation.check_labels, seed=seed, progress=progress))
        refused = [reason for each in wanted if (reason := _refused(each))]
        if movie is not None:
            animation.write_movie(
                movie,
                normalization=normalization,
                signed=signed,
                fps=fps,
                quality=quality,
                z=z,
                progress=progress,
            )
    if save_card is not None:
        loaded.save_card(save_card)
    if plot is not None and kind is not None and not refused:
        animation.write_plot(plot, kind)
    if table is not None:
        animation.write_table(table)
    else:
        Console().print(listing(animation))
    files = [movie, table, None if refused else plot, save_card]
    report(animation, [path for path in files if path is not None])
    if refused:
        raise ScoreError(" ".join(refused))


def _refused(score: Callable[[], object]) -> str:
    """Score or check; say why that cannot be. What else was computed is not lost for it."""
    try:
        score()
    except ScoreError as error:
        return str(error)
    return ""


def _check_scores(*, road: bool, asked: bool) -> None:
    if asked and not road:
        raise typer.BadParameter("--repeats, --draws and --no-baseline are of --road: add it.")


def _measures(texts: list[str] | None) -> list[tuple[str, str]]:
    """Read what is to be measured; say at once what there is not."""
    if not texts:
        return []
    from camanim.road.measures import check_names

    parts = [text.partition(":") for text in texts]
    found = [(name, imputation or "blur") for name, _, imputation in parts]
    for names in found:
        check_names(*names)
    return found


def _plot_kind(
    path: Path | None, kind: Plot | None, *, road: bool, mask: bool, checks: bool
) -> Plot | None:
    """Choose what to plot from what there will be; say at once where there will be nothing."""
    if path is None:
        return None
    from camanim.render.plots import checked_plot

    checked_plot(path)
    possible: dict[Plot, bool] = {
        "scores": road or mask,
        "removal": road,
        "randomisation": checks,
    }
    there = [name for name, given in possible.items() if given]
    if not there or kind not in (None, *there):
        wanted = {"scores": "--road or --mask", "removal": "--road", "randomisation": "--checks"}
        raise typer.BadParameter(
            f"--plot has nothing to show: add {wanted.get(kind or '', '--road, --mask or --checks')}."
        )
    return kind or there[0]


def _read_mask(path: Path) -> Any:
    """Read a mask; a grey one that is stored in colour becomes grey."""
    labels = camanim.read_image(path)
    if labels.ndim == 3 and labels.shape[2] in (3, 4):
        colours = labels[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
    return labels
