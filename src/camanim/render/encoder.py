"""Encoding of frames as an mp4 file (H.264) by ffmpeg."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from camanim.errors import RenderError
from camanim.render.frames import Frame

#: Seconds without progress after which ffmpeg is ended. A frame takes 2 s at most (4096 x 4096, "high").
SILENCE = 60.0
_POLL = 0.01
_REMEDY = "install imageio-ffmpeg again, or set IMAGEIO_FFMPEG_EXE to another ffmpeg."


class Encoder:
    """One process of ffmpeg that encodes frames.

    Parameters
    ----------
    path : Path
        File that ffmpeg writes, whose suffix is .mp4.
    target : Path
        File that error messages name.
    size : tuple of int
        Width and height of the frames.
    fps : float
    options : sequence of str
        Further options of ffmpeg.

    Raises
    ------
    RenderError
        If ffmpeg does not start.
    """

    def __init__(
        self, path: Path, target: Path, size: tuple[int, int], fps: float, options: Sequence[str]
    ) -> None:
        self._path, self._target = path, target
        self._silent = False
        self._messages: deque[str] = deque(maxlen=20)
        try:
            self._process = subprocess.Popen(
                [imageio_ffmpeg.get_ffmpeg_exe(), *_arguments(path, size, fps, options)],
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
            raise RenderError(f"ffmpeg does not start: {_REMEDY}") from error
        self._reader = threading.Thread(target=self._read_messages, daemon=True)
        self._reader.start()

    def write(self, frame: Frame) -> None:
        """Encode a frame, (H, W, 3) of type uint8.

        Raises
        ------
        RenderError
            If ffmpeg has ended, or takes no frame for `SILENCE` seconds.
        """
        assert self._process.stdin is not None
        # A blocked write ends when the process does.
        watch = threading.Timer(SILENCE, self._end_silent)
        watch.daemon = True
        watch.start()
        try:
            self._process.stdin.write(frame.tobytes())
            self._process.stdin.flush()
        except OSError as error:
            self._wait()
            raise self._error() from error
        finally:
            watch.cancel()

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
        if self._process.returncode != 0 or not is_complete(self._path):
            raise self._error()

    def close(self) -> None:
        """End ffmpeg if it is running, and close its streams."""
        self._kill()
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


@contextmanager
def encoder(
    path: Path, target: Path, size: tuple[int, int], fps: float, options: Sequence[str]
) -> Iterator[Encoder]:
    """Yield an `Encoder`; its file is complete after the context."""
    running = Encoder(path, target, size, fps, options)
    try:
        yield running
        running.finish()
    finally:
        running.close()


def _arguments(path: Path, size: tuple[int, int], fps: float, options: Sequence[str]) -> list[str]:
    # Without these tags, players assume BT.601 for small movies and BT.709 for large ones.
    color = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    rate = str(Fraction(fps).limit_denominator(1_000_000))
    return [
        *("-y", "-v", "error"),
        *("-f", "rawvideo", "-s", f"{size[0]}x{size[1]}", "-pix_fmt", "rgb24", "-r", rate),
        *("-i", "-", "-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p"),
        *options,
        *("-vf", f"scale=out_color_matrix=bt709:out_range=tv,{color}"),
        *("-movflags", "+faststart", str(path)),
    ]


def is_complete(path: Path) -> bool:
    """Return whether an mp4 file is complete.

    An mp4 file is a sequence of boxes, each preceded by its length. ffmpeg writes the length of the box
    with the frames (mdat) and the index (moov) last.
    """
    position, kinds, size = 0, set(), path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:
                return False
            kinds.add(kind)
            position += length
    return position == size and {b"moov", b"mdat"} <= kinds
