"""Signals that end a command."""

import signal
import sys
import time

import pytest

from jl1.interrupts import sigterm_as_ctrl_c


class RaisesWhereItIsIgnored:
    """Python ignores what is raised while an object is deleted, as in JAX's callback of the garbage collector."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def wait_after_one_is_ignored(number):
    del [RaisesWhereItIsIgnored(number)][0]
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_that_python_ignores_comes_again(number):
    hook, handlers = sys.unraisablehook, [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        wait_after_one_is_ignored(number)
    assert sys.unraisablehook is hook
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_one_that_comes_too_late_is_not_raised_behind_the_command():
    with sigterm_as_ctrl_c():
        del [RaisesWhereItIsIgnored(signal.SIGINT)][0]
    time.sleep(0.3)


def test_what_else_is_ignored_is_shown_as_ever(monkeypatch):
    class Raises:
        def __del__(self):
            raise ValueError

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with sigterm_as_ctrl_c():
        del [Raises()][0]
    assert [each.exc_type for each in seen] == [ValueError]
