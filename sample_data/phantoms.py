"""Synthetic breast-ultrasound (B-mode) pictures with a known lesion outline.

A phantom is built as an ultrasound scanner would see it: a map of tissue echogenicity in decibels
(layers, septa, lesion), the losses along each beam (shadows, enhancement, attenuation), and then
speckle, which arises from random scatterers seen through a point-spread function that is wider
laterally than axially. Lengths are fractions of the picture's side, so any size works.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates

KINDS = ("normal", "benign", "malignant")

Field = NDArray[np.float32]


class Lesion(NamedTuple):
    """What a lesion adds to the tissue around it."""

    inside: Field
    """1 in the lesion, 0 outside, with a soft edge."""
    tissue: Field
    """Echogenicity (dB) to show where `inside` is 1."""
    around: Field
    """Echogenicity (dB) to add everywhere: capsule or halo, microcalcifications."""
    gain: Field
    """Change of signal (dB) along the beam: shadow below 0, enhancement above."""
    mask: NDArray[np.bool_]
    """The lesion's outline, filled."""


def phantom(kind: str, seed: int, size: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Make one phantom.

    Parameters
    ----------
    kind
        ``"normal"``, ``"benign"`` or ``"malignant"``.
    seed
        Everything random follows from it.
    size
        Side of the square picture, in pixels.

    Returns
    -------
    image
        The B-mode picture, ``(size, size)``, 8 bits.
    mask
        True in the lesion; empty for ``"normal"``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    rng = np.random.default_rng(seed)
    echo, loss, gland_top, gland_bottom = _anatomy(rng, size)
    mask = np.zeros((size, size), dtype=bool)
    if kind != "normal":
        lesion = _lesion(rng, size, kind, gland_top, gland_bottom)
        mask = lesion.mask
        # The halo lies over the lesion's rim, so it is added after the tissue is replaced.
        echo = echo * (1 - lesion.inside) + lesion.tissue * lesion.inside + lesion.around
        loss = loss + lesion.gain
    return _scan(rng, echo, loss), mask


def _grid(size: int) -> tuple[Field, Field]:
    """Return depth (a column) and lateral position (a row), each from 0 to 1."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[:, None], axis[None, :]


def _smoother(size: int, scale: float) -> Field:
    """Return the matrix that turns coarse white noise into noise of that correlation length."""
    step = scale
    knots = np.arange(-3 * step, 1 + 3 * step, step, dtype=np.float32)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    weights = np.exp(-0.5 * ((axis[:, None] - knots) / (0.8 * scale)) ** 2)
    # Unit variance at every position, or the grid of knots would show.
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def _noise(rng: np.random.Generator, size: int, deep: float, wide: float) -> Field:
    """Return smooth noise (mean 0, variance 1) with a correlation length for each axis."""
    rows, columns = _smoother(size, deep), _smoother(size, wide)
    white = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return rows @ white @ columns.T


def _curve(rng: np.random.Generator, size: int, wide: float) -> Field:
    """Return a smooth random curve over the lateral axis (mean 0, variance 1)."""
    columns = _smoother(size, wide)
    return columns @ rng.standard_normal(columns.shape[1], dtype=np.float32)


def _sigmoid(x: Field) -> Field:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _septa(rng: np.random.Generator, size: int, deep: float, wide: float, thick: float) -> Field:
    """Return thin bright curved lines (0 to 1), as connective tissue around lobules gives.

    They are level lines of smooth noise; dividing by the gradient gives them a constant thickness,
    and lines across the beam reflect more than lines along it.
    """
    noise = _noise(rng, size, deep, wide)
    down, across = np.gradient(noise, 1 / size)
    steep = np.sqrt(down**2 + across**2) + 0.3 / wide
    lines = np.exp(-0.5 * (noise / (steep * thick)) ** 2)
    facing = (down / steep) ** 2
    broken = _sigmoid(2.5 * _noise(rng, size, 0.08, 0.15) + 0.5)
    return lines * (0.15 + 0.85 * facing) * broken


def _beam(size: int, at: float, width: float, start: float, depth: float) -> Field:
    """Return a soft vertical band of loss (dB, negative) that starts at a depth."""
    y, x = _grid(size)
    spread = width * (1 + 0.5 * np.clip(y - start, 0, 1))
    return -depth * np.exp(-(((x - at) / spread) ** 2)) * _sigmoid((y - start) / 0.04)


def _anatomy(rng: np.random.Generator, size: int) -> tuple[Field, Field, float, float]:
    """Return echogenicity (dB), loss (dB) and the mean depth of the gland's top and bottom."""
    y, x = _grid(size)
    tilt = rng.normal(0, 0.06) * (x - 0.5)
    skin = rng.uniform(0.02, 0.05) + 0.003 * _curve(rng, size, 0.3)
    top = rng.uniform(0.1, 0.34)
    bottom = top + rng.uniform(0.3, 0.5)
    fat_end = top + tilt + rng.uniform(0.01, 0.04) * _curve(rng, size, rng.uniform(0.06, 0.25))
    gland_end = bottom + 1.5 * tilt + 0.02 * _curve(rng, size, 0.25)
    muscle_end = gland_end + rng.uniform(0.12, 0.25) + 0.01 * _curve(rng, size, 0.4)
    fat_end = np.maximum(fat_end, 0.07)

    fat = rng.uniform(-14, -9) + 2.5 * _noise(rng, size, 0.03, 0.06)
    fat += rng.uniform(9, 15) * _septa(rng, size, rng.uniform(0.03, 0.05), 0.15, 0.004)

    # Fibroglandular tissue: bright, streaked, with darker ducts and lobules of fat among it.
    deep, wide = rng.uniform(0.018, 0.04), rng.uniform(0.07, 0.18)
    gland = 2.5 * _noise(rng, size, 0.01, 0.06) + 2.5 * _noise(rng, size, 0.12, 0.2) - 4
    islands = _sigmoid(4 * (_noise(rng, size, deep, wide) - rng.uniform(0.1, 1.1)))
    gland -= rng.uniform(4, 12) * islands
    gland += rng.uniform(5, 12) * _septa(rng, size, 0.015, 0.09, 0.0035)

    muscle = -15 + 2.5 * _noise(rng, size, 0.008, 0.2)
    muscle += 9 * _septa(rng, size, 0.025, 0.5, 0.003)
    beyond = -24 + 2 * _noise(rng, size, 0.05, 0.2) + 8 * _septa(rng, size, 0.06, 0.4, 0.005)

    echo = np.full((size, size), -2.0, dtype=np.float32)
    layers = (
        (skin, fat, 0.005),
        (fat_end, gland, 0.01),
        (gland_end, muscle, rng.uniform(0.01, 0.04)),
        (muscle_end, beyond, rng.uniform(0.01, 0.04)),
    )
    for start, tissue, blur in layers:
        share = _sigmoid((y - start) / blur)
        echo = echo * (1 - share) + tissue * share
    fasciae = ((skin, 5), (gland_end, rng.uniform(4, 13)), (muscle_end, rng.uniform(8, 20)))
    for line, bright in fasciae:
        broken = _sigmoid(2 * _noise(rng, size, 0.3, 0.12) + 1)
        echo += bright * broken * np.exp(-0.5 * ((y - line) / 0.005) ** 2)

    # Dark lobules of fat within the gland: a dark blob alone must not mean a lesion.
    for _ in range(rng.integers(0, 4)):
        cy, cx = rng.uniform(top, bottom), rng.uniform(0, 1)
        ry, rx = rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.14)
        bend = rng.normal(0, 0.3) * (x - cx)
        level = ((y - cy - bend) / ry) ** 2 + ((x - cx) / rx) ** 2
        lobule = _sigmoid((1 - level + 0.25 * _noise(rng, size, 0.05, 0.08)) / 0.2)
        septum = np.exp(-0.5 * ((level - 1.1) / 0.2) ** 2) * np.abs(y - cy - bend) / ry
        fill = -rng.uniform(7, 13) + rng.uniform(3, 7) * _septa(rng, size, 0.02, 0.15, 0.004)
        echo = echo * (1 - lobule) + fill * lobule + 4 * septum

    # Bending everything together is what makes layers and septa look like one tissue.
    shift = rng.uniform(0.006, 0.016) * size * _noise(rng, size, 0.1, 0.1)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    shift *= np.clip(rows / (0.1 * size), 0, 1)
    echo = map_coordinates(echo, (rows + shift, columns), order=1, mode="nearest")

    loss = 0.8 * np.broadcast_to(_curve(rng, size, 0.05), (size, size))
    for _ in range(rng.integers(0, 4)):  # refraction at septa, poor contact of the probe
        start = 0.0 if rng.random() < 0.3 else rng.uniform(0.1, 0.5)
        loss = loss + _beam(
            size, rng.uniform(0, 1), rng.uniform(0.03, 0.09), start, rng.uniform(2, 7)
        )
    if rng.random() < 0.25:  # a rib: a bright cap and nothing behind it
        at, half = rng.uniform(0, 1), rng.uniform(0.1, 0.2)
        cap = float(np.mean(muscle_end)) + 0.35 * (x - at) ** 2 / half
        across = _sigmoid((half - np.abs(x - at)) / 0.01)
        echo += 16 * across * np.exp(-0.5 * ((y - cap) / 0.007) ** 2)
        loss = loss - 16 * across * _sigmoid((y - cap - 0.015) / 0.008)
    return echo, loss, top, bottom


