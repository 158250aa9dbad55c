"""Captions: what a figure shows, by which networks and methods, for which classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camanim._version import __version__
from camanim.figures.picking import names_of, network_of, short_network, value_of
from camanim.figures.style import MapStyle
from camanim.result import Result

#: Most names that are listed.
MOST = 24


def listing(names: Iterable[str]) -> str:
    """Return names separated by commas; of many, the first and the last and their number."""
    given = list(names)
    if len(given) > MOST:
        return f"{given[0]} to {given[-1]} ({len(given)})"
    return ", ".join(given)


def about(results: Sequence[Result]) -> list[str]:
    """Return sentences about networks, methods, classes with their probabilities, and seeds."""
    networks = list(dict.fromkeys(filter(None, map(network_of, results))))
    random = {network_of(result) for result in results if result.random_weights}
    mark = "random weights"
    shown = [f"{n} ({mark})" if n in random and mark not in n else n for n in networks]
    sentences = [
        f"{_plural('Network', len(shown))}: {listing(shown)}." if shown else "",
        f"{_plural('Method', len({r.method for r in results}))}: "
        f"{listing(dict.fromkeys(r.method for r in results))}.",
        _classes(results, several_networks=len(networks) > 1),
    ]
    if random and not any(mark in note for result in results for note in result.notes):
        sentences.append("With random weights, nothing was learnt: the maps show no evidence.")
    if any(result.provenance.get("counterfactual") for result in results):
        sentences.append("Counterfactual: evidence against the class.")
    seeds = dict.fromkeys(str(r.provenance["seed"]) for r in results if "seed" in r.provenance)
    if seeds:
        sentences.append(f"Seed: {listing(seeds)}.")
    return [sentence for sentence in sentences if sentence]


def _classes(results: Sequence[Result], *, several_networks: bool) -> str:
    values: dict[str, dict[str, None]] = {}
    for result in results:
        value = value_of(result)
        if several_networks:
            value += f" by {short_network(network_of(result))}"
        values.setdefault(result.target.name, {})[value] = None
    texts = [f"{name} ({', '.join(of)})" for name, of in values.items()]
    return f"{'Class' if len(texts) == 1 else 'Classes'}: {listing(texts)}."


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def scale(results: Sequence[Result], style: MapStyle) -> list[str]:
    """Return sentences about the normalisation and the colours."""
    if style.signed:
        sentences = [
            "Colours: evidence for the class above the middle of the colour bar, against it below, "
            "divided by the largest absolute value "
        ]
    else:
        sentences = ["Colours: positive evidence, from 0 to the maximum "]
    if style.normalization == "local":
        sentences[0] += "of each map (local scale)."
    else:
        of = "of all maps" if len(results) == 1 else "of all maps of each result"
        limits = _limits(results, signed=style.signed)
        sentences[0] += f"{of} (global scale): {limits}."
    sentences.append("The number below a map is its raw maximum.")
    if not style.signed and any(not r.highest(i) > 0 for r in results for i in range(len(r))):
        sentences.append(
            'A map without positive evidence is marked, by "none" where space is short.'
        )
    return sentences


def _limits(results: Sequence[Result], *, signed: bool) -> str:
    values = [f"{highest(result, signed=signed):.3g}" for result in results]
    if len(values) == 1:
        return values[0]
    return ", ".join(f"{n} {v}" for n, v in zip(names_of(results), values, strict=True))


def highest(result: Result, *, signed: bool) -> float:
    """Return the raw value at the upper end of the global scale."""
    extremes = result.extremes or [(float(m.min()), float(m.max())) for m in result.maps]
    values = [max(high, -low) if signed else high for low, high in extremes]
    return max([0.0, *values])


def remarks(results: Sequence[Result]) -> list[str]:
    """Return warnings of findings, notes of the runs, and what was cancelled."""
    sentences: dict[str, None] = {}
    for result in results:
        for text in (*result.warnings, *result.notes):
            sentences[text if text.endswith((".", "!", "?")) else f"{text}."] = None
    if any(result.cancelled for result in results):
        sentences["A run was cancelled: some layers or windows have no map."] = None
    return list(sentences)


def caption(
    opening: str, results: Sequence[Result], *more: str, style: MapStyle | None = None
) -> str:
    """Return the caption of a figure, one paragraph.

    Parameters
    ----------
    opening : str
        What is shown, one sentence.
    results : sequence of Result
    *more : str
        Further sentences.
    style : MapStyle, optional
        Of maps.
    """
    sentences = [opening, *about(results), *more]
    if style is not None:
        sentences += scale(results, style)
    sentences += remarks(results)
    sentences.append(f"Made with napari-camanim {__version__}.")
    return " ".join(" ".join(filter(None, sentences)).split())
