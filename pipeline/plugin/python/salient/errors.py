"""Errors of Salient as exceptions: a kind, a stable code, a message that says where, what was found and what was expected, and a
hint what to do."""

from __future__ import annotations

from typing import Any, Mapping, Optional


class SalientError(Exception):
    """Every error of the library. `kind` is a name such as "not found", `code` is stable and searchable or empty, `hint` says
    what to do or is empty.

    `output` is what had been printed or found before: a text, or the results of a run that missed a bound; None where there is
    nothing.
    """

    kind_number = 0
    kind = "error"

    def __init__(self, message: str, code: str = "", hint: str = "", output: Any = None) -> None:
        super().__init__(message, code, hint, output)  # so that the exception can be pickled
        self.message = message
        self.code = code
        self.hint = hint
        self.output = output

    def __str__(self) -> str:
        code = f" [{self.code}]" if self.code else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.kind}{code}: {self.message}{hint}"


class InternalError(SalientError):
    """A defect of Salient."""

    kind_number, kind = 1, "internal error"


class InvalidArgumentError(SalientError, ValueError):
    """Something impossible was asked for: an unknown option, a value out of range."""

    kind_number, kind = 2, "invalid argument"


class NotFoundError(SalientError, LookupError):
    """A file, model or tensor is not there."""

    kind_number, kind = 3, "not found"


class CorruptionError(SalientError):
    """Data that is there but broken."""

    kind_number, kind = 4, "corrupt data"


class UnsupportedError(SalientError):
    """Well-formed, but not implemented."""

    kind_number, kind = 5, "unsupported"


class IoError(SalientError):
    """The operating system refused, or memory ran out."""

    kind_number, kind = 6, "input/output error"


class CheckFailedError(SalientError):
    """The work was done, but its result misses a bound that was asked for; `output` has the result."""

    kind_number, kind = 7, "check failed"


class CancelledError(SalientError):
    """Stopped as asked for. What was finished is kept: the same call goes on from there."""

    kind_number, kind = 8, "cancelled"


class LibraryNotFoundError(NotFoundError):
    """libsalient.so is nowhere, or is not one that this package can use."""


_BY_NUMBER = {
    one.kind_number: one
    for one in (
        InternalError,
        InvalidArgumentError,
        NotFoundError,
        CorruptionError,
        UnsupportedError,
        IoError,
        CheckFailedError,
        CancelledError,
    )
}


def make_error(fields: Mapping[str, Any], output: Optional[str] = None) -> SalientError:
    """fields: "kind" (a number), "message", "code", "hint"."""
    return _BY_NUMBER.get(fields["kind"], InternalError)(fields["message"], fields["code"], fields["hint"], output)
