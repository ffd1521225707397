#!/usr/bin/env python3
"""Writes tests/data/gguf/written_by_gguf.gguf: a small file of the Python package gguf, for tests/models/gguf_test.cpp.

    python3 scripts/goldens/gguf_file.py

An environment with gguf 0.19 and NumPy.
"""
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value

path = pathlib.Path(__file__).resolve().parents[2] / "tests/data/gguf/written_by_gguf.gguf"
path.parent.mkdir(parents=True, exist_ok=True)
writer = gguf.GGUFWriter(str(path), "llama")
writer.add_uint8("one.u8", 200)
writer.add_int8("one.i8", -100)
writer.add_uint16("one.u16", 60000)
writer.add_int16("one.i16", -30000)
writer.add_uint32("one.u32", 4000000000)
writer.add_int32("one.i32", -2000000000)
writer.add_float32("one.f32", 0.1)
writer.add_bool("one.bool", True)
writer.add_string("one.string", "smörgås ▁x")
writer.add_uint64("one.u64", 2**63 + 5)
writer.add_int64("one.i64", -(2**62))
writer.add_float64("one.f64", 0.1)
for name, kind, values in (("u8", Value.UINT8, [1, 255]), ("i16", Value.INT16, [-1, 300]), ("i32", Value.INT32, [-7, 0, 7]), ("u32", Value.UINT32, [4, 4, 8]),
                           ("f32", Value.FLOAT32, [0.5, -1.25]), ("bool", Value.BOOL, [True, False, True]), ("string", Value.STRING, ["<s>", "", "Ġthe"]),
                           ("u64", Value.UINT64, [2**63]), ("f64", Value.FLOAT64, [1e300])):
    writer.add_key_value("many." + name, values, Value.ARRAY, sub_type=kind)

ramp = np.arange(6, dtype=np.float32).reshape(2, 3) / 4
writer.add_tensor("f32", ramp)
writer.add_tensor("f16", (ramp + 1).astype(np.float16))
writer.add_tensor("bf16", gguf.quants.quantize(ramp - 1, Type.BF16), raw_dtype=Type.BF16)
writer.add_tensor("blk.0.attn_q.weight", gguf.quants.quantize(np.linspace(-1, 1, 192, dtype=np.float32).reshape(2, 3, 32), Type.Q8_0), raw_dtype=Type.Q8_0)
writer.add_tensor("norm", np.array([1, 2, 3, 4, 5], np.float32))
writer.add_tensor("q4_k", (np.arange(144) * 37 % 251).astype(np.uint8).reshape(1, 144), raw_dtype=Type.Q4_K)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
