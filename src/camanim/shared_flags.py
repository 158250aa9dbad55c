"""Flags of torch that hold for the whole process, changed while at least one thread needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any

import torch
from torch.utils import _python_dispatch as dispatch


def unlock(lock: Any) -> None:
    """Release a lock as often as this thread holds it: an interrupt may have prevented that.

    Parameters
    ----------
    lock : threading.RLock
    """
    while True:
        try:
            lock.release()
        except RuntimeError:
            # It is not held by this thread.
            return


class SharedFlag:
    """A process-wide flag with a count of its users: the last one restores it.

    Parameters
    ----------
    read : callable
        Return the flag.
    write : callable
        Set the flag.
    change : callable, optional
        Set the flag to the value that users need; by default it is restored only.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        write: Callable[[Any], object],
        change: Callable[[], object] | None = None,
    ) -> None:
        self._read, self._write, self._change = read, write, change
        self._lock = RLock()
        self._users: Counter[int] = Counter()
        self._before: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the flag at the value that users need."""
        uses = self.uses()
        try:
            with self._lock:
                if not self._users:
                    self._before = self._read()
                self._users[get_ident()] += 1
                if self._change is not None:
                    self._change()
            yield
        finally:
            self.release(uses)

    def uses(self) -> int:
        """Return how often this thread holds the flag."""
        return self._users[get_ident()]

    def release(self, uses: int) -> None:
        """Let this thread hold the flag only so often; restore it if no thread holds it any more."""
        thread = get_ident()
        with self._lock:
            if self._users.get(thread, 0) <= uses:
                return
            if uses == 0 and self._users.keys() <= {thread}:
                self._write(self._before)
            if uses:
                self._users[thread] = uses
            else:
                del self._users[thread]

    def recover(self, uses: int) -> None:
        """Release the flag after an interrupt; the call can be repeated."""
        unlock(self._lock)
        self.release(uses)
        unlock(self._lock)


def _read_kernels() -> tuple[bool, ...]:
    cuda = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        cuda.math_sdp_enabled(),
    )


def _write_kernels(enabled: tuple[bool, ...]) -> None:
    cuda = torch.backends.cuda
    cuda.enable_flash_sdp(enabled[0])
    cuda.enable_mem_efficient_sdp(enabled[1])
    cuda.enable_cudnn_sdp(enabled[2])
    cuda.enable_math_sdp(enabled[3])


def _read_dispatch() -> dict[str, bool]:
    return {
        name: value
        for name, value in vars(dispatch).items()
        if name.startswith("_is_in_") and isinstance(value, bool)
    }


def _write_dispatch(flags: dict[str, bool]) -> None:
    vars(dispatch).update(flags)
    # A copy of one of them for the compiler, of recent torch.
    write = getattr(dispatch, "set_is_in_mode_without_ignore_compile_internals", None)
    if write is not None:
        write(flags["_is_in_any_mode_without_ignore_compile_internals"])


def _read_stance() -> Any:
    from torch._dynamo import eval_frame

    return eval_frame._stance


def _write_stance(stance: Any) -> None:
    from torch._dynamo import eval_frame

    eval_frame._set_stance(stance)


#: Held while the global generators of numpy and torch are seeded.
SEEDING = RLock()

#: The fast path of torch's transformer layers, which skips their submodules.
PLAIN_ATTENTION = SharedFlag(
    torch.backends.mha.get_fastpath_enabled,
    torch.backends.mha.set_fastpath_enabled,
    lambda: torch.backends.mha.set_fastpath_enabled(False),
)
#: Attention whose gradient can be differentiated.
MATH_ATTENTION = SharedFlag(
    _read_kernels, _write_kernels, lambda: _write_kernels((False, False, False, True))
)
#: Flags that dispatch modes set and restore in the order of one thread. Set, they disable compilation.
DISPATCH_MODES = SharedFlag(_read_dispatch, _write_dispatch)
#: Compiled modules run in eager mode, so that forward hooks of their submodules are called.
EAGER = SharedFlag(_read_stance, _write_stance, lambda: torch.compiler.set_stance("force_eager"))

FLAGS = (PLAIN_ATTENTION, MATH_ATTENTION, DISPATCH_MODES, EAGER)
