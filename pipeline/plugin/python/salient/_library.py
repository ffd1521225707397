"""libsalient.so: where it is, which libtorch it is made for, and its C interface (pipeline/plugin/salient.h) through ctypes."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import pathlib
import re
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from .errors import LibraryNotFoundError

ABI_VERSION = 1
NAME = f"libsalient.so.{ABI_VERSION}"
_PROGRESS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
_MESSAGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class _Callbacks(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("user", ctypes.c_void_p),
        ("progress", _PROGRESS),
        ("message", _MESSAGE),
        ("cancellation", ctypes.c_void_p),
    ]


class _Config(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("path", ctypes.c_char_p),
        ("text", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("overrides", ctypes.POINTER(ctypes.c_char_p)),
        ("override_count", ctypes.c_size_t),
    ]


class _Error(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("kind_name", ctypes.c_char_p),
        ("code", ctypes.c_char_p),
        ("message", ctypes.c_char_p),
        ("hint", ctypes.c_char_p),
    ]


def candidates() -> List[pathlib.Path]:
    """Where the library is looked for, after SALIENT_LIBRARY: beside this package, in the build tree that the package lies in, in
    the usual folders."""
    here = pathlib.Path(__file__).resolve().parent
    found = [here / NAME]
    for parent in here.parents:
        if (parent / "pipeline" / "plugin" / "salient.h").is_file():
            found.append(parent / "build" / "release" / NAME)
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders += [
        f"{sys.prefix}/lib",
        "/usr/local/lib",
        f"/usr/local/lib/{os.uname().machine}-linux-gnu",
        f"/usr/lib/{os.uname().machine}-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ]
    return found + [pathlib.Path(folder) / NAME for folder in folders]


def find_library() -> pathlib.Path:
    """The file of libsalient. Raises LibraryNotFoundError."""
    given = os.environ.get("SALIENT_LIBRARY")
    if given:
        if not os.path.isfile(given):
            raise LibraryNotFoundError(
                f"SALIENT_LIBRARY={given}: there is no such file",
                "LIBRARY_NOT_FOUND",
                f"name the file {NAME} that was built with Salient",
            )
        return pathlib.Path(given).resolve()
    for path in candidates():
        if path.is_file():
            return path.resolve()
    raise LibraryNotFoundError(
        f"{NAME} was not found in " + ", ".join(str(path.parent) for path in candidates()),
        "LIBRARY_NOT_FOUND",
        "build it (cmake --build build/release --target libsalient), and set SALIENT_LIBRARY=.../build/release/" + NAME,
    )


def torch_of_library(path: pathlib.Path) -> str:
    """The libtorch that the library was built with, "2.13.0+cpu <commit>", read without loading it. Raises LibraryNotFoundError."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark = b"salient-torch-version: "
        begin = content.find(mark)
        if begin < 0:
            raise LibraryNotFoundError(
                f"{path}: this is no libsalient",
                "LIBRARY_NOT_FOUND",
                f"name the file {NAME} that was built with Salient in SALIENT_LIBRARY",
            )
        begin += len(mark)
        return content[begin : content.find(b"\0", begin)].decode()


