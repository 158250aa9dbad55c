"""Runs on one network wait for each other, and leave it as it was, whatever interrupts them.

A context manager cannot promise that: an interrupt (``KeyboardInterrupt``) may arrive between its
``__enter__`` and the block, or at the start of its ``__exit__``. `exclusively` restores a snapshot in a
``finally`` around the whole run, and repeats what is interrupted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from torch import nn

from camanim.errors import chain_of, interrupt_behind
from camanim.snapshot import Buffers, Snapshot

T = TypeVar("T")

#: Seconds between two attempts to get a network that another thread uses.
_INTERVAL = 0.005
#: Interrupts during one restoration after which it is given up.
_ATTEMPTS = 20


class _Use:
    """One use of a network, requested or granted.

    Modules, parameters and buffers are compared, so that networks that share some of them wait for each
    other as well.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net, self.thread = net, threading.get_ident()
        self.granted = False
        #: Once the use is granted.
        self.snapshot: Snapshot | None = None
        self.modules = list(net.modules())
        tensors = chain.from_iterable(
            (*module._parameters.values(), *module._buffers.values()) for module in self.modules
        )
        self._parts = frozenset(map(id, chain(self.modules, tensors))) - {id(None)}

    def request(self) -> bool:
        """Return whether the network may be used; requests are granted in their order."""
        with _lock:
            if self not in _uses:
                _uses.append(self)
            if not self.granted:
                others = [use for use in _uses[: _uses.index(self)] if self._excludes(use)]
                if any(use.granted and use.thread == self.thread for use in _uses):
                    # Whoever waits for this thread must not be waited for.
                    others = [use for use in _uses if use.granted and self._excludes(use)]
                self.granted = not others
        return self.granted

    def _excludes(self, other: _Use) -> bool:
        return other.thread != self.thread and not self._parts.isdisjoint(other._parts)

    def end(self) -> None:
        """Give the network back. After an interrupt, the call can be repeated."""
        with _lock:
            if self in _uses:
                _uses.remove(self)


_lock = threading.Lock()
#: In the order of their requests.
_uses: list[_Use] = []


def _forget() -> None:
    """Start without uses in a forked process, which has none of the threads."""
    global _lock
    _lock = threading.Lock()
    _uses.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def buffers_in_use(net: nn.Module) -> Buffers | None:
    """Return the copies of a network's buffers that `exclusively` made in this thread, if any."""
    thread = threading.get_ident()
    with _lock:
        uses = [use for use in _uses if use.thread == thread and use.net is net]
    return uses[-1].snapshot.buffers if uses and uses[-1].snapshot is not None else None


def exclusively(
    net: nn.Module, function: Callable[[], T], waiting: Callable[[], object] | None = None
) -> T:
    """Call a function while no other thread uses the network; restore its state after an error.

    Parameters
    ----------
    net : torch.nn.Module
    function : callable
        Uses the network. It may call `exclusively` again.
    waiting : callable, optional
        Called while another thread uses the network; an error that it raises ends the wait.

    Returns
    -------
    object
        What the function returns.
    """
    use = _Use(net)
    interrupt: BaseException | None = None
    completed, attempts = False, 0
    try:
        while not use.request():
            if waiting is not None:
                waiting()
            time.sleep(_INTERVAL)
        use.snapshot = Snapshot(use.modules)
        result = function()
        completed = True
    finally:
        # No call between ``finally`` and ``try``: an interrupt may arrive at any call.
        while True:
            try:
                if not completed:
                    interrupt = _restore(use, sys.exc_info()[1]) or interrupt
                use.end()
                break
            except BaseException as late:
                interrupt, attempts = late, attempts + 1
                if attempts == _ATTEMPTS:
                    raise
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                # Its traceback refers to this frame.
                del interrupt
    return result


def _restore(use: _Use, error: BaseException | None) -> BaseException | None:
    """Restore the state of a network after an error; return the interrupt that it came from, if any."""
    interrupt = None if error is None else interrupt_behind(error)
    if interrupt is not None:
        # It may have left generators suspended. The frames of the traceback hold them, so they would
        # end, and restore what was before them, when the traceback is released.
        for each in chain_of(error):
            traceback.clear_frames(each.__traceback__)
    if use.snapshot is not None:
        use.snapshot.restore()
    return interrupt
