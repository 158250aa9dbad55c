"""Captions: what a figure shows, by which networks and methods, for which classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camanim._version import __version__
from camanim.figures.picking import network_of, short_network, value_of
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


def remarks(results: Sequence[Result]) -> list[str]:
    """Return warnings of findings, notes of the runs, and what was cancelled."""
    sentences: dict[str, None] = {}
    for result in results:
        for text in (*result.warnings, *result.notes):
            sentences[text if text.endswith((".", "!", "?")) else f"{text}."] = None
    if any(result.cancelled for result in results):
        sentences["A run was cancelled: some layers or windows have no map."] = None
    return list(sentences)


def caption(opening: str, results: Sequence[Result], *more: str, scale: Sequence[str] = ()) -> str:
    """Return the caption of a figure, one paragraph.

    Parameters
    ----------
    opening : str
        What is shown, one sentence.
    results : sequence of Result
    *more : str
        Further sentences.
    scale : sequence of str
        Sentences about the colours of maps; see `camanim.figures.scales.scale_in_words`.
    """
    sentences = [opening, *about(results), *more, *scale, *remarks(results)]
    sentences.append(f"Made with napari-camanim {__version__}.")
    return " ".join(" ".join(filter(None, sentences)).split())
