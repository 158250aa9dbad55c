"""Networks: their sources, loading, and permission to run code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import camanim
from camanim.models import Untrusted
from camanim.models.names import has_prefix, published_name
from camanim.progress import Progress

if TYPE_CHECKING:
    from camanim import Animation, Model

#: Files and folders with code that the user has allowed to run, until napari is closed.
TRUSTED: set[str] = set()


@dataclass(frozen=True)
class ModelSpec:
    """Source and settings of a network.

    Attributes
    ----------
    source : str
    settings : dict
        Settings of `camanim.load_model`.
    """

    source: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def from_files(self) -> bool:
        """Whether any part is read from a file, which can change while napari is open."""
        weights = self.settings.get("weights")
        return (
            not has_prefix(self.source)
            or "classes" in self.settings
            or not (weights is None or published_name(weights))
        )


class Networks:
    """Loads networks and caches the last one."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self._spec: ModelSpec | None = None

    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """Return a network, from the cache if it was the last one.

        Raises
        ------
        Untrusted
            If the source contains code that the user has not allowed to run.
        ModelError
            See `camanim.load_model`.
        """
        if self.model is not None and self._spec == spec:
            return self.model
        self.release()
        progress("load", 0, 0)
        model = _load(spec, progress)
        if not spec.from_files:
            self.model, self._spec = model, spec
        return model

    def loaded(self, spec: ModelSpec) -> Model | None:
        """Return a network if it is in the cache."""
        return self.model if self._spec == spec else None

    def release(self) -> None:
        """Remove the network from the cache."""
        self.model = self._spec = None


def _load(spec: ModelSpec, progress: Progress) -> Model:
    try:
        return camanim.load_model(spec.source, **spec.settings, progress=progress)
    except Untrusted as error:
        if str(error.source) not in TRUSTED:
            raise
    return camanim.load_model(spec.source, **spec.settings, trust=True, progress=progress)


def is_stored(animation: Animation) -> bool:
    """Return whether a result was opened from a file; its network is loaded when it is needed."""
    from camanim.store.network import StoredModel

    return isinstance(animation.model, StoredModel)


def is_loaded(animation: Animation) -> bool:
    """Return whether the network of a result is in memory."""
    return bool(getattr(animation.model, "is_loaded", True))


def load_stored(animation: Animation, progress: Progress) -> None:
    """Load the network of a result that was opened from a file, before something new is computed.

    Parameters
    ----------
    animation : Animation
        Of any other result, nothing is loaded. If the user has allowed the network's code to run, its
        `model` is replaced by the trusted one.
    progress : Progress

    Raises
    ------
    Untrusted
        If its files contain code that the user has not allowed to run.
    ModelError
        If it cannot be loaded, or has other weights now.
    """
    from camanim.store.network import StoredModel

    model = animation.model
    if not isinstance(model, StoredModel) or model.is_loaded:
        return
    progress("load", 0, 0)
    try:
        model.load(progress)
    except Untrusted as error:
        if str(error.source) not in TRUSTED:
            raise
        model = model.trusted(progress)
        model.load(progress)
        animation.model = model
