"""Ctrl-C, once a first one has been heard."""

import os
import signal
import threading


def be_deaf() -> None:
    """From here on, Ctrl-C does nothing."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave_at_the_next() -> None:
    """From here on, Ctrl-C ends the process with 130 at once, wherever it is."""
    if threading.current_thread() is threading.main_thread():
        # An exception could be raised inside a clean-up, and end in a traceback or a signal.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
