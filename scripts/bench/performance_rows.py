"""The rows of the table that scripts/bench.sh prints: each a function from the run's settings to a list of results. Both sides of a ratio are measured in
turns, A B A B, and the medians compared, because what a machine gives changes within minutes."""
import dataclasses
import functools
import json
import pathlib
import re
import shutil
import statistics

import random_model
from tool_runs import last_json_line, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
MET, MISSED, NOT_RUN = "met", "missed", "not run"
GB = 10**9


@dataclasses.dataclass(frozen=True)
class Settings:
    work: pathlib.Path  # models, GGUF files and figures; what is there is used again
    salient: pathlib.Path
    kernels: pathlib.Path  # the program bench_kernels
    pythons: tuple  # of ("llama-cpp" or "autoawq" or "llm-compressor", path)
    threads: int
    rounds: int  # of both sides of a ratio
    repeats: int  # of one measurement
    prompt_tokens: int
    generation_tokens: int
    windows: int  # of text, for the perplexity
    blocks: int  # of the small model; 0 = all
    load_blocks: int  # of the large model; 0 = all
    block_quantization: tuple  # more options of compare_block_quantization.py

    def python(self, name):
        return dict(self.pythons).get(name)


@dataclasses.dataclass
class Result:
    work: str
    target: str
    found: str
    outcome: str
    details: list = dataclasses.field(default_factory=list)  # (what, figures) of each side


class CannotRun(Exception):
    """Why a row is left out."""


def judged(work, target, found, met, details=()):
    return Result(work, target, found, MET if met else MISSED, list(details))


def model(settings, shape, as_float=False, blocks=0):
    folder = settings.work / "-".join(filter(None, [shape, "float" if as_float else "awq", blocks and f"{blocks}-blocks"]))
    if not (folder / "config.json").exists():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        needed = (6 if shape == "llama-3-8b" else 1) * GB
        settings.work.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(settings.work).free < 2 * needed:
            raise CannotRun(f"{settings.work} has less than {2 * needed / GB:.0f} GB of free space")
        random_model.write_model(shape, folder, as_float=as_float, blocks=blocks or None)
    return folder


def gguf(settings, name):
    path = settings.work / f"qwen3-0.6b-{settings.blocks}-{name}.gguf"
    if not path.exists():
        source = model(settings, "qwen3-0.6b", True, settings.blocks)
        run([settings.salient, "export", "--model", source, "--format", f"gguf-{name}", "--out", path], settings.threads)
    return path


def salient_json(settings, command, folder, *words):
    """What `salient bench` or `salient eval` prints of a model."""
    text, _, _ = run([settings.salient, command, folder, "--threads", settings.threads, "--json", *words], settings.threads)
    return json.loads(text)


def medians(runs):
    return {key: statistics.median(one[key] for one in runs) for key in runs[0] if isinstance(runs[0][key], (int, float))}


def in_turns(sides, rounds):
    """{name: median figures} of {name: function that measures once}."""
    runs = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            runs[name].append(measure())
    return {name: medians(of_side) for name, of_side in runs.items()}


@functools.cache
def whole_models(settings):
    """Tokens a second of a model of Qwen3-0.6B's shape: llama.cpp's files, and ours in the settings that there are."""
    python = settings.python("llama-cpp")
    if python is None:
        raise CannotRun("no Python with llama-cpp-python is named: --python llama-cpp=PATH")
    shape = ["--prompt-tokens", settings.prompt_tokens, "--generation-tokens", settings.generation_tokens, "--repeats", settings.repeats]
    artifact = model(settings, "qwen3-0.6b", blocks=settings.blocks)

    def llama(name):
        command = [python, HERE / "peer_llama_cpp.py", gguf(settings, name), "--threads", settings.threads, *shape]
        return lambda: last_json_line(run(command, settings.threads)[0])

    def ours(*words):
        return lambda: salient_json(settings, "bench", artifact, *shape, *words)

    return in_turns({"llama.cpp Q4_0": llama("q4_0"), "llama.cpp Q4_K_M": llama("q4_k_m"), "Salient a16": ours("--activation-bits", "16"),
                     "Salient a8": ours("--activation-bits", "8"), "Salient a8 kv8": ours("--activation-bits", "8", "--kv-bits", "8")}, settings.rounds)


def compared(settings, key):
    """(ratio of our faster setting to llama.cpp's faster file, its name, details)."""
    sides = whole_models(settings)
    best = max((name for name in sides if name.startswith("Salient")), key=lambda name: sides[name][key])
    peer = max(figures[key] for name, figures in sides.items() if name.startswith("llama.cpp"))
    return sides[best][key] / peer, best, [(name, f"{figures[key]:.1f} tokens/s") for name, figures in sides.items()]


def generation(settings):
    ratio, best, details = compared(settings, "generation_tokens_per_second")
    share = whole_models(settings)[best]["bandwidth_share"]
    work = f"{settings.generation_tokens} tokens one by one, Qwen3-0.6B shape"
    return [judged(f"{work}, against llama.cpp's faster file", "1.3 times", f"{ratio:.2f} times ({best})", ratio >= 1.3, details),
            judged(f"{work}, share of the memory's bandwidth", "80 %", f"{100 * share:.0f} % ({best})", share >= 0.8,
                   [(name, f"{100 * figures['bandwidth_share']:.0f} %") for name, figures in whole_models(settings).items() if "bandwidth_share" in figures])]