def torch_of_python() -> Optional[str]:
    """The torch that this Python has loaded or would load, in the same form; None where there is none. Imports nothing."""
    loaded = sys.modules.get("torch")
    if loaded is not None and getattr(loaded, "version", None) is not None:
        return f"{loaded.version.__version__} {loaded.version.git_version}"
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    try:
        text = (pathlib.Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    fields = dict(re.findall(r"^(__version__|git_version)[^=\n]*= '([^']*)'", text, re.MULTILINE))
    return f"{fields.get('__version__', 'unknown')} {fields.get('git_version', '')}"


class Library:
    """The loaded library. Safe to use from any thread; ctypes lets other threads of Python run meanwhile."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            self._c = ctypes.CDLL(str(path))
        except OSError as error:
            raise LibraryNotFoundError(
                f"{path} cannot be loaded: {error}",
                "LIBRARY_NOT_FOUND",
                "its libraries (libtorch above all) have to be where they were when it was built; build it again",
            ) from error
        try:
            self._declare()
        except AttributeError as error:
            raise LibraryNotFoundError(
                f"{path}: this is no libsalient: {error}",
                "LIBRARY_NOT_FOUND",
                f"name the file {NAME} that was built with Salient in SALIENT_LIBRARY",
            ) from error
        found = self._c.salient_abi_version()
        if found != ABI_VERSION:
            raise LibraryNotFoundError(
                f"{path}: ABI version {found}, this package needs {ABI_VERSION}",
                "LIBRARY_VERSION",
                "install the package and the library of one version of Salient",
            )

    def _declare(self) -> None:
        c = self._c
        for name in ("salient_version", "salient_torch_version"):
            getattr(c, name).restype = ctypes.c_char_p
        c.salient_abi_version.restype = ctypes.c_int32
        c.salient_cancellation_new.restype = ctypes.c_void_p
        c.salient_cancel.argtypes = c.salient_cancellation_free.argtypes = [ctypes.c_void_p]
        c.salient_cancel.restype = c.salient_cancellation_free.restype = c.salient_free.restype = None
        c.salient_free.argtypes = [ctypes.c_void_p]
        c.salient_last_error.restype = ctypes.POINTER(_Error)
        # A c_char_p as an output would lose the pointer that has to be freed.
        c.salient_run.argtypes = [ctypes.POINTER(_Config), ctypes.POINTER(_Callbacks), ctypes.POINTER(ctypes.c_void_p)]
        c.salient_command.argtypes = [
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_size_t,
            ctypes.POINTER(_Callbacks),
            ctypes.POINTER(ctypes.c_void_p),
        ]
        c.salient_run.restype = c.salient_command.restype = ctypes.c_int32

    @property
    def version(self) -> str:
        return self._c.salient_version().decode()

    @property
    def torch_version(self) -> str:
        return self._c.salient_torch_version().decode()

    def new_cancellation(self) -> int:
        return self._c.salient_cancellation_new()

    def cancel(self, cancellation: int) -> None:
        self._c.salient_cancel(cancellation)

    def free_cancellation(self, cancellation: int) -> None:
        self._c.salient_cancellation_free(cancellation)

    def perform(
        self, request: Dict[str, Any], tell: Callable[[Tuple[Any, ...]], None], cancellation: int
    ) -> Tuple[Optional[str], Optional[Dict[str, Any]]]:
        """Runs {"words": [...]} or {"path" or "text", "name", "overrides"} in this thread. `tell` gets ("progress", label, unit,
        done, total) and ("message", line). Returns what was printed or the result, and the error's fields or None."""
        keep = (
            _PROGRESS(lambda user, label, unit, done, total: tell(("progress", label.decode(), unit.decode(), done, total))),
            _MESSAGE(lambda user, line: tell(("message", line.decode("utf-8", "replace")))),
        )
        callbacks = _Callbacks(ctypes.sizeof(_Callbacks), None, keep[0], keep[1], cancellation)
        output = ctypes.c_void_p()
        if "words" in request:
            words = _texts(request["words"])
            status = self._c.salient_command(words, len(request["words"]), ctypes.byref(callbacks), ctypes.byref(output))
        else:
            overrides = request.get("overrides") or []
            config = _Config(
                ctypes.sizeof(_Config),
                _text(request.get("path")),
                _text(request.get("text")),
                _text(request.get("name")),
                _texts(overrides),
                len(overrides),
            )
            status = self._c.salient_run(ctypes.byref(config), ctypes.byref(callbacks), ctypes.byref(output))
        text = None
        if output.value:
            text = ctypes.string_at(output.value).decode("utf-8", "replace")
            self._c.salient_free(output)
        if status == 0:
            return text, None
        error = self._c.salient_last_error().contents
        return text, {
            "kind": error.kind,
            "code": error.code.decode(),
            "message": error.message.decode("utf-8", "replace"),
            "hint": error.hint.decode("utf-8", "replace"),
        }


def _text(value: Optional[str]) -> Optional[bytes]:
    return None if value is None else value.encode()


def _texts(values: List[str]) -> Any:
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


_loaded: Dict[pathlib.Path, Library] = {}


def load(path: pathlib.Path) -> Library:
    if path not in _loaded:
        _loaded[path] = Library(path)
    return _loaded[path]
