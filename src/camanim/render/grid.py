"""Movies of several results side by side, with one cursor over the curves of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camanim import curves
from camanim.alignment import align
from camanim.declarations import checked
from camanim.errors import LayerIndexError, RenderError
from camanim.plots import Panel
from camanim.progress import Progress, silent
from camanim.render.curve import COLUMNS, ROW, Cursor, Curve
from camanim.render.formats import Quality, common_tags
from camanim.render.frames import CURVE, HEADING, MARGIN, FrameSize, Opacity, Resolution, fit
from camanim.render.movie import (
    Fps,
    Seconds,
    StageSeconds,
    checked_movie,
    layer_row,
    write_frames,
)
from camanim.render.overlay import COLORMAPS, Overlay, display_size, lookup_table
from camanim.render.pen import BACKGROUND, Pen
from camanim.render.timing import timings
from camanim.result import Result
from camanim.slicing import plane_in_words, take_plane
from camanim.stack import Normalization, stack_maps
from camanim.words import value_in_words

#: Least and most results of a grid.
LEAST, MOST = 2, 9
#: Heights of the head, of the lines below a picture, and of the curves, and the width of the colour bar.
HEAD, LINES, BAR = 66, 44, 220
#: Names of results in a row of the legend.
NAMES = 4
_SCALES = {"local": "each map on its own scale", "global": "each result on its own scale"}


class GridRenderer:
    """Renderer of frames with a picture for each of several results.

    Results of the same network show the same layer, or where one has no map of it, the nearest in the
    order of execution. Those of other networks show the layer of the same relative depth.

    Parameters
    ----------
    results : mapping of str to Result
        2 to 9, by the name that is shown.
    normalization, signed, size, resolution, colormap, opacity
        As for `write_grid_movie`.
    planes : mapping of str to str, optional
        For each result, which plane of a volume it is, in words; empty for images.

    Attributes
    ----------
    size : (width, height)
        Size of the frame in pixels, both even.
    aligned : {"layer", "relative depth"}
        What the pictures of a frame have in common.
    indices : list of tuple of int
        For each result, the index of its layer in each frame.

    Raises
    ------
    RenderError
        If there are fewer or more results, one has no map, or a setting is invalid.
    """

    @checked(RenderError)
    def __init__(
        self,
        results: Mapping[str, Result],
        *,
        normalization: Normalization = "local",
        signed: bool = False,
        size: FrameSize = 300,
        resolution: Resolution | None = None,
        colormap: str | None = None,
        opacity: Opacity = 0.5,
        planes: Mapping[str, str] | None = None,
    ) -> None:
        if not LEAST <= len(results) <= MOST:
            raise RenderError(
                f"A grid has {LEAST} to {MOST} results, not {len(results)}: choose some of them."
            )
        for name, result in results.items():
            if not result.maps:
                raise RenderError(f"{name} has no map to draw: select layers with a map.")
        self.names = [str(name) for name in results]
        self.results = list(results.values())
        self._normalization = normalization
        self._stacks = [stack_maps(result, normalization, signed=signed) for result in self.results]
        self._colors = lookup_table(COLORMAPS[bool(signed)] if colormap is None else colormap)
        self._opacity = float(opacity)
        networks = {tuple(call.label for call in result.layer_calls) for result in self.results}
        self.aligned = "layer" if len(networks) == 1 else "relative depth"
        self.indices = align(self.results, [range(len(result)) for result in self.results])
        #: Whether all pictures of every frame show layers of the same name.
        self._same = all(len(set(labels)) == 1 for labels in self._labels())
        shown = [(planes or {}).get(name, "") for name in self.names]
        self._facts = _facts(self.names, self.results, shown)
        self._fact_lines = max(map(len, self._facts))
        self._panel, self._cursors = self._curves()
        self._set_columns({2: 2, 3: 3, 4: 2}.get(len(results), 3))
        if resolution is None:
            width, height = self._measure(size, max(size, 200) / 300)
            self.size = (width + width % 2, height + height % 2)
        else:
            self.size = self._fit(resolution)
        self._lay_out()

    def __len__(self) -> int:
        return len(self.indices[0])

    def _labels(self) -> list[tuple[str, ...]]:
        """Return the labels of the layers in each frame."""
        return [
            tuple(r.layers[i].label for r, i in zip(self.results, frame, strict=True))
            for frame in zip(*self.indices, strict=True)
        ]

    def _set_columns(self, columns: int) -> None:
        self._columns, self._rows = columns, -(-len(self.results) // columns)

    def _fit(self, resolution: int) -> tuple[int, int]:
        """Choose the number of columns with the largest pictures; return the size of the frame."""
        # Text as large as in a frame of this height with one picture.
        unit = resolution / 720

        def measure(size: int, smaller: float) -> tuple[int, int]:
            return self._measure(size, smaller * unit if smaller < 0.75 else unit)

        found: dict[int, int] = {}
        for columns in range(1, len(self.results) + 1):
            self._set_columns(columns)
            with suppress(RenderError):
                fit(resolution, measure)
                found[columns] = self._image_size
        # Without any, the error names a remedy.
        self._set_columns(max(found, key=lambda k: (found[k], -k), default=len(self.results)))
        return fit(resolution, measure)

    def _measure(self, size: int, unit: float) -> tuple[int, int]:
        """Set the lengths of all parts, and return width and height of the frame that they need."""
        self._image_size, self._pen = size, Pen(unit)
        px = self._pen.px
        shown = [display_size(result.image, size) for result in self.results]
        self._cell = (max(width for width, _ in shown), max(height for _, height in shown))
        lines = LINES + 18 * self._fact_lines - (18 if self._same else 0)
        self._cell_height = px(HEADING) + self._cell[1] + px(lines)
        margin = px(MARGIN)
        width = max(self._columns * (self._cell[0] + margin), px(2 * BAR + 2 * MARGIN)) + margin
        height = margin + px(HEAD) + self._rows * self._cell_height + margin // 2
        legend = ROW * (-(-len(self.results) // NAMES) - 1)
        self._curve_height = 0 if self._panel is None else px(CURVE - 20 + legend)
        return width, height + self._curve_height + (margin if self._curve_height else 0)

    def _lay_out(self) -> None:
        """Draw what all frames share."""
        px, (width, height) = self._pen.px, self.size
        margin = px(MARGIN)
        spare = height - self._measure(self._image_size, self._pen.unit)[1]
        # Higher curves rather than a border.
        higher = min(spare, self._curve_height)
        self._curve_height += higher
        spare -= higher
        self._background = Image.new("RGB", self.size, BACKGROUND)
        self._top = margin + spare // 2
        self._write_bar(width - margin)
        grid = self._columns * (self._cell[0] + margin) - margin
        self._corners = []
        for k in range(len(self.results)):
            row, column = divmod(k, self._columns)
            left = (width - grid) // 2 + column * (self._cell[0] + margin)
            top = self._top + px(HEAD) + row * self._cell_height
            self._corners.append((left, top))
        self._overlays = [self._place(k) for k in range(len(self.results))]
        self._curve = None
        if self._panel is not None:
            top = self._top + px(HEAD) + self._rows * self._cell_height + margin // 2
            box = (margin, top, width - margin, top + self._curve_height)
            columns = NAMES if len(self.results) > NAMES else COLUMNS
            self._curve = Curve(self._panel, self._cursors, box, self._pen, columns, area=False)
            self._curve.draw(self._background)

    def _place(self, k: int) -> tuple[Overlay, tuple[int, int]]:
        """Draw name and image of result `k`; return its overlay, and the corner of what changes."""
        pen, result, (left, top) = self._pen, self.results[k], self._corners[k]
        overlay = Overlay(
            result.image, result.geometry, self._image_size, self._colors, self._opacity
        )
        pen.write(
            self._background,
            (left, top + pen.px(HEADING - 9)),
            self.names[k],
            "body",
            width=self._cell[0],
        )
        corner = (
            left + (self._cell[0] - overlay.image.width) // 2,
            top + pen.px(HEADING) + (self._cell[1] - overlay.image.height) // 2,
        )
        self._background.paste(overlay.image, corner)
        for line, (text, style) in enumerate(self._facts[k]):
            at = (left, self._below(k) + pen.px(16 + 18 * line))
            pen.write(self._background, at, text, style, width=self._cell[0])
        return overlay, (corner[0] + overlay.corner[0], corner[1] + overlay.corner[1])

    def _below(self, k: int) -> int:
        """Return the bottom of the place of picture `k`."""
        return self._corners[k][1] + self._pen.px(HEADING) + self._cell[1]

    def _write_bar(self, right: int) -> None:
        pen = self._pen
        left, top = right - pen.px(BAR), self._top + pen.px(4)
        bottom = top + pen.px(12)
        strip = Image.fromarray(self._colors[None])
        size = (right - left, bottom - top)
        self._background.paste(strip.resize(size, Image.Resampling.BILINEAR), (left, top))
        ends = ("negative", "positive") if self._stacks[0].signed else ("low", "high")
        pen.write(self._background, (left, bottom + pen.px(16)), ends[0], "number")
        pen.write(self._background, (right, bottom + pen.px(16)), ends[1], "number", "rs")
        text = _SCALES[str(self._normalization)]
        pen.write(self._background, (right, bottom + pen.px(33)), text, "small", "rs")

    def canvas(self, i: int) -> Image.Image:
        """Return frame `i`, 0 to N - 1, as a picture of Pillow.

        Raises
        ------
        LayerIndexError
            If `i` is out of range.
        """
        if not 0 <= i < len(self):
            raise LayerIndexError(
                f"Frame {i} is out of range: the frames are 0 to {len(self) - 1}."
            )
        canvas = self._background.copy()
        self._write_head(canvas, i)
        for k, (overlay, corner) in enumerate(self._overlays):
            stack, index = self._stacks[k], self.indices[k][i]
            levels = stack.native(index)
            if stack.signed:
                levels = np.float32(0.5) * levels + np.float32(0.5)
            canvas.paste(overlay.blend(levels), corner)
            self._write_cell(canvas, k, index)
        if self._curve is not None:
            self._curve.mark(canvas, i)
        return canvas

    def changed(self, i: int) -> None:
        """Return None, as most of a frame changes; see `camanim.render.movie.Renderer`."""

    def _write_head(self, canvas: Image.Image, i: int) -> None:
        pen, left = self._pen, self._pen.px(MARGIN)
        width = self.size[0] - 3 * left - pen.px(BAR)
        layer = self.results[0].layers[self.indices[0][i]]
        pen.write(canvas, (left, self._top + pen.px(11)), f"Layer {i + 1}/{len(self)}", "place")
        text = layer.label if self._same else f"aligned by {self.aligned}"
        pen.write(canvas, (left, self._top + pen.px(38)), text, "title", width=width)

    def _write_cell(self, canvas: Image.Image, k: int, index: int) -> None:
        """Write the layer and the raw values of the scale below picture `k`."""
        pen, (left, _), width = self._pen, self._corners[k], self._cell[0]
        baseline = self._below(k) + pen.px(16) + self._fact_lines * pen.px(18)
        if not self._same:
            label = self.results[k].layers[index].label
            pen.write(canvas, (left, baseline), label, "place", width=width)
            baseline += pen.px(18)
        stack = self._stacks[k]
        low, high = stack.limits(index)
        low = -high if stack.signed else low
        text, style = f"raw values {low + 0.0:.3g} to {high:.3g}", "small"
        if high <= low:
            text = f"constant, {high:.3g}"
        if missing := self.results[k].no_evidence(index):
            text, style = missing, "warning"
        pen.write(canvas, (left, baseline), text, style, width=width)

    def _curves(self) -> tuple[Panel | None, list[Cursor]]:
        """Return the panel with the curves of one finding, and a cursor for each frame."""
        keys = [key for result in self.results for key in result.findings]
        # What most results have, the first of these in the order of the findings.
        for key in sorted(dict.fromkeys(keys), key=lambda key: -keys.count(key)):
            found = {
                name: result.findings[key]
                for name, result in zip(self.names, self.results, strict=True)
                if key in result.findings and np.isfinite(result.findings[key].main_values()).any()
            }
            if not found:
                continue
            panel = curves.overlaid(found)
            title = curves.title_of(next(iter(found.values())))
            # The first is first in the legend.
            panel = replace(panel, x_label=f"{title} by {panel.x_label}", lines=panel.lines[::-1])
            return panel, self._cursors_on(panel)
        return None, []

    def _cursors_on(self, panel: Panel) -> list[Cursor]:
        lines = {line.name: line for line in panel.lines}
        cursors = []
        for i in range(len(self)):
            values = []
            for k, name in enumerate(self.names):
                if name in lines:
                    line, index = lines[name], self.indices[k][i]
                    x = (panel.x if line.x is None else line.x)[index]
                    if np.isfinite(line.y[index]):
                        values.append((float(x), float(line.y[index])))
            at = float(curves.relative_depth(len(self))[i])
            if panel.by_layer:
                # Results without this finding may have other layers.
                k = next(k for k, name in enumerate(self.names) if name in lines)
                at = float(panel.x[self.indices[k][i]])
            cursors.append(Cursor(at, tuple(values)))
        return cursors

    def row(self, i: int) -> dict[str, Any]:
        """Return the row of frame `i` in the table of a folder."""
        layer = self.results[0].layers[self.indices[0][i]]
        labels = {
            f"layer of {name}": result.layers[frames[i]].label
            for name, result, frames in zip(self.names, self.results, self.indices, strict=True)
        }
        return layer_row(layer, i) | labels


def _facts(
    names: Sequence[str], results: Sequence[Result], planes: Sequence[str]
) -> list[list[tuple[str, str]]]:
    """Return for each result its plane and what differs, and that its image is missing, with styles."""
    found = []
    for plane, text, result in zip(planes, _differences(names, results), results, strict=True):
        lines = [(", ".join(filter(None, (plane, text))), "small"), (result.image_note, "failed")]
        found.append([(line, style) for line, style in lines if line])
    return found


def _differences(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return for each result what differs and its name does not say: class, method, network."""
    facts = [
        (
            f"{result.target.name} ({value_in_words(result.probability, result.target.unit)})",
            result.method,
            str(result.provenance.get("model", "")),
        )
        for result in results
    ]
    differs = [len({fact[k] for fact in facts}) > 1 for k in range(3)]
    return [
        ", ".join(f for f, d in zip(fact, differs, strict=True) if d and f and f not in name)
        for name, fact in zip(names, facts, strict=True)
    ]


