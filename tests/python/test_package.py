"""salient.run, quantize, evaluate and command: results, errors, progress, cancelling, Ctrl-C, and the two ways in which the work
runs."""

import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from unittest import mock

import salient
from salient import _library, _work
from support import DATA, DEMO, ROOT, FolderTest, artifact_bytes

LIBRARY = pathlib.Path(os.environ["SALIENT_LIBRARY"])
PROGRAM = os.environ["SALIENT_TEST_PROGRAM"]


class Parts:
    """A progress function that remembers."""

    def __init__(self, at=None):
        self.seen = []
        self._at = at or (lambda label, done: None)

    def __call__(self, label, unit, done, total):
        self.seen.append((label, unit, done, total))
        self._at(label, done)

    def blocks(self):
        return [done for label, _, done, _ in self.seen if label == "quantize"]


class Run(FolderTest):
    def test_same_result_as_the_program_in_both_ways(self):
        config = self.config("program")
        (self.folder / "run.yaml").write_text(json.dumps(config, default=str))
        printed = subprocess.run(
            [PROGRAM, "run", "run.yaml", "--json"], cwd=self.folder, check=True, capture_output=True, text=True
        )
        program = json.loads(printed.stdout)
        for name, process in (("library", False), ("process", True)):
            with self.subTest(name):
                parts, lines = Parts(), []
                found = salient.run(self.config(name), progress=parts, message=lines.append, process=process)
                self.assertEqual(artifact_bytes(found["artifact"]), artifact_bytes(program["artifact"]))
                self.assertEqual(
                    found["evaluation"]["model"]["tasks"][0]["metrics"], program["evaluation"]["model"]["tasks"][0]["metrics"]
                )
                self.assertEqual(set(found), set(program))
                total = parts.seen[-1][3] and [t for label, _, _, t in parts.seen if label == "quantize"][0]
                self.assertEqual(parts.blocks(), list(range(total + 1)))
                self.assertTrue(any("stage quantize: done" in line for line in lines), lines)
                again = salient.run(self.config(name), process=process)
                self.assertEqual(again["stages_run"], 0)

    def test_file_overrides_and_name(self):
        path = self.folder / "small.yaml"
        path.write_text(json.dumps(self.config(), default=str))
        found = salient.run(path, overrides={"quantization.group_size": 64, "evaluation.tasks": []})
        self.assertIn("_w4_g64_", found["artifact"])
        with self.assertRaises(salient.InvalidArgumentError) as caught:
            salient.run(path, overrides=["quantization.group_size=63"])
        self.assertIn("group size 63 does not divide", caught.exception.message)
        with self.assertRaises(salient.InvalidArgumentError):
            salient.run(path, overrides="quantization.group_size=64")

    def test_missed_bound_has_the_result(self):
        config = self.config()
        config["quantization"].update(bits=2, group_size=-1, method="rtn", format="compressed-tensors")
        config["evaluation"]["tasks"] = [{"name": "perplexity", "file": DATA / "heldout.txt", "limit": 2}]
        config["evaluation"]["max_retention_loss"] = 0
        with self.assertRaises(salient.CheckFailedError) as caught:
            salient.run(config)
        self.assertEqual(caught.exception.code, "ACCURACY_DEGRADATION")
        self.assertTrue(pathlib.Path(caught.exception.output["artifact"]).is_dir())


