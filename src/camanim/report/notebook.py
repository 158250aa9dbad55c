"""Compact HTML of a result for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from camanim.render.overlay import Thumbnails
from camanim.report.encoding import data_uri, evenly
from camanim.report.templates_folder import template
from camanim.report.wording import checks_in_words, file_name, remarks, warnings
from camanim.slicing import plane_in_words, take_plane
from camanim.words import value_in_words

if TYPE_CHECKING:
    from camanim.result import Result

#: Number of thumbnails, and their longer side in pixels.
_THUMBNAILS, _SIDE = 8, 112


def notebook_html(result: Result) -> str:
    """Return a result as a piece of HTML without scripts, for notebooks.

    It has the target, the layer to show first, thumbnails of some layers, warnings and notes. Nothing
    is computed besides the thumbnails. Of a volume, the middle plane is shown.

    Parameters
    ----------
    result : Result

    Returns
    -------
    str
    """
    plane = take_plane(result) if result.maps else result
    first = result.initial_index
    return template("notebook.html.j2").render(
        result=result,
        value=value_in_words(result.probability, result.target.unit),
        network=file_name(str(result.provenance.get("model") or "network")),
        thumbnails=_thumbnails(plane, first) if result.maps else [],
        first=result.layers[first].label if result.maps else "",
        warnings=warnings(result),
        remarks=remarks(result),
        summaries=[s for f in result.findings.values() if (s := f.summary())],
        checks=checks_in_words(result),
        plane=plane_in_words(result) if result.maps else "",
    )


def _thumbnails(plane: Result, first: int) -> list[dict[str, Any]]:
    drawn = Thumbnails(plane, _SIDE)
    return [
        {
            "picture": data_uri(Image.fromarray(drawn.picture(i)), 85),
            "label": plane.layers[i].label,
            "number": i + 1,
            "empty": plane.no_evidence(i),
            "first": i == first,
        }
        for i in evenly(len(plane), _THUMBNAILS, first)
    ]
