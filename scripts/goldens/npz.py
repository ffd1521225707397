"""Writes tests/data/npz: NumPy files for tests/models/npz_test.cpp. NumPy 2.x wrote the stored ones.

    python3 scripts/goldens/npz.py
"""
import pathlib

import numpy as np

folder = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "npz"
folder.mkdir(parents=True, exist_ok=True)
ramp = np.arange(24).reshape(2, 3, 4)
arrays = {
    "float16": (ramp / 4).astype(np.float16),
    "float32": (ramp / 3).astype(np.float32),
    "float64": ramp / 7,
    "int8": (ramp - 12).astype(np.int8),
    "int16": (ramp * 1000 - 12000).astype(np.int16),
    "int32": (ramp * 100000000 - 1200000000).astype(np.int32),
    "int64": ramp * 10**15 - 12 * 10**15,
    "uint8": (ramp * 10).astype(np.uint8),
    "uint16": (ramp * 2700).astype(np.uint16),
    "uint32": (ramp * 170000000).astype(np.uint32),
    "uint64": ramp.astype(np.uint64) * np.uint64(7 * 10**17),
    "bool": ramp % 3 == 0,
    "fortran": np.asfortranarray((ramp / 3).astype(np.float32)),
    "big_endian": (ramp / 3).astype(">f4"),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 5), np.float32),
    "model.layers.0.mlp.up_proj.weight": (ramp[0] / 3).astype(np.float32),
}
np.savez(folder / "stored.npz", **arrays)
np.savez_compressed(folder / "compressed.npz", **arrays)
np.savez(folder / "object.npz", fine=np.ones(2, np.float32), object=np.array([{"a": 1}], dtype=object), complex=np.ones(2, np.complex64),
         structured=np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
np.save(folder / "single.npy", arrays["fortran"])