class Errors(FolderTest):
    def test_kinds_codes_and_hints(self):
        for process in (False, True):
            with self.subTest(process=process):
                with self.assertRaises(salient.NotFoundError) as caught:
                    salient.quantize(self.folder / "nowhere", self.folder / "out", DATA / "calib_mixed.jsonl", process=process)
                self.assertIn("nowhere", caught.exception.message)
                self.assertIsInstance(caught.exception, LookupError)
                with self.assertRaises(salient.InvalidArgumentError) as caught:
                    salient.quantize(DEMO, self.folder / "out", DATA / "calib_mixed.jsonl", groupsize=64, process=process)
                self.assertIn("group_size", str(caught.exception))
                with self.assertRaises(salient.InvalidArgumentError) as caught:
                    salient.evaluate(DEMO, "perplexity", data={"perplexity": DATA / "heldout.txt"}, limt=3, process=process)
                self.assertIn("--limit", str(caught.exception))
                with self.assertRaises(salient.InvalidArgumentError) as caught:
                    salient.command(["quantise"], process=process)
                self.assertTrue(caught.exception.hint)

    def test_errors_can_be_pickled(self):
        error = salient.IoError("a: b", "DISK_FULL", "free some", {"x": 1})
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual(
            (type(copy), copy.message, copy.code, copy.hint, copy.output),
            (salient.IoError, "a: b", "DISK_FULL", "free some", {"x": 1}),
        )
        self.assertEqual(str(copy), "input/output error [DISK_FULL]: a: b\n  hint: free some")

    def test_library_that_is_not_there_or_not_one(self):
        with mock.patch.dict(os.environ, SALIENT_LIBRARY=str(self.folder / "missing.so")):
            with self.assertRaises(salient.LibraryNotFoundError):
                salient.command(["--version"])
        other = self.folder / "other.so"
        other.write_bytes(b"\x7fELF")
        with mock.patch.dict(os.environ, SALIENT_LIBRARY=str(other)):
            with self.assertRaises(salient.LibraryNotFoundError) as caught:
                salient.command(["--version"])
            self.assertIn("SALIENT_LIBRARY", caught.exception.hint)


class Commands(FolderTest):
    def test_quantize_then_evaluate(self):
        out = self.folder / "awq"
        found = salient.quantize(
            DEMO,
            out,
            {DATA / "calib_mixed.jsonl": 1, DATA / "openmath_train.jsonl": 2},
            bits=4,
            group_size=64,
            max_calib_samples=12,
            n_grid=4,
            format="compressed-tensors",
            overrides=[{"pattern": "down_proj", "bits": 8}],
            seed=7,
        )
        self.assertEqual(found["folder"], str(out))
        groups = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"].values()
        self.assertEqual({(group["weights"]["num_bits"], group["weights"]["group_size"]) for group in groups}, {(4, 64), (8, 64)})
        result = salient.evaluate(
            out,
            ["arc", "perplexity"],
            data={"arc": DATA / "arc_test.jsonl", "perplexity": DATA / "heldout.txt"},
            compare_with=DEMO,
            limit=4,
            no_throughput=True,
        )
        self.assertEqual([task["task"] for task in result["model"]["tasks"]], ["arc", "perplexity"])
        self.assertIsNotNone(result["base"])
        both = salient.evaluate(
            [out, DEMO], "arc", data={"arc": DATA / "arc_test.jsonl"}, limit=2, no_throughput=True, store=self.folder / "results.db"
        )
        self.assertEqual(len(both), 2)
        self.assertTrue((self.folder / "results.db").is_file())

    def test_command(self):
        self.assertRegex(salient.command(["--version"]), r"^salient \d+\.\d+\.\d+\n$")
        self.assertEqual(json.loads(salient.command(["inspect", DEMO, "--json"]))["format"], "float")