@checked(RenderError)
def write_grid_movie(
    results: Mapping[str, Result],
    path: str | Path,
    *,
    normalization: Normalization = "local",
    signed: bool = False,
    fps: Fps = 5,
    size: FrameSize = 300,
    resolution: Resolution | None = None,
    stage_seconds: StageSeconds | None = None,
    fade: Seconds = 0.0,
    colormap: str | None = None,
    opacity: Opacity = 0.5,
    quality: Quality = "standard",
    title: str | None = None,
    z: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a movie with the maps of 2 to 9 results side by side, such as methods or classes.

    Results of the same network show the same layer in each frame, or where one has no map of it, the
    nearest in the order of execution. Other networks are aligned by relative depth, which the frames
    say, with the layer of each picture. Below are the curves of the finding that most results have.

    Parameters
    ----------
    results : mapping of str to Result
        By the name that is shown.
    path : path-like
        As for `write_movie`.
    normalization : {"local", "global"}
        Scale of the maps: a separate scale for each map, or one for all layers of a result.
    size : int
        Longer side of each image, in pixels.
    stage_seconds : float, optional
        Seconds of each stage of the first network; see `write_movie`.
    title : str, optional
        Title in the metadata; by default the names of the results.
    signed, fps, resolution, fade, colormap, opacity, quality, z, progress
        As for `write_movie`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If there are fewer or more results, the path or a setting is invalid, or writing fails.
    """
    target = checked_movie(path, fps)
    planes = {str(name): take_plane(result, z) for name, result in results.items()}
    words = {str(name): plane_in_words(result, z) for name, result in results.items()}
    renderer = GridRenderer(
        planes,
        normalization=normalization,
        signed=signed,
        size=size,
        resolution=resolution,
        colormap=colormap,
        opacity=opacity,
        planes=words,
    )
    first, order = renderer.results[0], renderer.indices[0]
    times = timings([first.layers[i] for i in order], fps, stage_seconds, fade)
    comment = (
        f"Class activation maps of {len(planes)} results, aligned by {renderer.aligned}, in order of "
        "execution"
    )
    if any(words.values()):
        comment += f"; {_joined(words.values())} of the volume"
    missing = dict.fromkeys(r.image_note for r in renderer.results if r.image_note)
    comment = ". ".join([comment, *missing])
    tags = {
        "Title": title or ", ".join(planes),
        "Model": _joined(str(r.provenance.get("model", "")) for r in renderer.results),
        "Method": _joined(r.method for r in renderer.results),
        "Class": _joined(r.target.name for r in renderer.results),
        **common_tags(comment),
    }
    rows = [renderer.row(i) for i in range(len(renderer))]
    write_frames(
        renderer, target, times, rows, fps=fps, quality=quality, tags=tags, progress=progress
    )
    return target


def _joined(texts: Any) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))
