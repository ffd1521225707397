"""The kinds of work that the soak disturbs: what each needs, how it is called, and what of it is compared."""
import dataclasses
import json
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "models/demo"
DATA = DEMO / "data"
CHECKPOINT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
TASKS = ["--tasks", "arc,openmath,perplexity", "--data", f"arc={DATA}/arc_test.jsonl", "--data",
         f"openmath={DATA}/openmath_test.jsonl", "--data", f"perplexity={DATA}/heldout.txt", "--window", "128",
         "--batch-tokens", "256", "--max-new-tokens", "16"]


def evaluation(windows, questions):
    """The section of a run's config."""
    return {"tasks": [{"name": "perplexity", "file": f"{DATA}/heldout.txt", "limit": windows},
                      {"name": "arc", "file": f"{DATA}/arc_test.jsonl", "limit": questions}], "throughput": False}


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    words: tuple                       # what is given to salient; its working folder is one of the work's own
    prepare: object = None             # prepare(folder) writes what lies there before the first start
    artifacts: tuple = ()              # globs of folders that `salient verify` must find as they were made
    store: str = ""                    # the database that it fills
    figures: object = None             # figures(what --json printed): the part that every start to the end prints alike
    again: tuple = (0,)                # exit codes of another start when all is done: nothing to do, or the output exists
    crowded: tuple = (0,)              # exit codes of a second process beside the first: it waits, or is refused
    may_rewrite: tuple = ()            # names of files that a later stage completes


class Shelf:
    """What the works read and none of them changes: calibration rows, and models of several formats below one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.models = folder / "Models"
        self.calibration = folder / "calibration.jsonl"

    def make(self, salient):
        """salient(words) runs the program to its end."""
        put_demo(self.models / "demo")
        rows = (DATA / "calib_mixed.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        self.calibration.write_text("".join(rows[:12]), encoding="utf-8")
        for name, layout in (("demo_awq", "awq-gemm"), ("demo_packed", "compressed-tensors")):
            salient(["quantize", "--model", self.models / "demo", "--calib", self.calibration, "--n-grid", "2",
                     "--self-generated", "0", "--format", layout, "--out", self.models / name])
        salient(["export", "--model", self.models / "demo", "--format", "gguf-q4_0", "--out", self.models / "demo-Q4_0.gguf"])


def put_demo(folder, more=()):
    folder.mkdir(parents=True)
    for name in (*CHECKPOINT_FILES, *more):
        shutil.copyfile(DEMO / name, folder / name)


def write_run(folder):
    config = {"model": {"path": str(DEMO)}, "calibration": {"samples": 12}, "quantization": {"n_grid": 4, "max_shard_size": "1MB"},
              "evaluation": evaluation(3, 30), "output": {"folder": "artifacts", "store": "runs/salient.db"}}
    (folder / "run.yaml").write_text(json.dumps(config))


def write_sweep(folder, **more):
    config = {"model": {"path": str(DEMO)}, "quantization": {"n_grid": 4, "propagate_error": False, "clip_steps": 4},
              "evaluation": evaluation(2, 12)}
    (folder / "run.yaml").write_text(json.dumps(config))
    grid = {"quantization.group_size": [64, 128], "calibration.samples": [8, 16]}
    (folder / "sweep.yaml").write_text(json.dumps({"run": "run.yaml", "grid": grid, **more}))


def write_checkpoint(folder):
    """What a training leaves: a checkpoint whose training_metadata.json plans the rest."""
    checkpoint = folder / "outputs/checkpoint-500"
    put_demo(checkpoint)
    plan = json.loads((DEMO / "training_metadata.json").read_text(encoding="utf-8"))
    plan["dataset"]["train_file"] = str(DATA / "openmath_train.jsonl")
    plan.update(quantization={"method": "awq", "bits": 4, "group_size": 64, "n_grid": 4, "format": "compressed-tensors"},
                calibration={"samples": 8}, evaluation=evaluation(3, 30))
    (checkpoint / "training_metadata.json").write_text(json.dumps(plan))


def without_times(value):
    """JSON without what another start, or another folder, has otherwise: seconds, row numbers, hashes over paths."""
    if isinstance(value, dict):
        others = ("seconds", "run", "run_id", "calibration_id", "after")
        return {key: without_times(one) for key, one in value.items() if key not in others}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def make_works(shelf, threads):
    """Every kind, in the order of the table."""
    awq, packed = shelf.models / "demo_awq", shelf.models / "demo_packed"
    calibration = ["--calib", shelf.calibration]

    def quantize(name, *options):
        # A second one is refused: an output folder belongs to one process.
        words = ["quantize", "--model", DEMO, *calibration, "--n-grid", "4", "--out", "out", *options]
        return Work(f"quantize {name}", words=words, artifacts=("out",), again=(2,), crowded=(0, 2))

    def export(name, model, out, *options):
        return Work(f"export {name}", words=["export", "--model", model, "--out", out, *options], again=(2,), crowded=(0, 2))

    def stored(store):
        return {"store": store, "may_rewrite": ("README.md", "quantization_metadata.json")}

    swept = ("artifacts/sweeps/sweep/*/*_quantized",)
    launcher = {"kind": "local", "max_jobs": 2, "cpus": 1}
    own = ["--store", "salient.db"]
    works = [
        Work("run", ["run", "run.yaml"], write_run, ("artifacts/*_quantized",), **stored("runs/salient.db")),
        Work("sweep", ["sweep", "sweep.yaml"], write_sweep, swept, **stored("runs/salient.db")),
        Work("sweep as jobs", ["sweep", "sweep.yaml"], lambda folder: write_sweep(folder, launcher=launcher), swept, crowded=(0, 2),
             **stored("runs/salient.db")),
        Work("hook", ["hook", "post-train", "outputs/checkpoint-500"], write_checkpoint, ("outputs/*_quantized",),
             **stored("outputs/runs/salient.db")),
        Work("eval", ["eval", awq, "--compare-with", DEMO, *TASKS, "--limit", "24", "--no-throughput", *own], store="salient.db",
             figures=without_times),
        Work("evaluate-all", ["evaluate-all", shelf.models, *TASKS, "--limit", "8", *own], store="salient.db",
             figures=lambda printed: without_times(printed["ranking"])),
        Work("sensitivity", ["sensitivity", awq, "--compare-with", DEMO, "--text", DATA / "heldout.txt", "--limit", "4",
                             "--window", "128", *own], store="salient.db", figures=without_times),
        quantize("awq-gemm", "--max-shard-size", "1MB"),
        quantize("compressed-tensors", "--format", "compressed-tensors", "--bits", "3", "--group-size", "64",
                 "--override", "re:.*down_proj=bits:4"),
        quantize("bits by module", "--format", "compressed-tensors", "--target-bits", "3.5"),
        quantize("gguf-q4_k_m", "--format", "gguf-q4_k_m"),
        export("compressed-tensors", awq, "out", "--format", "compressed-tensors"),
        export("awq-gemm", packed, "out", "--format", "awq-gemm"),
        export("gguf-q8_0", DEMO, "demo.gguf", "--format", "gguf-q8_0"),
        export("torchscript", awq, "out", "--format", "torchscript"),
        Work("imatrix", ["imatrix", "--model", DEMO, *calibration, "--out", "imatrix.gguf"], again=(2,), crowded=(0, 2)),
        Work("verify", ["verify", awq, "--against-source", shelf.models / "demo", *calibration, "--blocks", "all"],
             figures=without_times),
    ]
    return [dataclasses.replace(work, words=(*map(str, work.words), "--threads", str(threads), "--json")) for work in works]