class Stopping(FolderTest):
    def test_cancel_then_go_on(self):
        expected = artifact_bytes(salient.run(self.config("undisturbed"))["artifact"])
        for name, process in (("library", False), ("process", True)):
            with self.subTest(name):
                cancellation = salient.Cancellation()
                parts = Parts(lambda label, done: cancellation.cancel() if label == "quantize" and done == 1 else None)
                with self.assertRaises(salient.CancelledError) as caught:
                    salient.run(self.config(name), progress=parts, cancellation=cancellation, process=process)
                self.assertEqual(caught.exception.code, "CANCELLED")
                self.assertIn(1, parts.blocks())
                with self.assertRaises(salient.CancelledError):  # for good
                    salient.run(self.config(name), cancellation=cancellation, process=process)
                parts = Parts()
                found = salient.run(self.config(name), progress=parts, process=process)
                self.assertGreaterEqual(parts.blocks()[0], 1)
                self.assertEqual(artifact_bytes(found["artifact"]), expected)

    def test_exception_of_a_progress_function_stops_the_work(self):
        def fail(label, done):
            if label == "quantize":
                raise ZeroDivisionError("mine")

        for process in (False, True):
            with self.subTest(process=process), self.assertRaises(ZeroDivisionError):
                salient.run(self.config(f"p{process}"), progress=Parts(fail), process=process)
            self.assertFalse(list((self.folder / f"p{process}").glob("*_quantized")))

    def interrupted(self, process):
        """Another Python, which gets SIGINT as from a terminal while it quantizes."""
        script = self.folder / "script.py"
        script.write_text(textwrap.dedent(f"""
            import json, sys, salient
            def progress(label, unit, done, total):
                print(label, done, flush=True)
            config = json.load(open("config.json"))
            try:
                salient.run(config, progress=progress, process={process})
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                sys.exit(5)
        """))
        (self.folder / "config.json").write_text(json.dumps(self.config(f"i{process}"), default=str))
        child = subprocess.Popen(
            [sys.executable, str(script)], cwd=self.folder, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        lines = []
        for line in child.stdout:
            lines.append(line.strip())
            if line.startswith("quantize 1"):
                os.killpg(child.pid, signal.SIGINT)  # as a terminal: to the child's child, too
        self.assertEqual(child.wait(60), 5, lines)
        self.assertEqual(lines[-1], "interrupted")
        parts = Parts()
        salient.run(self.config(f"i{process}"), progress=parts)
        self.assertGreaterEqual(parts.blocks()[0], 1)

    def test_ctrl_c_in_process(self):
        self.interrupted(False)

    def test_ctrl_c_with_a_process_of_its_own(self):
        self.interrupted(True)

    def test_process_that_is_killed(self):
        def kill(label, done):
            if label == "quantize" and done == 1:
                for entry in pathlib.Path("/proc").iterdir():
                    if entry.name.isdigit() and (entry / "cmdline").exists():
                        words = (entry / "cmdline").read_bytes()
                        status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                        if b"salient._worker" in words and int(status[1]) == os.getpid():
                            os.kill(int(entry.name), signal.SIGKILL)

        with self.assertRaises(salient.InternalError) as caught:
            salient.run(self.config(), progress=Parts(kill), process=True)
        self.assertEqual(caught.exception.code, "PROCESS_DIED")
        self.assertIn("SIGKILL", caught.exception.message)
        parts = Parts()
        salient.run(self.config(), progress=parts, process=True)
        self.assertGreaterEqual(parts.blocks()[0], 1)

    def test_parent_that_is_killed_takes_its_process_along(self):
        script = (
            "import json, salient\n"
            "salient.run(json.load(open('config.json')), process=True, progress=lambda label, unit, done, total: print(label, done, flush=True))\n"
        )
        (self.folder / "config.json").write_text(json.dumps(self.config(), default=str))
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=self.folder, stdout=subprocess.PIPE, text=True)
        for line in parent.stdout:
            if line.startswith("quantize 1"):
                break
        children = (pathlib.Path("/proc") / str(parent.pid) / "task" / str(parent.pid) / "children").read_text().split()
        self.assertEqual(len(children), 1)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        until = time.monotonic() + 60
        while time.monotonic() < until and alive(children[0]):
            time.sleep(0.1)
        self.assertFalse(alive(children[0]))

    def test_two_threads_take_turns(self):
        results = []
        threads = [
            threading.Thread(target=lambda name: results.append(salient.run(self.config(name), process=False)), args=(f"t{i}",))
            for i in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(results), 2)
        self.assertEqual(artifact_bytes(results[0]["artifact"]), artifact_bytes(results[1]["artifact"]))


