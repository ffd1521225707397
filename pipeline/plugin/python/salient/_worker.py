"""The work in a process of its own: python -m salient._worker. Used by salient._work where Python's torch is another one than
libsalient's.

Reads one line of JSON, the request and "library", from standard input; after it, a line "cancel" or the end of the input (the
parent died) asks for a stop. Writes lines of JSON
to standard output: ["progress", ...], ["message", ...] and last ["done", output, error].
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
from typing import Any

from . import _library
from .errors import SalientError


def main() -> None:
    # The terminal sends Ctrl-C to both; the parent says what is to be done about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that a library prints gets between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(event: Any) -> None:
        try:
            with lock:
                out.write(json.dumps(event) + "\n")
                out.flush()
        except BrokenPipeError:  # the parent is gone; the end of the input stops the work
            pass

    request = json.loads(sys.stdin.readline())
    try:
        library = _library.load(pathlib.Path(request["library"]))
    except SalientError as error:
        fields = {"kind": error.kind_number, "code": error.code, "message": error.message, "hint": error.hint}
        return tell(("done", None, fields))
    cancellation = library.new_cancellation()

    def watch() -> None:
        sys.stdin.readline()  # "cancel", or the end
        library.cancel(cancellation)

    threading.Thread(target=watch, daemon=True).start()
    output, error = library.perform(request, tell, cancellation)
    tell(("done", output, error))
    # Without Python's own end: the watching thread still reads.
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
