"""What the tests of the Python package share: the bundled demo, made small."""

import pathlib
import shutil
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
DATA = DEMO / "data"
# Of an artifact that the same inputs give the same bytes of; its card and metadata have figures and times.
OPEN_FILES = {"README.md", "quantization_metadata.json"}


class FolderTest(unittest.TestCase):
    """Each test has an empty folder."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="salient_python_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def config(self, name="out"):
        return {
            "model": {"path": DEMO},
            "calibration": {"samples": 12},
            "quantization": {"n_grid": 4, "max_shard_size": "1MB"},
            "evaluation": {"throughput": False, "tasks": [{"name": "arc", "file": DATA / "arc_test.jsonl", "limit": 8}]},
            "output": {"folder": self.folder / name, "store": self.folder / name / "salient.db"},
        }


def artifact_bytes(folder):
    return {
        path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file() and path.name not in OPEN_FILES
    }