def _outline(rng: np.random.Generator, kind: str, angle: Field) -> Field:
    """Return the lesion's radius, relative to its ellipse, for each angle."""
    radius = np.ones_like(angle)
    if kind == "benign":
        for order in (2, 3, 4, 5):  # a few gentle lobulations at most
            wave = np.cos(order * angle + rng.uniform(0, 2 * np.pi))
            radius += rng.normal(0, 0.1) / (order - 0.5) * wave
        return radius
    for order in range(2, 9):
        wave = np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        radius += rng.normal(0, 0.13) / math.sqrt(order) * wave
    for _ in range(rng.integers(5, 14)):
        sharp = math.exp(rng.uniform(2, 5.5))
        towards = np.cos(angle - rng.uniform(0, 2 * np.pi))
        radius += rng.uniform(0.05, 0.35) * np.exp(sharp * (towards - 1))
    return np.maximum(radius, 0.45)


def _rays(rng: np.random.Generator, angle: Field) -> Field:
    """Return the strands a lesion draws on its surroundings, alternately bright and dark."""
    rays = np.zeros_like(angle)
    for order in range(9, 22):
        rays += rng.normal(0, 1) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.clip(1 + 0.25 * rays, -0.6, 2)


def _lesion(
    rng: np.random.Generator, size: int, kind: str, gland_top: float, gland_bottom: float
) -> Lesion:
    """Return a benign or a malignant lesion, somewhere in or just above the gland."""
    y, x = _grid(size)
    benign = kind == "benign"
    mean = math.exp(rng.uniform(math.log(0.06), math.log(0.18)))
    # Height over width: mostly told apart by it, but the two kinds overlap, as in patients.
    ratio = rng.uniform(0.45, 0.92) if benign else rng.uniform(0.85, 1.5)
    ry, rx = mean * math.sqrt(ratio), mean / math.sqrt(ratio)
    cx = rng.uniform(0.08 + rx, 0.92 - rx)
    cy = rng.uniform(max(gland_top, 0.07 + ry), max(gland_bottom - 0.6 * ry, 0.1 + ry))

    turn = rng.normal(0, 0.15 if benign else 0.3)
    u = math.cos(turn) * (x - cx) + math.sin(turn) * (y - cy)
    v = math.cos(turn) * (y - cy) - math.sin(turn) * (x - cx)
    v = v + 0.05 * mean * _noise(rng, size, 0.12, 0.12)
    angle = np.arctan2(v / ry, u / rx)
    turns = np.linspace(-np.pi, np.pi, 721, dtype=np.float32)
    radius = np.interp(angle, turns, _outline(rng, kind, turns)).astype(np.float32)
    # Signed distance to the outline, roughly, as a fraction of the picture's side.
    away = (np.sqrt((u / rx) ** 2 + (v / ry) ** 2) / radius - 1) * mean
    if not benign:
        away = away + 0.12 * mean * _noise(rng, size, 0.025, 0.03)
    soft = rng.uniform(0.003, 0.006) if benign else rng.uniform(0.005, 0.015)
    inside = _sigmoid(-away / soft)
    edges = np.zeros((size, size), dtype=np.float32)

    if benign:
        cyst = rng.random() < 0.25
        level = rng.uniform(-34, -26) if cyst else rng.uniform(-19, -9)
        tissue = level + 0.8 * _noise(rng, size, 0.03, 0.05)
        capsule = np.exp(-0.5 * ((away - 0.006) / 0.004) ** 2)
        facing = 0.3 + 0.7 * np.sin(angle) ** 2
        around = rng.uniform(4, 9) * capsule * facing
        strength = rng.uniform(6, 11) if cyst else rng.uniform(1, 8)
        # A smooth wall bends the beam at both sides: two thin shadows at the edges.
        for at in (cx - rx, cx + rx):
            edges += _beam(size, at, rng.uniform(0.01, 0.02), cy, rng.uniform(0, 4))
    else:
        tissue = rng.uniform(-24, -13) + rng.uniform(1.5, 4) * _noise(rng, size, 0.025, 0.035)
        tissue += 2 * _noise(rng, size, 0.06, 0.06)
        reach = mean * rng.uniform(0.15, 0.45)
        outside = np.exp(-np.maximum(away, 0) / reach) * (1 - inside)
        rays = np.interp(angle, turns, _rays(rng, turns)).astype(np.float32)
        around = rng.uniform(3, 8) * outside * rays
        if rng.random() < 0.4:
            around = around + _calcifications(rng, size, cy, cx, 0.6 * ry, 0.6 * rx)
        strength = -rng.uniform(8, 18) if rng.random() < 0.85 else rng.uniform(-3, 3)

    # What a beam gains or loses grows with its path through the lesion; the tissue value stands
    # for the lesion as displayed, hence only a part of that change is applied within it.
    path = np.cumsum(inside, axis=0) / (2 * ry * size)
    gain = strength * np.clip(path, 0, 1.2) * (1 - 0.8 * inside)
    gain = gaussian_filter1d(gain, rng.uniform(0.01, 0.03) * size, axis=1)
    gain *= 1 - 0.5 * np.clip((y - cy - ry) / 0.8, 0, 1)
    return Lesion(inside, tissue, around, gain + edges, away < 0)