def prompt(settings):
    ratio, best, details = compared(settings, "prompt_tokens_per_second")
    return [judged(f"prompt of {settings.prompt_tokens} tokens, the same", "1.1 times", f"{ratio:.2f} times ({best})", ratio >= 1.1, details)]


def perplexity(settings):
    """Seconds of the evaluation alone, without loading the model."""
    text = ROOT / "models/demo/data/heldout.txt"
    evaluation = ["--tasks", "perplexity", "--data", f"perplexity={text}", "--window", 512, "--limit", settings.windows, "--no-throughput", "--no-store"]

    def seconds(folder, *words):
        return lambda: {"seconds": salient_json(settings, "eval", folder, *evaluation, *words)["model"]["tasks"][0]["seconds"]}

    artifact = model(settings, "qwen3-0.6b", blocks=settings.blocks)
    sides = in_turns({"float32": seconds(model(settings, "qwen3-0.6b", True, settings.blocks)),
                      "AutoAWQ's 4 bits, a8": seconds(artifact, "--activation-bits", "8"), "the same, a16": seconds(artifact, "--activation-bits", "16")},
                     settings.rounds)
    ratio = sides["float32"]["seconds"] / sides["AutoAWQ's 4 bits, a8"]["seconds"]
    return [judged(f"perplexity of {settings.windows} windows of 512 tokens, quantized (a8) against float32", "1.5 times", f"{ratio:.2f} times", ratio >= 1.5,
                   [(name, f"{figures['seconds']:.2f} s") for name, figures in sides.items()])]


def block_quantization(settings):
    pythons = settings.python("autoawq"), settings.python("llm-compressor")
    if None in pythons:
        raise CannotRun("no Pythons with AutoAWQ and llm-compressor are named: --python autoawq=PATH --python llm-compressor=PATH")
    file = settings.work / "block_quantization.json"
    settings.work.mkdir(parents=True, exist_ok=True)
    run([HERE / "compare_block_quantization.py", "--awq-python", pythons[0], "--lc-python", pythons[1], "--salient", settings.salient,
         "--threads", settings.threads, "--json", file, *settings.block_quantization], settings.threads)
    figures = json.loads(file.read_text())
    titles = {"salient": "Salient", "salient-default": "Salient as by default, which adds the tokens that the model writes"}
    details = [(titles.get(name, name), f"{of_tool['quantize_s']:.1f} s, {of_tool['peak_mb']:.0f} MB") for name, of_tool in figures["tools"].items()]
    shape = f"{figures['setting']['blocks']} blocks of Qwen3-0.6B's shape, {figures['setting']['tokens']} tokens"
    results = []
    for name, key, work, least in (("AutoAWQ", "autoawq_quantize_s", "time", 20), ("llm-compressor", "llm-compressor_quantize_s", "time", 10),
                                   ("AutoAWQ", "autoawq_peak_mb", "peak memory", 4)):
        ratio = figures["ratios"][key]
        results.append(judged(f"quantization of {shape}: {name}'s {work} by ours", f"{least} times", f"{ratio:.1f} times", ratio >= least,
                              [] if results else details))
    return results


def large_gpu(_settings):
    raise CannotRun("needs a CUDA device and a libtorch with CUDA; measured apart")


def load_time(settings):
    folder = model(settings, "llama-3-8b", blocks=settings.load_blocks)
    measured = ["--prompt-tokens", "1", "--generation-tokens", "1", "--repeats", "1"]

    def load(bits):
        def measure():
            for file in folder.glob("*.safetensors"):  # into the page cache
                with file.open("rb", buffering=0) as stream:
                    while stream.read(1 << 24):
                        pass
            return salient_json(settings, "bench", folder, *measured, "--activation-bits", bits)
        return measure

    sides = in_turns({"a16": load(16), "a8": load(8)}, settings.rounds)
    slowest = max(figures["load_seconds"] for figures in sides.values())
    gigabytes = lambda figures, key: f"{figures[key] / GB:.2f} GB"
    details = [(name, f"{figures['load_seconds']:.2f} s, {gigabytes(figures, 'weight_bytes')} of weights, peak {gigabytes(figures, 'peak_rss_after_load_bytes')}")
               for name, figures in sides.items()]
    return [judged("loading an 8B-shaped artifact from a warm page cache", "under 5 s", f"{slowest:.2f} s", slowest < 5, details)]


def kernels(settings):
    if not settings.kernels.exists():
        raise CannotRun(f"{settings.kernels} is not there: cmake --build build/release --target bench_kernels")
    text, _, _ = run([settings.kernels, settings.threads, "few"], settings.threads)
    found = re.findall(r"^  1 rows, 4096 x 4096 g128, 4 bits .*?([\d.]+) %", text, re.MULTILINE)[-1]  # of the best instruction set, the last one
    details, instructions = [], ""
    for line in text.splitlines():
        if line.startswith("  "):
            details.append((f"{instructions}: {line[:38].strip()}", line[38:].strip()))
        else:
            instructions = line.split(",")[0]
    return [judged("one row by 4096 x 4096 of 4 bits, share of reading memory", "80 %", f"{found} %", float(found) >= 80, details)]


ROWS = {"generation": generation, "prompt": prompt, "perplexity": perplexity, "block-quantization": block_quantization, "gpu": large_gpu, "load": load_time,
        "kernels": kernels}
