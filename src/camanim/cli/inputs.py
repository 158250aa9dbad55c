"""From the arguments of a command to results: images are explained, saved results are opened.

A command that takes images or saved results calls `Explanation.of`, which checks all arguments, and
loops over `each_result`, or passes both to `camanim.cli.batch.run_batch`. The network is
loaded once for all images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import camanim
from camanim.cam_methods import find_method
from camanim.cli import options
from camanim.cli.findings import compute, parse_requests
from camanim.cli.masks import read_mask
from camanim.cli.naming import filled, is_result_file
from camanim.errors import CamError, ImageError, ScoreError
from camanim.findings import NO_SINGLE_INPUT, FindingRequest
from camanim.models.overrides import ModelOverrides
from camanim.progress import IMAGES, Progress, silent
from camanim.settings import Settings, WindowSettings

if TYPE_CHECKING:
    from camanim.animation import Animation
    from camanim.models import Model

#: Options of `Explanation.of`.
EXPLAINED = (*options.SOURCE, "method", "target", "windows", *options.SCORES)
GROUPS = (
    options.NETWORK_OPTIONS,
    options.RUN_OPTIONS,
    options.WINDOW_OPTIONS,
    options.ROAD_OPTIONS,
)


def read_pixels(path: Path) -> Any:
    """Read the image of a command.

    Raises
    ------
    ImageError
        If it is a saved result, or as of `camanim.open_image`.
    """
    if is_result_file(path):
        raise ImageError(f"{path} is a saved result: give the image that is to be explained.")
    return camanim.open_image(path)


def load_network(
    arguments: Mapping[str, Any], progress: Progress = silent, *, source: str | None = None
) -> Model:
    """Load the network of ``--model``, with the settings of the options of networks.

    Parameters
    ----------
    arguments : mapping
        Arguments of the command.
    progress : Progress
    source : str, optional
        The network, instead of ``--model``.

    Raises
    ------
    ModelError
        If it does not exist, or a setting is wrong.
    """
    return camanim.load_model(
        arguments["model"] if source is None else source,
        None if arguments["weights"].lower() == "none" else arguments["weights"],
        **options.NETWORK_OPTIONS.values(arguments),
        trust=arguments["trust"],
        progress=progress,
    )


@dataclass
class Outcome:
    """What became of one image.

    Attributes
    ----------
    path : Path
    animation : Animation or None
        The result; None if it failed.
    error : CamError or None
        Why it failed, or which findings did.
    notes : list of str
        Notes of further runs, which are not those of `animation`.
    """

    path: Path
    animation: Animation | None = None
    error: CamError | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Explanation:
    """What is computed for each image, by the checked arguments of a command.

    Attributes
    ----------
    arguments : mapping
    settings : dict
        Keywords of `camanim.animate`.
    windows : dict or None
        Further keywords of `camanim.animate_windows`; None without ``--windows``.
    requests : list of FindingRequest
    """

    arguments: Mapping[str, Any]
    settings: dict[str, Any]
    windows: dict[str, Any] | None
    requests: list[FindingRequest]
    _model: list[Model] = field(default_factory=list)
    _announced: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, arguments: Mapping[str, Any], paths: Sequence[Path]) -> Explanation:
        """Check all arguments before anything is computed.

        Parameters
        ----------
        arguments : mapping
            Values of the options `EXPLAINED` and `GROUPS`, and the ``context`` of the command.
        paths : sequence of Path
            Images and saved results.

        Raises
        ------
        typer.BadParameter
            If options do not fit each other.
        CamError
            If a value is wrong.
        """
        ModelOverrides(**options.NETWORK_OPTIONS.values(arguments))
        settings = options.RUN_OPTIONS.values(arguments)
        Settings(**settings)
        find_method(arguments["method"])
        explanation = cls(
            arguments,
            {"method": arguments["method"], "target": arguments["target"], **settings},
            _window_settings(arguments),
            _requests(arguments),
        )
        if explanation.windows is not None:
            _check_computable(explanation.requests)
        if arguments["mask"] is not None:
            for path in paths:
                filled(arguments["mask"], path, "--mask")
        if arguments["quiet"]:
            explanation._announced.update(map(str, explanation.requests))
        _check_effect(arguments, list(map(is_result_file, paths)), explanation.requests)
        return explanation

    def variant(self, arguments: Mapping[str, Any], paths: Sequence[Path]) -> Explanation:
        """Return one of other arguments with the same network, whose prices are printed once."""
        other = Explanation.of(arguments, paths)
        other._model, other._announced = self._model, self._announced
        return other

    def model(self, progress: Progress) -> Model:
        """Return the network, which is loaded once."""
        if not self._model:
            self._model.append(load_network(self.arguments, progress))
        return self._model[0]

    def mask(self, path: Path) -> Any:
        """Return the mask for an image; None without ``--mask``."""
        name = self.arguments["mask"]
        return None if name is None else read_mask(filled(name, path, "--mask"))

    def explain(self, path: Path, progress: Progress) -> Animation:
        """Explain an image, or open a saved result."""
        if is_result_file(path):
            result = camanim.load(path, trust=self.arguments["trust"], progress=progress)
            if self.requests and self.settings["device"] is not None:
                result.model = result.model.to(self.settings["device"])
            return result
        pixels = read_pixels(path)
        explain = camanim.animate if self.windows is None else camanim.animate_windows
        return explain(
            self.model(progress),
            pixels,
            **self.settings,
            **(self.windows or {}),
            progress=progress,
        )

    def outcome(self, path: Path, progress: Progress) -> Outcome:
        """Return the result for an image with its findings, or the error."""
        try:
            mask = self.mask(path)
            animation = self.explain(path, progress)
            defaults = {
                "mask": mask,
                "label": self.arguments["mask_label"],
                "seed": self.settings["seed"],
                "progress": progress,
            }
            problems = compute(animation, self.requests, defaults, self._announced)
        except CamError as error:
            return Outcome(path, error=error)
        return Outcome(path, animation, ScoreError(" ".join(problems)) if problems else None)


def each_result(
    paths: Sequence[Path], explanation: Explanation, progress: Progress = silent
) -> Iterator[Outcome]:
    """Yield the outcome of each image or saved result; one that fails is not the end.

    Parameters
    ----------
    paths : sequence of Path
        See `camanim.cli.naming.input_paths`.
    explanation : Explanation
    progress : Progress

    Raises
    ------
    CamError
        If the network cannot be loaded.
    """
    several = len(paths) > 1
    if several and not all(map(is_result_file, paths)):
        # An error of the network is not that of one image.
        explanation.model(progress)
    for i, path in enumerate(paths):
        if several:
            progress(IMAGES, i, len(paths))
        yield explanation.outcome(path, progress)
    if several:
        progress(IMAGES, len(paths), len(paths))


def _check_effect(
    arguments: Mapping[str, Any], saved: Sequence[bool], requests: Sequence[FindingRequest]
) -> None:
    """Raise `typer.BadParameter` for an option that has no effect on a saved result.

    The device, the batch size and the seed do not change what is said of it, so that they may be those
    of images beside it.
    """
    if not any(saved):
        return
    computed = () if all(saved) else ("seed", "batch_size", "device")
    if requests:
        computed = (*computed, "seed", "device")
    check_unchanged(
        arguments,
        ("method", "target", "windows", "model", "weights"),
        but=computed,
        mixed=not all(saved),
    )


def check_unchanged(
    arguments: Mapping[str, Any],
    extra: Sequence[str],
    *,
    but: Sequence[str] = (),
    mixed: bool = False,
) -> None:
    """Raise `typer.BadParameter` for an option of runs, which has no effect on saved results.

    Parameters
    ----------
    arguments : mapping
        Arguments of the command, with its ``context``.
    extra : sequence of str
        Keywords of `options.EXTRA_OPTIONS`.
    but : sequence of str
        Keywords of settings of a run that have an effect.
    mixed : bool
        Whether there are images beside the saved results.
    """
    names = ["--" + name.replace("_", "-") for name in extra]
    for group in (options.NETWORK_OPTIONS, options.RUN_OPTIONS):
        names += [option.names[0] for option in group.options if option.keyword not in but]
    changed = [name for name in options.given(arguments["context"]) if name in names]
    if changed:
        instead = (
            "give saved results and images in separate commands" if mixed else "give the image"
        )
        raise typer.BadParameter(
            f"{', '.join(changed)} has no effect on a saved result, which was computed before: "
            f"leave it out, or {instead}."
        )


def _window_settings(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the checked settings of ``--windows``; None without it."""
    values = options.WINDOW_OPTIONS.values(arguments)
    if arguments["windows"]:
        WindowSettings(**values)
        return values
    changed = options.WINDOW_OPTIONS.changed(arguments)
    if changed:
        raise typer.BadParameter(f"{', '.join(changed)} needs --windows.")
    return None


def _check_computable(requests: list[FindingRequest]) -> None:
    """Raise `ScoreError` if a finding needs the network's input, which windows do not have."""
    for request in requests:
        if request.kind.needs_input:
            raise ScoreError(NO_SINGLE_INPUT)


def _requests(arguments: Mapping[str, Any]) -> list[FindingRequest]:
    """Return the requested findings, including ROAD by ``--road``."""
    masked = arguments["mask"] is not None
    requests = parse_requests(
        arguments["find"], arguments["measure"], mask=masked, checks=arguments["checks"]
    )
    road = options.ROAD_OPTIONS.values(arguments)
    if arguments["road"]:
        requests.append(FindingRequest("road", road))
    elif road != options.ROAD_OPTIONS.defaults:
        raise typer.BadParameter("--repeats, --draws and --no-baseline need --road.")
    if not masked and arguments["mask_label"] is not None:
        raise typer.BadParameter("--mask-label needs --mask.")
    return requests