def _calcifications(
    rng: np.random.Generator, size: int, cy: float, cx: float, ry: float, rx: float
) -> Field:
    """Return a cluster of bright dots (dB)."""
    y, x = _grid(size)
    dots = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.integers(4, 14)):
        at_y, at_x = cy + ry * rng.uniform(-1, 1), cx + rx * rng.uniform(-1, 1)
        shape = np.exp(-0.5 * ((y - at_y) / 0.003) ** 2) * np.exp(-0.5 * ((x - at_x) / 0.004) ** 2)
        dots = np.maximum(dots, rng.uniform(8, 24) * shape)
    return dots


def _scan(rng: np.random.Generator, echo: Field, loss: Field) -> NDArray[np.uint8]:
    """Return the picture a scanner would show: speckle, attenuation, log compression."""
    size = len(echo)
    y, _ = _grid(size)
    # The operator's time-gain compensation never quite cancels attenuation.
    focus = rng.uniform(0.25, 0.6)
    depth = -rng.uniform(0, 10) * y**1.5 - rng.uniform(0, 16) * np.clip(y - focus, 0, 1)
    amplitude = np.exp(np.clip(echo + loss + depth, -70, 30) * np.float32(np.log(10) / 20))
    amplitude += 10 ** (rng.uniform(-52, -42) / 20)  # electronic noise

    axial, lateral = size * rng.uniform(0.002, 0.003), size * rng.uniform(0.0045, 0.007)
    looks = int(rng.integers(3, 6))  # compounding, as most scanners do, softens speckle
    power = np.zeros((size, size), dtype=np.float32)
    for _ in range(looks):
        wave = rng.standard_normal((2, size, size), dtype=np.float32) * amplitude
        wave = gaussian_filter1d(wave, axial, axis=1, truncate=3)
        wave = gaussian_filter1d(wave, lateral, axis=2, truncate=3)
        power += wave[0] ** 2 + wave[1] ** 2
    # The point-spread function averages; restore the power of a flat region of 0 dB.
    power *= 4 * np.pi * axial * lateral / (2 * looks)
    power = gaussian_filter1d(gaussian_filter1d(power, 0.6, axis=0), 0.8, axis=1)

    level = 10 * np.log10(power + 1e-7)
    span, gain = rng.uniform(42, 58), rng.uniform(-7, 2)
    shown = np.clip((level + gain - 8 + span) / span, 0, 1) ** rng.uniform(1.1, 1.8)
    return (shown * 255 + 0.5).astype(np.uint8)
