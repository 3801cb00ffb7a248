"""Ctrl-C and SIGTERM: the end of a command, or in training a request to stop, where a second one ends the process."""

import os
import signal
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, Timer

from jl1.errors import EXIT_INTERRUPTED

_SECONDS_UNTIL_AGAIN = 0.1


@contextmanager
def stop_on_signals(announce: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Remember the first Ctrl-C or SIGTERM, and raise KeyboardInterrupt at the second.

    Args:
        announce: Called at the first.

    Yields:
        Function that says whether there was one.
    """
    received = []

    def remember(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        announce()

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, which schedulers send, so that both end a command alike.

    One that is raised where Python ignores exceptions, such as in a callback of the garbage collector, is raised again
    a moment later: otherwise the command would go on as if nobody had asked it to end.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return hook(unraisable)
        again.append(Timer(_SECONDS_UNTIL_AGAIN, interrupt_main))
        return again[-1].start()

    again: list[Timer] = []
    before, hook = signal.signal(signal.SIGTERM, interrupt), sys.unraisablehook
    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in again:
            timer.cancel()
        signal.signal(signal.SIGTERM, before)


def end_when_stdin_closes() -> None:
    """End this process at once when the other end of its standard input is gone, as when its parent was killed."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread may not hold when Python ends
            pass
        os._exit(EXIT_INTERRUPTED)  # as abrupt as a kill: what is on disk is whole at any moment

    Thread(target=wait, daemon=True).start()
