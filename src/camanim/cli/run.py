"""``camanim run``: explain one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

import camanim
from camanim.cli import options
from camanim.cli.findings import check_plot_kind, compute, requested
from camanim.cli.report import listing, report
from camanim.errors import ScoreError
from camanim.findings import FindingRequest
from camanim.progress import console
from camanim.render.plots import checked_plot
from camanim.writing import checked_path


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
    find: options.Findings = None,
    plot: options.PlotFile = None,
    plot_kind: options.PlotKind = "scores",
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
    if (repeats > 1 or no_baseline or draws != 8) and not road:
        raise typer.BadParameter("--repeats, --draws and --no-baseline are of --road: add it.")
    requests = requested(find, measure, mask=mask is not None, checks=checks)
    if road:
        how = {"repeats": repeats, "baseline": not no_baseline, "draws": draws}
        requests.append(FindingRequest("road", how))
    if plot is not None:
        checked_plot(plot)
        check_plot_kind(plot_kind, requests)
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
        further = {"mask": marked, "label": mask_label, "seed": seed, "progress": progress}
        refused = compute(animation, requests, further)
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
    if plot is not None and not refused:
        animation.write_plot(plot, plot_kind)
    if table is not None:
        animation.write_table(table)
    else:
        Console().print(listing(animation))
    files = [movie, table, None if refused else plot, save_card]
    report(animation, [path for path in files if path is not None])
    if refused:
        raise ScoreError(" ".join(refused))


def _read_mask(path: Path) -> Any:
    """Read a mask; a grey one that is stored in colour becomes grey."""
    labels = camanim.read_image(path)
    if labels.ndim == 3 and labels.shape[2] in (3, 4):
        colours = labels[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
    return labels
