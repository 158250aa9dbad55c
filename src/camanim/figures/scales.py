"""The maps that a figure shows, with the scale of their colours: colour bar and caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from camanim.figures.picking import names_of
from camanim.figures.style import MapStyle
from camanim.result import Result
from camanim.slicing import plane_index, take_plane
from camanim.stack import Stack, stack_maps

#: Words on a map that has no colours, and those where these do not fit.
NO_EVIDENCE, ALL_ZERO, CONSTANT = "no positive evidence", "zero everywhere", "constant map"
SHORT = {NO_EVIDENCE: "none", ALL_ZERO: "none", CONSTANT: "const."}
NUMBERS = "The number below a map is its raw maximum."


@dataclass
class Drawn:
    """The maps of one result that a figure shows.

    Attributes
    ----------
    result : Result
        Of an image, or of a plane of a volume.
    style : MapStyle
    stack : Stack
        Of its maps.
    layers : list of int
        Indices of the maps that are shown.
    plane : str
        Sentence about the plane of a volume, or empty.
    """

    result: Result
    style: MapStyle
    stack: Stack
    layers: list[int] = field(default_factory=list)
    plane: str = ""

    @classmethod
    def of(cls, result: Result, style: MapStyle) -> Drawn:
        """Return a result for a figure, of a volume one plane; no map is shown yet."""
        shown = take_plane(result, style.z)
        plane = ""
        if shown is not result:
            # Counted from 0, as the setting.
            z = plane_index(result, style.z)
            plane = f"Plane {z} of the planes 0 to {len(result.image) - 1} of a volume"
        elif result.extremes is not None:
            plane = "A plane of a volume"
        if plane:
            plane += "; numbers and scale are those of the whole volume."
        stack = stack_maps(shown, style.normalization, signed=style.signed)
        return cls(shown, style, stack, plane=plane)

    def without_colors(self, i: int) -> str:
        """Return why the map of layer `i` has one colour only, or an empty string."""
        raw = self.result.maps[i]
        if self.stack.signed:
            return "" if raw.any() else ALL_ZERO
        if not (raw > 0).any():
            return NO_EVIDENCE
        low, high = self.stack.limits(i)
        return "" if high > low else CONSTANT


@dataclass(frozen=True)
class Bar:
    """A colour bar, with text at its ends.

    Attributes
    ----------
    colormap : str
    low, high : str
    title : str
    """

    colormap: str
    low: str
    high: str
    title: str


def bar_of(drawn: Sequence[Drawn], style: MapStyle) -> Bar:
    """Return the colour bar of maps; with raw values at its ends where all maps share a scale."""
    title = (
        f"{'signed evidence' if style.signed else 'positive evidence'}, {style.normalization} scale"
    )
    end = "max. |value|" if style.signed else "max."
    if style.normalization == "global" and len(drawn) == 1:
        lower, upper = drawn[0].stack.limits(0)
        low, high = f"{-upper if style.signed else lower:.3g}", f"{upper:.3g}"
        return Bar(style.shown_colormap, low, high, title)
    of = "of each map" if style.normalization == "local" else "of each result"
    lows = list(_lows(drawn))
    low = "0"
    if style.signed:
        low = f"-{end}"
    elif any(lows):
        low = f"min. {of}" if all(lows) else f"0 or min. {of}"
    return Bar(style.shown_colormap, low, f"{end} {of}", title)


def _lows(drawn: Sequence[Drawn]) -> Iterator[float]:
    """Yield the raw values at the lower end of the scales of all shown maps."""
    for each in drawn:
        for i in each.layers:
            yield each.stack.limits(i)[0]


def scale_in_words(drawn: Sequence[Drawn], *, numbers: str = NUMBERS) -> list[str]:
    """Return sentences about planes, normalisation, colours, numbers and marks of maps.

    Parameters
    ----------
    drawn : sequence of Drawn
        With the same settings.
    numbers : str
        Sentence about the numbers at the maps.
    """
    style, from_zero = drawn[0].style, starts_at_zero(drawn)
    if style.normalization == "local":
        of, scale = "of each map", "(local scale)"
    else:
        of = "of all maps" if len(drawn) == 1 else "of all maps of each result"
        scale = f"(global scale): {_limits(drawn, from_zero=from_zero)}"
    return [
        *dict.fromkeys(each.plane for each in drawn if each.plane),
        f"Colours: {colors_in_words(of, style, from_zero=from_zero)} {scale}.",
        numbers,
        *marks_in_words(drawn),
    ]


def starts_at_zero(drawn: Sequence[Drawn]) -> bool:
    """Return whether the scales of all shown maps begin at 0, or have it in the middle."""
    return not any(_lows(drawn))


def colors_in_words(of: str, style: MapStyle, *, from_zero: bool) -> str:
    """Return what the colours of maps mean.

    Parameters
    ----------
    of : str
        What the ends of the scale are those of, such as ``"of each map"``.
    style : MapStyle
    from_zero : bool
        See `starts_at_zero`.
    """
    if style.signed:
        return (
            "evidence for the class above the middle of the colour bar, against it below, divided by "
            f"the largest absolute value {of}"
        )
    start = "0" if from_zero else "the minimum, or 0 if it is negative,"
    return f"positive evidence, from {start} to the maximum {of}"


def marks_in_words(drawn: Sequence[Drawn]) -> list[str]:
    """Return sentences about the marks on maps that have one colour only."""
    found = {each.without_colors(i) for each in drawn for i in each.layers}
    sentences = []
    if NO_EVIDENCE in found:
        sentences.append(
            'A map without positive evidence is marked, by "none" where space is short.'
        )
    if CONSTANT in found:
        sentences.append("A constant map is marked: it has the colour of the lower end.")
    return sentences


def _limits(drawn: Sequence[Drawn], *, from_zero: bool) -> str:
    limits = [each.stack.limits(0) for each in drawn]
    # As on the colour bar; one that starts at 0 needs its upper end only.
    values = [f"{high:.3g}" if from_zero else f"{low:.3g} to {high:.3g}" for low, high in limits]
    if len(values) == 1:
        return values[0]
    names = names_of([each.result for each in drawn])
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