def alive(pid):
    try:
        return pathlib.Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def python(code, **environment):
    """Output of another Python."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise AssertionError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


class Torch(FolderTest):
    """libsalient's libtorch and Python's."""

    LIBRARIES = """
        import re
        torches = {line.split()[-1] for line in open("/proc/self/maps") if "libtorch_cpu" in line or "libc10.so" in line}
        print(len(torches))
    """

    def needs_same_torch(self):
        if not salient.library_info()["in_process"]:
            self.skipTest(f"this Python's torch is another one than libsalient's: {salient.library_info()}")

    def test_one_libtorch_in_the_process_whichever_comes_first(self):
        self.needs_same_torch()
        for order in (
            "import torch; import salient",
            "import salient; salient.command(['--version'], process=False); import torch",
        ):
            with self.subTest(order):
                self.assertEqual(
                    python(
                        order
                        + "\nsalient.command(['--version'], process=False); assert torch.ones(2).sum().item() == 2\n"
                        + textwrap.dedent(self.LIBRARIES)
                    ),
                    "2",
                )

    def test_settings_of_the_program_are_put_back_and_change_no_byte(self):
        self.needs_same_torch()
        import torch

        expected = artifact_bytes(salient.run(self.config("plain"), process=True)["artifact"])
        before = torch.get_num_threads()
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                found = salient.run(self.config("changed"), overrides=["runtime.threads=1"], process=False)
            self.assertEqual(torch.get_default_dtype(), torch.float64)
            self.assertEqual(torch.get_float32_matmul_precision(), "medium")
            self.assertEqual(torch.get_num_threads(), before)
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
        self.assertEqual(artifact_bytes(found["artifact"]), expected)

    def test_another_torch_means_another_process(self):
        """A library that says it was built with another libtorch, as far as the package can see."""
        other = self.folder / "libsalient.so.1"
        content = LIBRARY.read_bytes()
        version = _library.torch_of_library(LIBRARY)
        self.assertEqual(content.count(b"salient-torch-version: " + version.encode()), 1)
        other.write_bytes(
            content.replace(b"salient-torch-version: " + version.encode(), b"salient-torch-version: 1" + version.encode()[1:])
        )
        with mock.patch.dict(os.environ, SALIENT_LIBRARY=str(other)):
            self.assertFalse(salient.library_info()["in_process"])
            with self.assertRaises(salient.InvalidArgumentError) as caught:
                salient.command(["--version"], process=False)
            self.assertEqual(caught.exception.code, "TORCH_MISMATCH")
            with mock.patch.object(_work, "_InThread", side_effect=AssertionError("loaded into this process")):
                self.assertIn("salient ", salient.command(["--version"]))

    def test_without_any_torch(self):
        """The machine's own Python, which has none, loads the library with the libtorch that it was built with."""
        own = shutil.which("python3", path="/usr/bin")
        if own is None or subprocess.run([own, "-c", "import torch"], capture_output=True).returncode == 0:
            self.skipTest("no /usr/bin/python3 without torch")
        done = subprocess.run(
            [own, "-c", "import salient; print(salient.library_info()['in_process'], salient.command(['--version']))"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "pipeline/plugin/python")},
        )
        self.assertTrue(done.stdout.startswith("True salient "), done.stderr)


class Installed(FolderTest):
    def test_pip_install(self):
        source = self.folder / "source"
        shutil.copytree(ROOT / "pipeline/plugin/python", source)
        target = self.folder / "site"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--no-build-isolation",
                "--disable-pip-version-check",
                "--target",
                str(target),
                str(source),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 and "setuptools" in done.stderr:
            self.skipTest("pip cannot build without setuptools here: " + done.stderr[-300:])
        self.assertEqual(done.returncode, 0, done.stderr)
        out = python(
            "import salient, pathlib; print(pathlib.Path(salient.__file__).parent); print(salient.command(['--version']))",
            PYTHONPATH=str(target),
        )
        self.assertEqual(out.splitlines()[0], str(target / "salient"))
        self.assertTrue((target / "salient" / "py.typed").is_file())


if __name__ == "__main__":
    unittest.main()
