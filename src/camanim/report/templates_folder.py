"""Templates of the package."""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Every value is escaped, as names of classes and layers can contain HTML.
    return Environment(
        loader=PackageLoader("camanim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(name: str) -> Template:
    """Return a template by the name of its file."""
    return _environment().get_template(name)


def source(name: str) -> str:
    """Return the text of a file beside the templates, such as a style sheet."""
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]
