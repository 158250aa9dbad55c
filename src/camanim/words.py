"""Numbers, durations and values of targets in words."""

from __future__ import annotations

import math


def rounded(count: int) -> str:
    """Format a count with at most two digits that differ from 0, such as ``34,000``; exact below 100."""
    if abs(count) < 100:
        return str(count)
    step = 10 ** (math.floor(math.log10(abs(count))) - 1)
    return f"{round(count / step) * step:,}"


def short_value(value: float) -> str:
    """Format a probability or a score, such as ``0.59``, ``0.0021``, ``31.46``, ``1.2e+03``."""
    # Two digits in any case: a small probability is not 0.
    return f"{value:.2f}" if 0.005 <= abs(value) < 100 or value == 0 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Format a duration in its largest unit, such as ``0.2 s``, ``40 s``, ``14 min``, ``3.5 h``."""
    for unit, length, below in (("s", 1, 100), ("min", 60, 100)):
        value = seconds / length
        if value < below:
            return f"{max(value, 0.1):.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def value_in_words(value: float, unit: str) -> str:
    """Format the value of a target with its unit, such as ``probability 0.982`` or ``score -3.2``."""
    if unit != "probability":
        return f"{unit} {value:.3g}"
    return f"{unit} {value:.3f}" if value >= 0.0005 else f"{unit} {value:.1e}"
