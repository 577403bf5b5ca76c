"""A run that is asked to stop saves itself first: SIGTERM and Ctrl-C wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

#: Exit status of a run that was stopped and can go on: ``EX_TEMPFAIL`` of sysexits.h, "try again later".
TRY_AGAIN = 75


class Interrupted(SystemExit):
    """A run was asked to stop and has saved itself; the process ends with status 75.

    In a notebook it is an error like others, which papermill reports with this line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(TRY_AGAIN)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a notebook shows this line in place of a traceback through our own code.
        return [f"Interrupted: {self.message}"]


class StopSignals:
    """Within the block SIGTERM and SIGINT are noted, and obeyed where the run says that it may stop.

    Between :meth:`defer` and :meth:`obey` (the training loop) a signal waits for the end of the step, where
    :attr:`requested` is seen and the run saves itself; elsewhere it ends the run at once. A second signal never
    waits. Handlers can be set in the main thread alone; in another thread the block changes nothing.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def defer(self) -> None:
        """From here on a signal waits for :meth:`stop` to be called."""
        self._waits = True

    def obey(self) -> None:
        """From here on a signal ends the run at once; so does one that has waited."""
        self._waits = False
        if self.requested is not None:
            self.stop("after its training loop")

    def stop(self, where: str) -> None:
        """End the run as the signal asks: ``Interrupted`` for SIGTERM, ``KeyboardInterrupt`` for SIGINT."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        name = self.requested.name if self.requested is not None else "a request"
        raise Interrupted(
            f"stopped by {name} {where}; the same command goes on (exit status {TRY_AGAIN})"
        )

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.requested is not None
        self.requested = signal.Signals(number)
        if again or not self._waits:
            self.stop("outside its training loop")
