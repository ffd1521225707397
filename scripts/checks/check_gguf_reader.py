#!/usr/bin/env python3
"""Reads GGUF files with the Python package gguf and says whether they are what llama.cpp wants.

    python3 scripts/checks/check_gguf_reader.py FILE.gguf [--like OTHER.gguf] [--load]

Checks the layout (names below 64 bytes, every tensor right behind the padded one before it, the file ended by the last padding) and dequantizes every
tensor: all values must be finite. With --like, both files must have the same tensors in the same shapes; the types are compared and, where they are
equal, the bytes. With --load, llama.cpp (llama-cpp-python) must load the file. An environment with gguf 0.19. The exit status is 0 when all is well.
"""
import argparse
import pathlib
import sys

import gguf
import numpy as np


def layout_errors(path, reader):
    expected = reader.data_offset
    for tensor in reader.tensors:
        if len(tensor.name.encode()) > 63:
            yield f"{tensor.name}: the name is too long"
        if tensor.data_offset != expected:
            yield f"{tensor.name}: at byte {tensor.data_offset}, expected {expected}"
        expected += -(-int(tensor.n_bytes) // reader.alignment) * reader.alignment
    size = pathlib.Path(path).stat().st_size
    if reader.tensors and size != expected:
        yield f"{size} bytes, expected {expected}"
    if reader.fields["GGUF.version"].parts[0][0] != 3:
        yield "not version 3"


def value_errors(reader):
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tuple(values.shape) != tuple(int(n) for n in reversed(tensor.shape)):
            yield f"{tensor.name}: shape {values.shape}, declared {tuple(tensor.shape)}"
        if not np.isfinite(values).all():
            yield f"{tensor.name}: values that are not finite"


def compare(reader, other):
    """Errors, and lines of figures: per type, how many blocks are equal."""
    errors, blocks = [], {}
    theirs = {tensor.name: tensor for tensor in other.tensors}
    names = {tensor.name for tensor in reader.tensors}
    errors += [f"{name}: only in one of the files" for name in sorted(names ^ set(theirs))]
    for tensor in reader.tensors:
        twin = theirs.get(tensor.name)
        if twin is None:
            continue
        if tuple(tensor.shape) != tuple(twin.shape) or tensor.tensor_type != twin.tensor_type:
            errors.append(f"{tensor.name}: {tensor.tensor_type.name} {tuple(tensor.shape)}, the other {twin.tensor_type.name} {tuple(twin.shape)}")
            continue
        size = gguf.GGML_QUANT_SIZES[tensor.tensor_type][1]
        equal = (tensor.data.reshape(-1).view(np.uint8).reshape(-1, size) == twin.data.reshape(-1).view(np.uint8).reshape(-1, size)).all(1)
        count = blocks.setdefault(tensor.tensor_type.name, [0, 0])
        count[0] += int(equal.sum())
        count[1] += equal.size
    return errors, [f"{kind}: {equal} of {total} blocks equal" for kind, (equal, total) in sorted(blocks.items())]


def load_errors(path):
    from llama_engine import Engine

    try:
        Engine(path).close()
    except SystemExit as error:
        return [str(error)]
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--like", metavar="OTHER")
    parser.add_argument("--load", action="store_true")
    arguments = parser.parse_args()
    reader = gguf.GGUFReader(arguments.file)
    errors = [*layout_errors(arguments.file, reader), *value_errors(reader)]
    print(f"{arguments.file}: {len(reader.fields)} fields, {len(reader.tensors)} tensors")
    if arguments.like:
        found, figures = compare(reader, gguf.GGUFReader(arguments.like))
        errors += found
        print("\n".join(figures))
    if arguments.load:
        errors += load_errors(arguments.file)
    print("\n".join(errors) or "fine")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
