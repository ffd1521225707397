"""What a call shows while it works."""

from __future__ import annotations

import logging
import sys
from typing import Any, Callable, Optional, Union

# label "quantize", unit "blocks", done, total
ProgressFunction = Callable[[str, str, int, int], None]
Progress = Union[None, bool, ProgressFunction]
MessageFunction = Callable[[str], None]

logger = logging.getLogger("salient")


class _Bars:
    """tqdm's bars, one after the other."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._part: Any = None

    def show(self, label: str, unit: str, done: int, total: int) -> None:
        if self._part != (label, unit, total):
            self.close()
            self._part = (label, unit, total)
            self._bar = self._tqdm(desc=label, unit=" " + unit, total=total, initial=done)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._part = None


class Shower:
    """progress: a function; True: bars (tqdm, when it is installed); False: nothing; None: bars on a terminal. message: a
    function; None: the logger "salient", level INFO."""

    def __init__(self, progress: Progress, message: Optional[MessageFunction]) -> None:
        self._message = message if message is not None else lambda line: logger.info("%s", line)
        self._bars: Optional[_Bars] = None
        self._progress: Optional[ProgressFunction] = None
        if callable(progress):
            self._progress = progress
        elif progress or (progress is None and sys.stderr is not None and sys.stderr.isatty()):
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bars = _Bars(tqdm)
            self._progress = self._bars.show

    def __call__(self, event: Any) -> None:
        if event[0] == "message":
            self._message(event[1])
        elif self._progress is not None:
            self._progress(*event[1:])

    def __enter__(self) -> "Shower":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bars is not None:
            self._bars.close()
