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
        ``name``, ``shown_name``, ``random_weights``, ``classes``, ``domain``, ``outputs``, ``dims``;
        ``overridden``, whether settings of the user replaced those of the source; and
        ``card`` as in a model card, or None for a network that was given as an object.
    """
    if isinstance(model, StoredModel):
        return model.entries_in(folder)
    # A subclass may prepare images or run the network in another way.
    loadable = type(model) is Model and model.source is not None and not model.extra_inputs
    return {
        "name": model.name,
        "shown_name": model.shown_name,
        "random_weights": model.random_weights,
        "classes": model.classes,
        "domain": model.domain,
        "outputs": model.outputs,
        "dims": model.dims,
        "overridden": model.overridden,
        "card": card_document(model.card_entries(), folder) if loadable else None,
    }


#: Attributes that are known once the network is loaded.
_OF_NETWORK = ("preprocess", "_inferred", "_random", "_hash")


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
        #: Hash of the network's input, where the file does not hold the input.
        self.input_sha256: str | None = None
        self.name = entries["name"]
        self.classes = entries["classes"]
        self.domain = entries["domain"]
        self.outputs = entries["outputs"]
        self.extra_inputs = ()
        self.overridden = bool(entries.get("overridden"))
        self.source, self.weights = None, None
        if entries["card"] is not None:
            self.source, self.weights, others = card_arguments(entries["card"], path, trust=True)
            if isinstance(others.get("classes"), Path):
                raise ModelError(f"{path.name} refers to a file of class names: name the classes.")

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
        if self._loaded is None:
            # Another network in place of the saved one, which need not be loaded for that.
            self._take(self._with_card(Model(net)))
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
        if self._loaded is None and self._sha256:
            return self._sha256
        return super().weights_hash()

    def trusted(self, progress: Progress = silent) -> StoredModel:
        """Return the same network, whose files may run code."""
        model = StoredModel(self._entries, self._path, self._sha256, trust=True, progress=progress)
        model.input_sha256 = self.input_sha256
        return model

    def entries_in(self, folder: Path) -> dict[str, Any]:
        """Return the entries for a file in another folder; see `network_entries`."""
        card = self._entries["card"]
        if card is not None:
            source, weights, others = card_arguments(card, self._path, trust=True)
            given = {
                "source": source,
                "weights": weights,
                "name": self.name,
                "outputs": self.outputs,
            }
            card = card_document(given | others, folder)
        return self._entries | {"card": card}

    def __getattr__(self, name: str) -> Any:
        # Only for what the network must be loaded for: no other attribute does that, as viewers of
        # notebooks ask for many.
        if name not in _OF_NETWORK or "_entries" not in vars(self) or self._loaded is not None:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        self._load()
        return vars(self)[name]

    def _load(self) -> None:
        card = self._entries["card"]
        if card is None:
            raise ModelError(
                f"{self.name} was given as an object, which {self._path.name} does not hold: pass it, "
                "as camanim.load(path, model=...)."
            )
        source, weights, _ = card_arguments(card, self._path, trust=self._trust)
        progress, self._progress = self._progress, silent
        model = load_model(source, weights, trust=self._trust, progress=progress)
        self._with_card(model)
        if self._sha256:
            check_weights(model, self._sha256, self._path)
        self._take(model)
        self._loaded = unwrap(model.net)

    def _with_card(self, model: Model) -> Model:
        """Apply the entries of the card, such as sizes and classes, to a network."""
        if self._entries["card"] is not None:
            _, _, overrides = card_arguments(self._entries["card"], self._path, trust=True)
            ModelOverrides(**overrides).apply(model)
        return model

    def _take(self, model: Model) -> None:
        """Take attributes that are not set yet."""
        missing = {k: v for k, v in vars(model).items() if k != "net" and k not in vars(self)}
        vars(self).update(missing)


def check_weights(model: Model, sha256: str, path: Path) -> None:
    """Raise `ModelError` if a network has other weights than those of a saved result.

    Without a hash, nothing is compared.
    """
    if sha256 and model.weights_hash() != sha256:
        raise ModelError(
            f"{model.name} has other weights now than the maps in {path.name} were computed with: "
            "explain the image again, or pass the same network, as camanim.load(path, model=...)."
        )
