#!/usr/bin/env python3
"""Writes tests/data/ggml_blocks/blocks.json: rows quantized by ggml's own functions, for tests/quant/ggml_types_test.cpp.

    python3 scripts/goldens/ggml_blocks.py [LIBGGML_BASE]

An environment with gguf and, where no library is named, llama-cpp-python 0.3.36 (ggml 0.25.3, x86-64). Blocks are made by ggml_quantize_chunk;
what they stand for is computed by gguf's NumPy code, compared with ggml's own and kept as SHA-256 of the float32 bytes.
"""
import ctypes
import hashlib
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]


def find_library():
    if len(sys.argv) > 1:
        return sys.argv[1]
    import llama_cpp

    return next(pathlib.Path(llama_cpp.__file__).parent.glob("lib/libggml-base*"))


ggml = ctypes.CDLL(str(find_library()))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
POINTER = ctypes.POINTER(ctypes.c_float)


def quantize(kind, rows, importance=None):
    rows = np.ascontiguousarray(rows, np.float32)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((rows.shape[0], rows.shape[1] // block * size), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = ggml.ggml_quantize_chunk(
        ctypes.c_int(kind), rows.ctypes.data_as(POINTER), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(rows.shape[0]),
        ctypes.c_int64(rows.shape[1]), None if weights is None else weights.ctypes.data_as(POINTER))
    assert written == out.nbytes, (kind, written, out.nbytes)
    return out


def dequantize(kind, blocks, columns):
    values = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    own = np.empty((blocks.shape[0], columns), np.float32)
    function = getattr(ggml, "dequantize_row_" + kind.name.lower().replace("_k", "_K"))
    for row, data in zip(own, np.ascontiguousarray(blocks)):
        function(ctypes.c_void_p(data.ctypes.data), row.ctypes.data_as(POINTER), ctypes.c_int64(columns))
    assert np.array_equal(own, values), kind
    return values


def rows_of(columns, generator):
    normal = generator.normal(size=(3, columns)) * 0.02
    heavy = generator.standard_t(2, size=(2, columns)) * 0.02
    spikes = normal[0].copy()
    spikes[::67] *= 40
    mostly_zero = np.zeros(columns)
    mostly_zero[columns // 3] = -0.7
    some_zero_blocks = normal[1].copy()
    some_zero_blocks[: columns // 2] = 0
    some_zero_blocks[-32:] = 0.25
    ramp = np.arange(columns) % 16 - 8.0
    return np.stack([
        normal[0], *heavy, spikes, mostly_zero, some_zero_blocks, ramp, np.zeros(columns), np.full(columns, 0.3), np.full(columns, -0.3), -np.abs(normal[2]),
        np.abs(normal[2]) + 0.01, normal[0] * 1e-5, normal[0] * 1e-12, heavy[1] * 3e4 / np.abs(heavy[1]).max(), np.round(normal[0] * 100) / 4,
    ]).astype(np.float32)


def importances_of(columns, generator):
    spread = np.exp(generator.normal(size=columns) * 1.5)
    outliers = spread * np.where(np.arange(columns) % 41 == 7, 1e4, 1e-3)
    half = np.where(np.arange(columns) % 64 < 32, 0, spread)
    return {"none": None, "spread": spread, "outliers": outliers, "half_zero": half, "zero": np.zeros(columns)}


def negative_fit():
    """A block in which a least-squares scale is negative: its 6-bit code overflows, and what counts is how much of it is kept where."""
    generator = np.random.default_rng(101)
    rows = generator.normal(size=(64, 1024)) * np.exp(generator.normal(size=(64, 1024)) * 3 - 8)
    weights = generator.random(1024) * (generator.random(1024) < 0.5)
    return rows.astype(np.float32).reshape(-1, 256)[254:255], weights[512:768]


def hexadecimal(array):
    return np.ascontiguousarray(array).tobytes().hex()


def main():
    generator = np.random.default_rng(20)
    out = []
    everything = ("none", "spread", "outliers", "half_zero", "zero")
    # 288 columns are nine blocks of 32: the last one stands alone where eight are searched together.
    for columns, kinds, chosen in ((256, TYPES[5:], everything), (288, TYPES[:5], ("none", "outliers", "zero")), (256, TYPES[5:], ("negative_fit",))):
        if chosen[0] == "negative_fit":
            rows, weights = negative_fit()
            importances = {"negative_fit": weights}
        else:
            rows = rows_of(columns, generator)
            importances = importances_of(columns, generator)
        case = {"columns": columns, "rows": hexadecimal(rows), "importances": {}, "expected": []}
        for name, importance in importances.items():
            if name not in chosen:
                continue
            if importance is not None:
                importance = importance.astype(np.float32)
                case["importances"][name] = hexadecimal(importance)
            for kind in kinds:
                if kind == Type.Q8_0 and importance is not None:
                    continue
                blocks = quantize(kind, rows, importance)
                case["expected"].append({"type": kind.name, "importance": name, "blocks": hexadecimal(blocks),
                                         "values_sha256": hashlib.sha256(dequantize(kind, blocks, columns).tobytes()).hexdigest()})
        out.append(case)
    path = pathlib.Path(__file__).resolve().parents[2] / "tests/data/ggml_blocks/blocks.json"
    path.write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main()
