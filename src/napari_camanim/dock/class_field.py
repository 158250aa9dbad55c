"""The field for the target: a class, several classes, or a contrast of two."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QPersistentModelIndex, QRect, Qt
from qtpy.QtGui import QPainter
from qtpy.QtWidgets import QStyledItemDelegate, QStyleOptionViewItem

from napari_camanim.dock.search_field import KEY, SearchField

if TYPE_CHECKING:
    from napari_camanim.work.jobs import Classes

#: The first entry, which is the default.
LIKELIEST = "likeliest class"

#: Data role of the probability of a class.
PROBABILITY = KEY + 1
#: Operators of contrasts, as in `camanim.targets.resolve`.
_CONTRAST = re.compile(r"( - | vs\.? )")


class ClassField(SearchField):
    """Lists the likeliest classes with bars, and all others; also accepts ``A - B`` and ``A; B``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(free=False, **kwargs)
        self.box.setItemDelegate(_Bars(self.box))
        self.clear_classes()

    def clear_classes(self) -> None:
        """Remove all classes from the list, and choose the likeliest one."""
        self.set_items([(LIKELIEST, None)])
        self.box.setEditText(LIKELIEST)

    def set_classes(self, classes: Classes) -> None:
        """List the likeliest classes, followed by the others; the choice is kept."""
        likely = {p.index for p in classes.predictions}
        # Names that occur in several classes are numbered by the engine.
        others = [(n, i) for i, n in enumerate(classes.names or ()) if i not in likely]
        self.set_items(
            [(LIKELIEST, None), *((p.name, p.index) for p in classes.predictions), *others]
        )
        for row, prediction in enumerate(classes.predictions, 1):
            self.box.setItemData(row, prediction.probability, PROBABILITY)
            tip = f"{prediction.name}: probability {prediction.probability:.3f}"
            self.box.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)

    def is_free(self, text: str) -> bool:
        """Return whether a text is kept: several classes, a number, or before classes are listed."""
        several = ";" in text or _CONTRAST.search(text) is not None
        unlisted = self.box.count() == 1 and text != "" and not LIKELIEST.startswith(text)
        return several or unlisted or re.fullmatch(r"-?\d+", text) is not None

    def requests(self) -> list[Any]:
        """Return the targets, one for each stack; see `camanim.targets.resolve`."""
        parts = [part.strip() for part in self.value.split(";")]
        return [self._request(part) for part in parts if part] or [None]

    def _request(self, text: str) -> Any:
        row = self.row(text)
        return self.box.itemData(row) if row >= 0 else text


def class_of(target: Any) -> str:
    """Return what stands for a target in the field; empty if nothing does."""
    from camanim.targets import ClassTarget

    if not isinstance(target, ClassTarget) or target.of != "logit":
        return ""
    return target.name or str(target.index)


class _Bars(QStyledItemDelegate):
    """Draws the probability of a class as a bar below its name."""

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        super().paint(painter, option, index)
        probability = index.data(PROBABILITY)
        if probability is None:
            return
        box: QRect = option.rect
        color = option.palette.highlight().color()
        width = round(float(probability) * (box.width() - 4))
        painter.fillRect(QRect(box.left() + 2, box.bottom() - 2, max(width, 1), 2), color)
        painter.drawText(
            box.adjusted(0, 0, -6, 0),
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
            f"{probability:.3f}",
        )
