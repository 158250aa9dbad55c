"""The command line: ``camanim demo | run | models | methods``.

Exit codes: 0 done, 1 an error that one sentence explains, 2 a wrong call, 130 interrupted.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

import camanim
from camanim.animation import Normalization
from camanim.errors import CamError
from camanim.images import Fit
from camanim.progress import console
from camanim.writing import checked_path

if TYPE_CHECKING:
    from camanim.animation import Animation

Quality = Literal["standard", "high"]

app = typer.Typer(
    name="camanim",
    help="See what every layer of a network looks at: class activation maps of all layers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    image: Annotated[Path, typer.Argument(help="The image file.", show_default=False)],
    model: Annotated[str, typer.Option(help="A network of `camanim models`.")] = "demo/ultrasound",
    weights: Annotated[
        str, typer.Option(help="DEFAULT, a torchvision name, a file, or 'none' for random ones.")
    ] = "DEFAULT",
    method: Annotated[str, typer.Option(help="A method of `camanim methods`.")] = "GradCAM",
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain, by number or name; else the likeliest."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="unique (default), all, blocks, a name, a glob (features.*), a kind (Conv2d); "
            "may be given several times.",
        ),
    ] = None,
    fit: Annotated[
        Fit, typer.Option(help="How the image meets the network's input size.")
    ] = "stretch",
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Intensities that become black and white.", show_default=False),
    ] = None,
    road: Annotated[bool, typer.Option("--road", help="Score every layer with ROAD.")] = False,
    seed: Annotated[int, typer.Option(help="Of random methods and of ROAD.")] = 0,
    movie: Annotated[
        Path | None, typer.Option(help="Write the movie here (.mp4).", show_default=False)
    ] = None,
    normalization: Annotated[
        Normalization, typer.Option(help="Each layer on a scale of its own, or all on one.")
    ] = "local",
    signed: Annotated[
        bool, typer.Option("--signed", help="Show negative evidence too, in diverging colours.")
    ] = False,
    fps: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Frames a second of the movie.")
    ] = 5,
    quality: Annotated[Quality, typer.Option(help="Of the movie.")] = "standard",
    table: Annotated[
        Path | None, typer.Option(help="Write one row per layer here (.csv).", show_default=False)
    ] = None,
) -> None:
    """Explain one image: the maps of all layers, their ROAD scores, a movie, a table.

    Without --table the layers are listed on the terminal.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    for path, suffix in ((movie, ".mp4"), (table, ".csv")):
        if path is not None:
            # Before the work, not after it.
            checked_path(path, suffix)
    pixels = camanim.read_image(image)
    with console() as progress:
        loaded = camanim.load_model(
            model, None if weights.lower() == "none" else weights, progress=progress
        )
        animation = camanim.animate(
            loaded,
            pixels,
            method=method,
            target=target,
            layers=layers or "unique",
            fit=fit,
            window=window,
            seed=seed,
            progress=progress,
        )
        if road:
            animation.score(seed, progress=progress)
        if movie is not None:
            animation.write_movie(
                movie,
                normalization=normalization,
                signed=signed,
                fps=fps,
                quality=quality,
                progress=progress,
            )
    if table is not None:
        animation.write_table(table)
    else:
        Console().print(_listing(animation))
    _report(animation, [path for path in (movie, table) if path is not None])


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for the files that are written without a display.")
    ] = Path("."),
    window: Annotated[
        bool, typer.Option(help="Open napari; by default where there is a display.")
    ] = True,
) -> None:
    """Run the main job on a sample image: in napari, or into files where there is no display.

    The network is a teaching aid trained on synthetic ultrasound, not a diagnosis.
    """
    if window and _has_display():
        from napari_camanim._demo import open_demo

        open_demo()
        return
    from camanim import samples

    output.mkdir(parents=True, exist_ok=True)
    with console() as progress:
        animation = camanim.animate(
            camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), progress=progress
        )
        animation.score(progress=progress)
        files = [
            animation.write_movie(output / "demo.mp4", progress=progress),
            animation.write_picture(output / "demo.png"),
            animation.write_table(output / "demo.csv"),
        ]
    _report(animation, files)


def _has_display() -> bool:
    """Whether napari can open a window here."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


@app.command()
def models() -> None:
    """List the networks that --model takes."""
    for name in camanim.list_models():
        typer.echo(name)


@app.command()
def methods() -> None:
    """List the methods, with what each shows and where it was published."""
    listing = Table(Column("method", no_wrap=True), "class", "gradient", "what it shows", "paper")
    for method in camanim.methods().values():
        listing.add_row(
            method.name,
            "yes" if method.class_specific else "no",
            "yes" if method.needs_gradient else "no",
            method.summary,
            method.paper,
        )
    Console().print(listing)


def _listing(animation: Animation) -> Table:
    """Lay the table out for the terminal: the shown layers, and what matters most of them."""
    listing = Table(Column("layer", overflow="fold"), "kind", "output", "raw max", "ROAD")
    for row, layer in zip(animation.table(), animation.trace, strict=True):
        if row["raw max"] is not None:
            score = "" if row["ROAD"] is None else f"{row['ROAD']:.3f}"
            listing.add_row(
                layer.label, layer.kind, row["output shape"], f"{row['raw max']:.3g}", score
            )
    return listing


def _report(animation: Animation, files: list[Path]) -> None:
    out = Console(soft_wrap=True, highlight=False)
    out.print(
        f"{animation.target.name}, with probability {animation.probability:.3f}; "
        f"{len(animation)} layers with {animation.method}.",
        markup=False,
    )
    road = animation.road
    if road is not None and road.best is not None:
        best = f"best {road.best.label} with {road.max:.3f}"
        out.print(f"ybROAD: mean {road.mean:.3f}, {best}.", markup=False)
    for path in files:
        out.print(f"Wrote {path.resolve()}", markup=False)


def main() -> None:
    """Run the command line; errors of ours end in one sentence and exit code 1."""
    try:
        app()
    except CamError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"Error: {error}", style="red", markup=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
