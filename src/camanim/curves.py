"""Curves over the layers of a network: second curves, stages, and curves of several results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from camanim.errors import RenderError
from camanim.findings import Finding
from camanim.layer_info import LayerInfo
from camanim.plots import Color, Floats, Line, Panel, Span, Style, Twin
from camanim.stages import stages

if TYPE_CHECKING:
    from camanim.result import Result

_COLORS: tuple[Color, ...] = ("first", "second", "third", "fourth")
_STYLES: tuple[Style, ...] = ("solid", "dashed", "dotted", "dashdot")
#: Lines that differ in colour or dashes.
MOST = len(_COLORS) * len(_STYLES)


@dataclass(frozen=True)
class LayerCurve:
    """A value for each shown layer of a result.

    Attributes
    ----------
    name : str
        Such as "parameters" or "ROAD".
    values : (L,) array
        NaN where undefined.
    label : str
        Label of the y axis.
    tip : str
        Explanation in one sentence.
    log : bool
        Whether a logarithmic axis suits the values.
    """

    name: str
    values: Floats
    label: str
    tip: str
    log: bool = False


def layer_curves(result: Result) -> dict[str, LayerCurve]:
    """Return all curves over the layers of a result, by name.

    Returns
    -------
    dict of str to LayerCurve
        The main values of each finding with a panel, by title or key, and "parameters", "output size"
        and "time", as far as they are known.
    """
    curves = []
    for finding in result.findings.values():
        panel = finding.panel()
        if panel is not None and panel.lines:
            curves.append(
                LayerCurve(
                    title_of(finding), finding.main_values(), panel.lines[-1].name, panel.tip
                )
            )
    # Modules without parameters have no place on a logarithmic axis.
    parameters = [layer.parameters or np.nan for layer in result.layers]
    # The geometric mean of the sides.
    sides = [float(np.prod(m.shape)) ** (1 / m.ndim) for m in result.maps]
    milliseconds = [layer.milliseconds or np.nan for layer in result.layers]
    properties = (
        ("parameters", parameters, "parameters",
         "Parameters of each module, including its submodules."),
        ("output size", sides, "output size (cells per side)",
         "Side length of each layer's map before it is resized."),
        ("time", milliseconds, "time (ms)",
         "Time for each map, without the network's forward and backward pass."),
    )  # fmt: skip
    for name, values, label, tip in properties:
        log = name == "parameters"
        curves.append(LayerCurve(name, np.asarray(values, np.float64), label, tip, log))
    return {curve.name: curve for curve in curves if np.isfinite(curve.values).any()}


def find_curve(result: Result, name: str) -> LayerCurve:
    """Return a curve by name.

    Raises
    ------
    RenderError
        If the result has no such curve.
    """
    curves = layer_curves(result)
    if name not in curves:
        known = ", ".join(f'"{known}"' for known in curves)
        raise RenderError(f"Unknown curve {name!r}: choose one of {known}.")
    return curves[name]


def title_of(finding: Finding) -> str:
    """Return the title of a finding, or its key if a result can have several of the kind."""
    return finding.title if finding.key == finding.kind else finding.key


def with_stages(panel: Panel, layers: Sequence[LayerInfo]) -> Panel:
    """Return a panel over layers with the stages of the network; see `camanim.stages`.

    Other panels, and those of a network with a single stage, are returned unchanged.
    """
    if not panel.by_layer or len(panel.x) != len(layers):
        return panel
    found = stages(layers)
    if len(found) < 2:
        return panel
    # Layers are numbered from 1.
    spans = tuple(Span(s.name, s.label, s.first + 0.5, s.last + 1.5) for s in found)
    return replace(panel, spans=spans)


def with_curve(
    panel: Panel, curve: LayerCurve, color: Color = "second", style: Style = "dashed"
) -> Panel:
    """Return a panel over layers with a further curve, on a second y axis."""
    line = Line(curve.name, curve.values, color, style, faint=True)
    return replace(panel, twins=(*panel.twins, Twin((line,), curve.label, curve.log)))


def overlaid(findings: Mapping[str, Finding]) -> Panel:
    """Return a panel with the main values of several results of one kind.

    If all have the same layers, they are plotted over the layers; otherwise over the relative depth,
    from 0 (first layer) to 1 (last layer).

    Parameters
    ----------
    findings : mapping of str to Finding
        Findings of the same kind, by the names for the legend; the first is on top.

    Returns
    -------
    Panel
    """
    items = list(findings.items())
    labels = [[layer.label for layer in finding.layers] for _, finding in items]
    same = all(names == labels[0] for names in labels)
    panels = [finding.panel() for _, finding in items]
    y_label = next((p.y_label for p in panels if p is not None), "")
    lines = []
    for k, (name, finding) in enumerate(items):
        # Combinations repeat after `MOST`.
        color = _COLORS[k % len(_COLORS)]
        style = _STYLES[(k + k // len(_COLORS)) % len(_STYLES)]
        depth = None if same else relative_depth(len(finding.layers))
        lines.append(Line(name, finding.main_values(), color, style, x=depth))
    lines.reverse()
    tip = f"{y_label} of each layer, for several results."
    if same:
        count = len(items[0][1].layers) if items else 0
        return Panel.over_layers(count, lines=tuple(lines), y_label=y_label, tip=tip)
    return Panel(
        relative_depth(len(items[0][1].layers)),
        tuple(lines),
        x_label="relative depth",
        y_label=y_label,
        x_limits=(0.0, 1.0),
        tip=tip,
    )


def relative_depth(count: int) -> Floats:
    """Return the depth of each of a number of layers, from 0 to 1, (N,)."""
    return np.linspace(0, 1, count) if count > 1 else np.full(count, 0.5)
