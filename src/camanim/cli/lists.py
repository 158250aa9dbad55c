"""``camanim models`` and ``camanim methods``: what there is."""

from __future__ import annotations

from typing import Any

import camanim
from camanim.cam_methods import Method, find_method
from camanim.cli.options import with_options
from camanim.cli.terminal import print_json, print_table, say, setting_record


@with_options("source", ("as_json",))
def models(source: str | None = None, as_json: bool = False) -> None:
    """List the networks that --model takes."""
    names = camanim.list_models(source)
    if as_json:
        print_json(names)
    else:
        say(*names)


@with_options("name", ("as_json",))
def methods(name: str | None = None, as_json: bool = False) -> None:
    """List the methods: what each shows, what it costs, where it was published."""
    if as_json:
        listed = camanim.methods().values() if name is None else [find_method(name)]
        print_json([_record(method) for method in listed])
        return
    if name is not None:
        _describe(find_method(name))
        return
    rows = [
        [
            method.name,
            "yes" if method.class_specific else "no",
            _gradient(method),
            method.summary,
            method.cost,
            method.paper,
        ]
        for method in camanim.methods().values()
    ]
    prose = ("what it shows", "cost", "paper")
    print_table(["method", "class", "gradient", *prose], rows, prose=prose)


def _gradient(method: Method) -> str:
    return "as its base" if method.meta else "yes" if method.needs_gradient else "no"


def _record(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "class specific": method.class_specific,
        "gradient": _gradient(method),
        "summary": method.summary,
        "caveat": method.caveat,
        "cost": method.cost,
        "paper": method.paper,
        "options": [setting_record(option) for option in method.options.values()],
    }


def _describe(method: Method) -> None:
    say(
        f"{method.name}: {method.summary}",
        f"Caveat: {method.caveat}",
        f"Cost: {method.cost}. Paper: {method.paper}.",
        f"Knows the class: {'yes' if method.class_specific else 'no'}.",
        *(
            f"  --option {option.name}={option.default}  {option.help} ({option.expected})"
            for option in method.options.values()
        ),
    )
