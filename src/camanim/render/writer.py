"""Writing of frames in another thread, to a movie or to a folder, while the next ones are drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from camanim.render.encoder import encoder
from camanim.render.formats import Quality, Tags, is_movie
from camanim.render.pen import Box
from camanim.writing import complete_or_absent

Frame = npt.NDArray[np.uint8]

#: Frames that wait to be written. More would take memory and no time off.
WAITING = 3
#: Frames from which the palette of a GIF is taken, and length of their longer side in pixels.
SAMPLES, SAMPLE_SIZE = 16, 400


class Sink(Protocol):
    """What takes frames."""

    def write(
        self, frame: Image.Image | Frame, count: int = 1, changed: Sequence[Box] | None = None
    ) -> None:
        """Write a frame `count` times; `changed` is what differs from a common background."""


class FrameWriter:
    """Writes frames in another thread, in order.

    Parameters
    ----------
    sink : Sink
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="camanim-movie")
        self._waiting: deque[Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether `write` would wait."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        return len(self._waiting) >= WAITING

    def write(
        self, frame: Image.Image | Frame, count: int = 1, changed: Sequence[Box] | None = None
    ) -> None:
        """Write a frame `count` times; wait while `WAITING` others are not written yet.

        `changed` are the parts, with even edges, in which it differs from a background that all frames
        share; by default everything.

        Raises
        ------
        RenderError
            If an earlier frame could not be written.
        """
        while self.is_full:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._sink.write, frame, count, changed))

    def finish(self) -> None:
        """Wait until all frames are written.

        Raises
        ------
        RenderError
            If a frame could not be written.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Drop the frames that wait, and end the thread."""
        self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)


@contextmanager
def movie_writer(
    target: Path,
    size: tuple[int, int],
    fps: float,
    quality: Quality = "standard",
    tags: Tags | None = None,
    samples: Sequence[Image.Image] = (),
) -> Iterator[FrameWriter]:
    """Yield a `FrameWriter`; the file is complete after the context, or unchanged after an error.

    Parameters
    ----------
    target : Path
        A checked path; see `camanim.render.movie.checked_movie`.
    size : (width, height)
        Of the frames, both even.
    fps : float
    quality : Quality
    tags : Tags, optional
    samples : sequence of PIL.Image.Image
        Frames from which the palette of a GIF is taken; by default each frame has its own palette, which
        takes longer.
    """
    assert is_movie(target)
    palette = None
    if samples and target.suffix.lower() == ".gif":
        palette = common_palette(samples)
    with ExitStack() as stack:
        partial = stack.enter_context(complete_or_absent(target))
        encoding = stack.enter_context(encoder(partial, target, size, fps, quality, tags, palette))
        with writing_to(encoding) as writer:
            yield writer


@contextmanager
def writing_to(sink: Sink) -> Iterator[FrameWriter]:
    """Yield a `FrameWriter`, whose frames are written after the context."""
    writer = FrameWriter(sink)
    try:
        yield writer
        writer.finish()
    except BaseException:
        # A blocked write ends with the process.
        close = getattr(sink, "close", None)
        if close is not None:
            close()
        raise
    finally:
        writer.close()


def sampled(count: int) -> list[int]:
    """Return the indices of at most `SAMPLES` of `count` frames, evenly spaced."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, SAMPLES))})


def common_palette(frames: Sequence[Image.Image]) -> Frame:
    """Return 256 colours of several frames, (256, 3)."""
    small = []
    for frame in frames:
        reduced = frame.copy()
        # Without new colours between those of text and background.
        reduced.thumbnail((SAMPLE_SIZE, SAMPLE_SIZE), Image.Resampling.NEAREST)
        small.append(np.asarray(reduced))
    width = max(each.shape[1] for each in small)
    rows = [np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0)), "edge") for each in small]
    quantized = Image.fromarray(np.concatenate(rows)).quantize(256, Image.Quantize.MEDIANCUT)
    colors = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)
    return np.pad(colors, ((0, 256 - len(colors)), (0, 0)), "edge")
