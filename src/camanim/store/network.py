"""The network of a saved result, which is loaded when something new is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.models import Model, load_model
from camanim.models.base import unwrap
from camanim.models.card import card_arguments, card_document
from camanim.models.overrides import ModelOverrides
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn


def network_entries(model: Model, folder: Path) -> dict[str, Any]:
    """Return what a file says about a network, as plain data.

    Parameters
    ----------
    model : Model
    folder : pathlib.Path
        Folder of the file; paths are relative to it.

    Returns
    -------
    dict
        ``name``, ``shown_name``, ``random_weights``, ``classes``, ``domain``, ``outputs``; ``dims``; and
        ``card`` as in a model card, or None for a network that was given as an object.
    """
    loadable = model.source is not None and not model.extra_inputs
    return {
        "name": model.name,
        "shown_name": model.shown_name,
        "random_weights": model.random_weights,
        "classes": model.classes,
        "domain": model.domain,
        "outputs": model.outputs,
        "dims": model.dims,
        "card": card_document(model.card_entries(), folder) if loadable else None,
    }


class StoredModel(Model):
    """The network of a saved result: its name and classes, and the network itself once it is needed.

    Parameters
    ----------
    entries : mapping
        See `network_entries`.
    path : pathlib.Path
        The file, to which paths of the network are relative.
    sha256 : str
        Hash of the weights that the maps were computed with.
    trust : bool
        Whether the network's files may run code, as for `camanim.load_model`.
    progress : Progress
        Called with the bytes of a download.
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        path: Path,
        sha256: str,
        *,
        trust: bool = False,
        progress: Progress = silent,
    ) -> None:
        self._entries, self._path, self._sha256 = dict(entries), path, sha256
        self._trust, self._progress = trust, progress
        self._loaded: nn.Module | None = None
        self.name = entries["name"]
        self.classes = entries["classes"]
        self.domain = entries["domain"]
        self.outputs = entries["outputs"]
        self.extra_inputs = ()
        self.source, self.weights = None, None
        if entries["card"] is not None:
            self.source, self.weights, _ = card_arguments(entries["card"], path, trust=True)

    @property
    def is_loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._loaded is not None

    def load(self, progress: Progress = silent) -> None:
        """Load the network, unless it is in memory; errors are those of `net`.

        Parameters
        ----------
        progress : Progress
            Called with the bytes of a download.
        """
        if self._loaded is None:
            self._progress = progress
            self._load()

    @property
    def net(self) -> nn.Module:
        """The network, loaded by the first access.

        Raises
        ------
        ModelError
            If it was given as an object, cannot be loaded, or has other weights than at that time.
        Untrusted
            If its files run code, and `trust` is False.
        """
        if self._loaded is None:
            self._load()
        assert self._loaded is not None
        return self._loaded

    @net.setter
    def net(self, net: nn.Module) -> None:
        self._loaded = net

    @property
    def random_weights(self) -> bool:
        """Whether the weights were random."""
        if self._loaded is None:
            return bool(self._entries["random_weights"])
        return super().random_weights

    @property
    def shown_name(self) -> str:
        """The name as shown with results."""
        return str(self._entries["shown_name"]) if self._loaded is None else super().shown_name

    @property
    def dims(self) -> int:
        """Number of spatial axes of the network's images, 2 or 3."""
        return int(self._entries["dims"]) if self._loaded is None else super().dims

    def weights_hash(self) -> str:
        """Return the SHA-256 of all weights and buffers."""
        return self._sha256 if self._loaded is None else super().weights_hash()

    def trusted(self, progress: Progress = silent) -> StoredModel:
        """Return the same network, whose files may run code."""
        return StoredModel(self._entries, self._path, self._sha256, trust=True, progress=progress)

    def __getattr__(self, name: str) -> Any:
        # Only for what is not set yet: how images are prepared, and what the weights say.
        if (
            name.startswith("__")
            or vars(self).get("_loaded") is not None
            or "_path" not in vars(self)
        ):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        self._load()
        return getattr(self, name)

    def _load(self) -> None:
        card = self._entries["card"]
        if card is None:
            raise ModelError(
                f"{self.name} was given as an object, which {self._path.name} does not hold: pass it, "
                "as camanim.load(path, model=...)."
            )
        source, weights, overrides = card_arguments(card, self._path, trust=self._trust)
        model = load_model(source, weights, trust=self._trust, progress=self._progress)
        ModelOverrides(**overrides).apply(model)
        check_weights(model, self._sha256, self._path)
        vars(self).update({key: value for key, value in vars(model).items() if key != "net"})
        self._loaded = unwrap(model.net)


def check_weights(model: Model, sha256: str, path: Path) -> None:
    """Raise `ModelError` if a network has other weights than those of a saved result."""
    if model.weights_hash() != sha256:
        raise ModelError(
            f"{model.name} has other weights now than the maps in {path.name} were computed with: "
            "explain the image again, or pass the same network, as camanim.load(path, model=...)."
        )
