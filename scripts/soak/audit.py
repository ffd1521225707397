"""What is compared after work that was killed, with what the undisturbed work left: files by their SHA-256, stores row by row."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import sqlite3
import tempfile

from works import without_times

# Tables whose rows an undisturbed and a disturbed work have alike: `runs` differ in number, `file_hashes` hold times and inodes.
TABLES = ("artifacts", "calibrations", "results", "evaluations", "documents", "requests", "stages")
# Whose answers they are is named by what the model is, not by the number that it got. Stages that were stopped stand beside those
# that took their place.
QUERIES = {"requests": "SELECT q.key, q.value, m.hash, m.runtime FROM requests q LEFT JOIN answering_models m ON m.id = q.model",
           "stages": "SELECT DISTINCT name, inputs, outputs FROM stages WHERE status = 'done'"}
UNFINISHED = re.compile(r"\.partial|\.replaced|\.tmp|^tmp-|^salient-|-journal$|\.db-(wal|shm)$")
# Written anew by every start, with its times in them. Their contents stand in the store, which is compared.
VOLATILE = re.compile(r"\.db$|(^|/)run_\d+\.html$|(^|/)sweep\.(json|csv|svg)$|(^|/)launches/")
BAD_WORDS = re.compile(r"terminate called|Segmentation fault|what\(\):|Aborted|AddressSanitizer|runtime error:|internal error|"
                       r"is malformed|store locked|not a readable store")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder):
    """{path below the folder: path} of every file."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()}


def tree_of(folder):
    """{path below the folder: SHA-256} of what every start to the end leaves alike."""
    return {name: sha256(path) for name, path in files_of(folder).items() if not VOLATILE.search(name)}


def unfinished_in(folder):
    """Files of writers that are gone, and empty work folders."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if UNFINISHED.search(path.name)]


def stores_in(folder):
    return sorted(folder.rglob("*.db"))


class StoreCopy:
    """A store as it lies on the disk now, read from a copy: looking at it must not finish what a killed process left."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="soak_store_")
        for suffix in ("", "-wal"):
            part = f"{self.path}{suffix}"
            if os.path.exists(part): shutil.copyfile(part, f"{self.folder.name}/copy.db{suffix}")
        self.database = sqlite3.connect(f"{self.folder.name}/copy.db")
        self.database.text_factory = bytes
        return self

    def __exit__(self, *_):
        self.database.close()
        self.folder.cleanup()

    def rows(self, query):
        return self.database.execute(query).fetchall()

    def tables(self):
        return {name.decode() for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def complaints(self):
        """What SQLite finds wrong in it."""
        found = [text.decode() for (text,) in self.rows("PRAGMA integrity_check") if text != b"ok"]
        return found + [f"{row[0].decode()}: row {row[1]} refers to nothing" for row in self.rows("PRAGMA foreign_key_check")]


def answers_in(path):
    """{key: when it was stored} of the answers in a store; nothing where there is none yet."""
    if not path.exists(): return {}
    with StoreCopy(path) as store:
        return dict(store.rows("SELECT key, created FROM requests")) if "requests" in store.tables() else {}


def contents_of(path, folder):
    """Rows of the tables that hold results, as texts in order, without row numbers, times, and the path of the work's folder."""
    rows = []
    with StoreCopy(path) as store:
        for table in TABLES:
            cursor = store.database.execute(QUERIES.get(table, f"SELECT * FROM {table}"))
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = [f"{name}={readable(value, folder)}" for name, value in zip(names, values)
                       if not (name == "id" or name.endswith("_id") or name in ("created", "used"))]
                rows.append(f"{table} | " + " | ".join(row))
    return sorted(rows)


def readable(value, folder):
    if isinstance(value, bytes):
        text = value.decode("utf-8", errors="backslashreplace")
        if text.startswith("{"): text = json.dumps(without_times(json.loads(text)), sort_keys=True)
        return text.replace(str(folder), "FOLDER")
    return repr(value)


def store_complaints(path, finished):
    """Damage in a store, and, when the work is finished, runs that failed and hashes that are not those of their file."""
    with StoreCopy(path) as store:
        found = store.complaints()
        if finished and "runs" in store.tables():
            failed = store.rows("SELECT id, error FROM runs WHERE status = 'failed'")
            found += [f"run {run} failed: {error.decode()}" for run, error in failed]
        if finished and "file_hashes" in store.tables():
            for name, size, changed, inode, digest in store.rows("SELECT path, bytes, mtime_ns, inode, sha256 FROM file_hashes"):
                file = pathlib.Path(name.decode())
                if not file.exists(): continue
                status = file.stat()
                same = (status.st_size, status.st_mtime_ns, status.st_ino) == (size, changed, inode)
                if same and sha256(file) != digest.decode():
                    found.append(f"{file} has another hash than the store says")
    return [f"{path.name}: {text}" for text in found]


def first_difference(found, expected):
    """A few words around where two rows part: whole rows are pages long."""
    at = next((i for i, (one, other) in enumerate(zip(found, expected)) if one != other), min(len(found), len(expected)))
    start = max(0, at - 80)
    return f"found {found[start:at + 80]!r}, expected {expected[start:at + 80]!r}"


def compare_rows(found, expected):
    more, missing = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    differences = [f"a row differs: {first_difference(one, other)}" for one, other in zip(more, missing)]
    differences += [f"a row too many: {row[:160]}" for row in more[len(missing):]]
    differences += [f"a row is missing: {row[:160]}" for row in missing[len(more):]]
    if not differences and len(found) != len(expected):
        differences.append(f"{len(found)} rows, expected {len(expected)}: some stand there twice")
    return differences[:5]


def compare_trees(found, expected):
    differences = [f"{name} is missing" for name in sorted(set(expected) - set(found))]
    differences += [f"{name} is too many" for name in sorted(set(found) - set(expected))]
    return differences + [f"{name} has other bytes" for name in sorted(set(found) & set(expected)) if found[name] != expected[name]]
