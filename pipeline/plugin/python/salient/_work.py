"""Runs work in libsalient, in this process or in one of its own, and brings what it tells to the thread that asked for it.

In this process, libsalient and Python's torch share one libtorch, as the libraries have the same file names: right when both are
of one build, and the end of the process when they are not. So the library is loaded here only when Python's torch (loaded, or to
be loaded later) is the build that the library names, or when there is none; else a child process does the work (salient._worker).
"""

from __future__ import annotations

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, Optional, Tuple

from . import _library
from .errors import InternalError, InvalidArgumentError, SalientError, make_error

Event = Tuple[Any, ...]


class Cancellation:
    """Stops work from another thread: give it to a call as `cancellation`, and call cancel() on it. The call raises
    CancelledError after the step that it is at; what was finished is kept. Asked for once, it holds for every call that is given
    this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = False
        self._stops: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        return self._requested

    def cancel(self) -> None:
        with self._lock:
            self._requested = True
            for stop in self._stops:
                stop()

    def _add(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stops.append(stop)
            if self._requested:
                stop()

    def _remove(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stops.remove(stop)


def in_process_is_safe(path: pathlib.Path) -> bool:
    python = _library.torch_of_python()
    return python is None or python == _library.torch_of_library(path)


def _choose(path: pathlib.Path, process: Optional[bool]) -> bool:
    """Whether a child process does the work."""
    if process is None and os.environ.get("SALIENT_PROCESS"):
        process = os.environ["SALIENT_PROCESS"] != "0"
    safe = in_process_is_safe(path)
    if process is False and not safe:
        raise InvalidArgumentError(
            f"{path} is built with libtorch {_library.torch_of_library(path)}, this Python has torch {_library.torch_of_python()}: "
            "both cannot be in one process",
            "TORCH_MISMATCH",
            "leave process=False (or SALIENT_PROCESS=0) away: the work then runs in a process of its own",
        )
    return not safe if process is None else process


class _InThread:
    """The library in this process, in a thread of its own, so that the asking thread can be interrupted."""

    def __init__(self, path: pathlib.Path, request: Dict[str, Any], events: "queue.SimpleQueue[Event]") -> None:
        self._library = _library.load(path)
        self._cancellation = self._library.new_cancellation()
        self._thread = threading.Thread(target=self._run, args=(request, events), name="salient")
        self._thread.start()

    def _run(self, request: Dict[str, Any], events: "queue.SimpleQueue[Event]") -> None:
        try:
            events.put(("done", *self._library.perform(request, events.put, self._cancellation)))
        except BaseException as error:  # a defect of this package: the asking thread must not wait for ever
            events.put(("broken", error))

    def stop(self) -> None:
        self._library.cancel(self._cancellation)

    def kill(self) -> None:
        """A thread cannot be ended; it stops at its next safe point."""

    def close(self) -> None:
        self._thread.join()
        self._library.free_cancellation(self._cancellation)


class _InProcess:
    """A child process that loads the library with the libtorch it was built with."""

    def __init__(self, path: pathlib.Path, request: Dict[str, Any], events: "queue.SimpleQueue[Event]") -> None:
        if not sys.executable:
            raise InternalError(
                "this Python does not know its own program (sys.executable), which is needed for a process of its own"
            )
        environment = dict(os.environ)
        package = str(pathlib.Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(
            [package] + ([environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else [])
        )
        self._child = subprocess.Popen(
            [sys.executable, "-m", "salient._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
        )
        self._lock = threading.Lock()
        self._send(json.dumps({**request, "library": str(path)}) + "\n")
        self._thread = threading.Thread(target=self._read, args=(events,), name="salient", daemon=True)
        self._thread.start()

    def _send(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            with self._lock:
                self._child.stdin.write(line)
                self._child.stdin.flush()
        except (BrokenPipeError, ValueError):  # it has ended: what it said last is read
            pass

    def _read(self, events: "queue.SimpleQueue[Event]") -> None:
        assert self._child.stdout is not None
        done = False
        for line in self._child.stdout:
            event = tuple(json.loads(line))
            done = done or event[0] == "done"
            events.put(event)
        if done:
            return
        code = self._child.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        events.put(
            (
                "broken",
                InternalError(
                    f"the process that did the work ended with {how}",
                    "PROCESS_DIED",
                    "SIGKILL often means that memory ran out. What was finished is kept: the same call goes on from there",
                ),
            )
        )

    def stop(self) -> None:
        self._send("cancel\n")

    def kill(self) -> None:
        self._child.kill()

    def close(self) -> None:
        self._child.wait()
        self._thread.join()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def perform(
    request: Dict[str, Any], show: Callable[[Event], None], cancellation: Optional[Cancellation], process: Optional[bool]
) -> Optional[str]:
    """The output of {"words": [...]} or {"path" or "text", "name", "overrides"}. `show` is called in this thread. An exception of
    `show`, and KeyboardInterrupt, stop the work at its next safe point and go on from here then; a second KeyboardInterrupt ends
    a child process at once."""
    path = _library.find_library()
    events: "queue.SimpleQueue[Event]" = queue.SimpleQueue()
    work = (_InProcess if _choose(path, process) else _InThread)(path, request, events)
    interrupted: Optional[BaseException] = None
    if cancellation is not None:
        cancellation._add(work.stop)
    try:
        while True:
            try:
                event = events.get()
                if event[0] in ("done", "broken"):
                    break
                if interrupted is None:
                    show(event)
            except BaseException as error:
                if interrupted is None:
                    interrupted = error
                    work.stop()
                elif isinstance(error, KeyboardInterrupt):
                    work.kill()
    finally:
        if cancellation is not None:
            cancellation._remove(work.stop)
        work.close()
    if interrupted is not None:
        raise interrupted
    if event[0] == "broken":
        raise event[1]
    _, output, error_fields = event
    if error_fields is not None:
        raise make_error(error_fields, output)
    return output


__all__ = ["Cancellation", "SalientError", "in_process_is_safe", "perform"]
