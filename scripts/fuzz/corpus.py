"""The committed corpus of a fuzz target, tests/fuzz/corpus/TARGET.base64: one input a line, short ones first.

usage: corpus.py unpack FILE FOLDER    writes each input to FOLDER, named by its SHA-1 as libFuzzer names them
       corpus.py pack FOLDER FILE      writes FILE of the inputs in FOLDER
"""
import base64
import hashlib
import pathlib
import sys


def unpack(file: pathlib.Path, folder: pathlib.Path) -> None:
    for line in file.read_text().splitlines():
        data = base64.b64decode(line)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(folder: pathlib.Path, file: pathlib.Path) -> None:
    inputs = sorted({path.read_bytes() for path in folder.iterdir()}, key=lambda data: (len(data), data))
    file.write_text("".join(base64.b64encode(data).decode() + "\n" for data in inputs))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__)
    {"pack": pack, "unpack": unpack}[sys.argv[1]](pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
