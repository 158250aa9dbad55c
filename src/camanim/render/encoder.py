"""Encoding of frames as a movie by ffmpeg."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

from camanim.errors import RenderError
from camanim.opencv import import_with_opencv
from camanim.render.formats import (
    Quality,
    Tags,
    format_of,
    metadata_options,
    palette_filter,
)
from camanim.render.pen import Box
from camanim.render.tagging import add_tags, is_complete
from camanim.writing import cannot_write

if sys.platform == "linux":
    import fcntl

Frame = npt.NDArray[np.uint8]

#: Seconds without progress after which ffmpeg is ended. A frame takes 2 s at most (4096 x 4096, "high").
SILENCE = 60.0
_POLL = 0.01
#: Bytes that a pipe should hold, where the system lets us choose: fewer changes between the processes.
_PIPE = 2**20
_REMEDY = "install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to another ffmpeg."
#: From RGB to YUV by ITU-R BT.709 in limited range (16 to 235, 16 to 240).
_BT709 = np.array(
    [
        [0.2126 * 219 / 255, 0.7152 * 219 / 255, 0.0722 * 219 / 255, 16],
        [
            -0.2126 / 1.8556 * 224 / 255,
            -0.7152 / 1.8556 * 224 / 255,
            0.9278 / 1.8556 * 224 / 255,
            128,
        ],
        [
            0.7874 / 1.5748 * 224 / 255,
            -0.7152 / 1.5748 * 224 / 255,
            -0.0722 / 1.5748 * 224 / 255,
            128,
        ],
    ],
    np.float64,
)


class Yuv420:
    """Conversion of RGB frames to planes of YUV with chroma at half resolution (BT.709).

    OpenCV does this in a third of ffmpeg's time, and without holding Python's lock.

    Parameters
    ----------
    size : (width, height)
        Both even.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._cv2 = import_with_opencv()
        width, height = size
        count = width * height
        self._planes = np.empty(count * 3 // 2, np.uint8)
        luma, blue, red = np.split(self._planes, [count, count + count // 4])
        self._luma = luma.reshape(height, width)
        self._chroma = [plane.reshape(height // 2, width // 2) for plane in (blue, red)]
        #: What the last frame has changed; None if everything, or if there is none.
        self._changed: list[Box] | None = None

    def planes(self, frame: Image.Image | Frame, changed: Sequence[Box] | None = None) -> Frame:
        """Return the planes of a frame, one after the other; valid until the next call.

        Parameters
        ----------
        frame : PIL.Image.Image or (H, W, 3) uint8 array
        changed : sequence of (left, top, right, bottom), optional
            Parts in which it differs from a background that all frames share; by default everything.
        """
        if changed is None or self._changed is None or isinstance(frame, np.ndarray):
            self._convert(np.asarray(frame), 0, 0)
        else:
            # What the frame before has changed is background again.
            for left, top, right, bottom in dict.fromkeys([*self._changed, *changed]):
                self._convert(np.asarray(frame.crop((left, top, right, bottom))), left, top)
        self._changed = None if changed is None else list(changed)
        return self._planes

    def _convert(self, part: Frame, left: int, top: int) -> None:
        """Convert a part of a frame, whose edges are even."""
        cv2, (height, width) = self._cv2, part.shape[:2]
        converted = cv2.transform(part, _BT709)
        cv2.extractChannel(converted, 0, self._luma[top : top + height, left : left + width])
        half = (width // 2, height // 2)
        colors = cv2.transform(cv2.resize(part, half, interpolation=cv2.INTER_AREA), _BT709)
        rows, columns = slice(top // 2, top // 2 + half[1]), slice(left // 2, left // 2 + half[0])
        for k, plane in enumerate(self._chroma, start=1):
            cv2.extractChannel(colors, k, plane[rows, columns])


class Encoder:
    """One process of ffmpeg that encodes frames.

    Parameters
    ----------
    path : Path
        File that ffmpeg writes; its suffix is one of `camanim.render.formats.FORMATS`.
    target : Path
        File that error messages name.
    size : tuple of int
        Width and height of the frames, both even.
    fps : float
    quality : Quality
    tags : Tags
    palette : (256, 3) uint8 array, optional
        Colours of a GIF; by default each frame gets its own.

    Raises
    ------
    RenderError
        If ffmpeg does not start.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        size: tuple[int, int],
        fps: float,
        quality: Quality = "standard",
        tags: Tags | None = None,
        palette: Frame | None = None,
    ) -> None:
        self._path, self._target, self._tags = path, target, tags or {}
        self._suffix = path.suffix.lower()
        self._yuv = Yuv420(size) if format_of(path).chroma_halved else None
        self._silent = False
        self._closed = threading.Event()
        #: When the write began that has not ended yet.
        self._since: float | None = None
        self._messages: deque[str] = deque(maxlen=20)
        self._palette: Path | None = None
        if self._suffix == ".gif" and palette is not None:
            with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:
                self._palette = Path(file.name)
                Image.fromarray(palette.reshape(16, 16, 3)).save(file, "PNG")
        try:
            self._process = subprocess.Popen(
                [imageio_ffmpeg.get_ffmpeg_exe(), *self._arguments(size, fps, quality)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # As a process group: Ctrl+C does not reach it, and `kill` ends a script together with
                # the ffmpeg that it starts.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        # imageio-ffmpeg raises RuntimeError if ffmpeg is missing.
        except (OSError, RuntimeError) as error:
            self._remove_palette()
            raise RenderError(f"ffmpeg does not start: {_REMEDY}") from error
        self._enlarge_pipe()
        self._reader = threading.Thread(target=self._read_messages, daemon=True)
        self._watch = threading.Thread(target=self._watch_writes, daemon=True)
        self._reader.start()
        self._watch.start()

    def write(
        self, frame: Image.Image | Frame, count: int = 1, changed: Sequence[Box] | None = None
    ) -> None:
        """Encode a frame, a picture or (H, W, 3) of type uint8, `count` times.

        `changed` are the parts in which it differs from a background that all frames share; by default
        everything.

        Raises
        ------
        RenderError
            If ffmpeg has ended, or takes no frame for `SILENCE` seconds.
        """
        assert self._process.stdin is not None
        yuv = self._yuv
        pixels = np.ascontiguousarray(frame) if yuv is None else yuv.planes(frame, changed)
        content = pixels.data.cast("B")
        try:
            for _ in range(count):
                # A blocked write ends when the process does.
                self._since = time.monotonic()
                self._process.stdin.write(content)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            # ValueError: another thread has closed the stream.
            self._wait()
            raise self._error() from error
        finally:
            self._since = None

    def finish(self) -> None:
        """Wait until the file is complete.

        Raises
        ------
        RenderError
            If ffmpeg fails, or writes nothing for `SILENCE` seconds.
        """
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._wait()
        if self._process.returncode != 0 or not is_complete(self._path, self._suffix):
            raise self._error()
        try:
            add_tags(self._path, self._suffix, self._tags)
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def close(self) -> None:
        """End ffmpeg if it is running, and close its streams."""
        self._closed.set()
        self._kill()
        self._watch.join(timeout=1)
        self._remove_palette()
        self._reader.join(timeout=1)
        assert self._process.stdin is not None
        # Closing writes what is left.
        with suppress(OSError):
            self._process.stdin.close()
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()

    def _kill(self) -> None:
        if self._process.poll() is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _remove_palette(self) -> None:
        if self._palette is not None:
            self._palette.unlink(missing_ok=True)

    def _enlarge_pipe(self) -> None:
        if sys.platform == "linux" and self._process.stdin is not None:
            # Where the user's pipes are full, it stays as it is.
            with suppress(OSError):
                fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, _PIPE)

    def _watch_writes(self) -> None:
        """End ffmpeg when it takes no frame for `SILENCE` seconds."""
        while not self._closed.wait(min(1.0, SILENCE / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > SILENCE:
                self._end_silent()
                return

    def _read_messages(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._messages.append(line.decode(errors="replace").strip())

    def _wait(self) -> None:
        """Wait for the end of the process, as long as the file changes."""
        state, deadline = self._state(), time.monotonic() + SILENCE
        while self._process.poll() is None:
            time.sleep(_POLL)
            if (new_state := self._state()) != state:
                state, deadline = new_state, time.monotonic() + SILENCE
            elif time.monotonic() > deadline:
                self._end_silent()
        self._reader.join(timeout=1)

    def _state(self) -> tuple[int, int]:
        with suppress(OSError):
            status = self._path.stat()
            return status.st_size, status.st_mtime_ns
        return 0, 0

    def _end_silent(self) -> None:
        self._silent = True
        self._kill()

    def _error(self) -> RenderError:
        """Return the error that names the cause."""
        code, said = self._process.returncode, " ".join(filter(None, self._messages))
        what = f"Writing {self._target} failed"
        if self._silent:
            return RenderError(f"{what}: ffmpeg did nothing for {SILENCE:g} s; {_REMEDY}")
        if "No space left" in said or "Disk quota exceeded" in said:
            return RenderError(f"{what}: the disk is full; free disk space or choose another path.")
        if code is not None and code < 0:
            name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
            return RenderError(f"{what}: ffmpeg crashed ({name}); {_REMEDY}")
        reason = next((line for line in reversed(self._messages) if line), f"exit code {code}")
        return RenderError(f"{what}: ffmpeg reported {reason[:300]!r}; {_REMEDY}")

    def _arguments(self, size: tuple[int, int], fps: float, quality: Quality) -> list[str]:
        movie = format_of(self._path)
        rate = str(Fraction(fps).limit_denominator(1_000_000))
        pixels = "rgb24" if self._yuv is None else "yuv420p"
        options = [*movie.options[quality]]
        if self._suffix == ".gif":
            options += palette_filter(quality, known=self._palette is not None)
        return [
            *("-y", "-v", "error"),
            *("-f", "rawvideo", "-s", f"{size[0]}x{size[1]}", "-pix_fmt", pixels, "-r", rate),
            *("-i", "-"),
            *(() if self._palette is None else ("-i", str(self._palette))),
            "-an",
            *options,
            *metadata_options(self._suffix, self._tags),
            *movie.last,
            str(self._path),
        ]


@contextmanager
def encoder(
    path: Path,
    target: Path,
    size: tuple[int, int],
    fps: float,
    quality: Quality = "standard",
    tags: Tags | None = None,
    palette: Frame | None = None,
) -> Iterator[Encoder]:
    """Yield an `Encoder`; its file is complete after the context."""
    running = Encoder(path, target, size, fps, quality, tags, palette)
    try:
        yield running
        running.finish()
    finally:
        running.close()
