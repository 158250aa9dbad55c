"""Short representations of objects that hold arrays and long lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

#: Most items of a list, and characters of a text or another value, that are written out.
_MOST_ITEMS, _MOST_CHARACTERS = 6, 80


def short_repr(value: Any) -> str:
    """Return the representation of a value: shape and type of arrays, the length of long lists."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        sides = " x ".join(map(str, shape))
        return f"<{str(dtype).removeprefix('torch.')} array, {sides}>"
    if isinstance(value, list | tuple | Mapping):
        text = "" if len(value) > _MOST_ITEMS else repr(_summarised(value))
        if 0 < len(text) <= _MOST_CHARACTERS:
            return text
        return f"<{len(value)} {'item' if len(value) == 1 else 'items'}>"
    text = repr(value)
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[: _MOST_CHARACTERS // 2]}...{text[-_MOST_CHARACTERS // 4 :]}"


class _Verbatim(str):
    """A text whose representation is itself."""

    def __repr__(self) -> str:
        return str(self)


def _summarised(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _Verbatim(short_repr(item)) for key, item in value.items()}
    items = [_Verbatim(short_repr(item)) for item in value]
    return items if isinstance(value, list) else tuple(items)


class ShortRepr:
    """Base class of dataclasses whose representation has a bounded length.

    It holds for subclasses as well, which need not pass ``repr=False`` to `dataclasses.dataclass`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in vars(cls):
            # The decorator adds its own, which contains all arrays, unless the class has one.
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = [f.name for f in fields(self) if f.repr]  # type: ignore[arg-type]
        values = (f"{name}={short_repr(getattr(self, name))}" for name in shown)
        return f"{type(self).__name__}({', '.join(values)})"
