#!/usr/bin/env python3
"""How much faster Salient evaluates than lm-evaluation-harness 0.4.13: the same model, rows, examples and threads, both sides in one run.

usage: OMP_NUM_THREADS=2 compare_lm_eval_speed.py SALIENT MODEL DATA_FOLDER [--tasks a,b] [--batch-sizes 1,8,32,64] [--json FILE] [--docs]
lm-evaluation-harness runs in this process with each batch size; its best one counts, a batch size that is worse by half ends the search. Its time is that of
simple_evaluate, with the model loaded and the libraries imported; ours is that of the whole program, started and loaded anew for each task, and of the task alone.
Then all tasks in one command, as one evaluates a model: ours as it is, theirs as one start and its best time of each task.
DATA_FOLDER as scripts/checks/compare_lm_eval.py takes it. --docs writes the table into docs/performance.md.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts/lib"))
import lm_eval_local, lm_eval_rows, marked_section

# task, examples, documents
CASES = [("arc_easy", 0, 300), ("arc_challenge", 5, 80), ("hellaswag", 0, 200), ("piqa", 0, 300), ("winogrande", 0, 400), ("boolq", 0, 100), ("mmlu_anatomy", 5, 200),
         ("truthfulqa_mc2", 0, 80), ("lambada_openai", 0, 300), ("gsm8k", 0, 64), ("gsm8k_cot", 8, 32), ("squad_v2", 0, 64), ("wikitext", 0, 8)]


def theirs(model, name, files, shots, sizes):
    best = None
    for size in sizes:
        lm = lm_eval_local.load_model(model, batch_size=size)
        begin = time.perf_counter()
        lm_eval_local.run(lm, name, files, shots, bootstrap_iters=100000)  # its own default, and ours
        seconds = time.perf_counter() - begin
        if best is None or seconds < best[0]: best = (seconds, size)
        elif seconds > 1.5 * best[0]: break
    return best


def start_seconds(model):
    """A process of its own that imports lm-eval and loads the model, as its command line does before the first request."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts/lib')!r}); import lm_eval, lm_eval_local; lm_eval_local.load_model({str(model)!r})"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begin


def ours(salient, model, name, files, shots):
    call = [salient, "eval", str(model), "--tasks", name, "--num-fewshot", str(shots), "--no-store", "--no-throughput", "--json"]
    for split, path in files.items(): call += ["--data", f"{name}:{split}={path}"]
    begin = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode != 0: raise SystemExit(done.stderr)
    return time.perf_counter() - begin, sum(task["seconds"] for task in json.loads(done.stdout)["model"]["tasks"])


def ours_at_once(salient, model, work, cases):
    """All tasks in one command, as one evaluates a model: seconds of the whole program."""
    group = work / "set.yaml"
    group.write_text("group: set\ntask:\n" + "".join(f"  - {{task: {name}, num_fewshot: {shots}}}\n" for name, shots, _ in cases))
    call = [salient, "eval", str(model), "--tasks", str(group), "--no-store", "--no-throughput", "--json"]
    for name, _, files in cases:
        for split, path in files.items(): call += ["--data", f"{name}:{split}={path}"]
    begin = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode != 0: raise SystemExit(done.stderr)
    return time.perf_counter() - begin


def table(rows, threads, start=0.0, at_once=None):
    lines = [f"| task | examples | documents | lm-eval s (batch) | Salient s, whole program | task alone | ratio | task alone |", "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(f"| {r['task']} | {r['shots']} | {r['documents']} | {r['lm_eval']:.2f} ({r['batch']}) | {r['program']:.2f} | {r['alone']:.2f} | {r['lm_eval'] / r['program']:.1f} x | {r['lm_eval'] / r['alone']:.1f} x |")
    total = {k: sum(r[k] for r in rows) for k in ("lm_eval", "program", "alone")}
    lines.append(f"| **all** | | {sum(r['documents'] for r in rows)} | {total['lm_eval']:.1f} | {total['program']:.1f} | {total['alone']:.1f} | **{total['lm_eval'] / total['program']:.1f} x** | **{total['lm_eval'] / total['alone']:.1f} x** |")
    if at_once is not None:
        whole = start + total["lm_eval"]
        lines.append(f"| one command for all, with its start | | {sum(r['documents'] for r in rows)} | {whole:.1f} | {at_once:.1f} | | **{whole / at_once:.1f} x** | |")
    return lines + ["", f"{threads} threads on both sides, float32; `scripts/bench/compare_lm_eval_speed.py`. lm-eval's start, imports and loading the model, took {start:.1f} s;",
                    "it is counted in the last line alone, where both sides start once."]


def main():
    a = argparse.ArgumentParser(); a.add_argument("salient"); a.add_argument("model"); a.add_argument("data"); a.add_argument("--tasks", default="")
    a.add_argument("--batch-sizes", default="1,8,32,64"); a.add_argument("--json"); a.add_argument("--docs", action="store_true"); a = a.parse_args()
    sizes, work, rows, cases = [int(s) for s in a.batch_sizes.split(",")], pathlib.Path(tempfile.mkdtemp()), [], []
    warm = lm_eval_local.write_rows(work / "warm.jsonl", lm_eval_rows.rows_of("arc_easy", a.data)[:8])
    theirs(a.model, "arc_easy", dict(test=warm), 0, [8])  # imports and first calls
    start = start_seconds(a.model)
    for name, shots, limit in CASES:
        if a.tasks and name not in a.tasks.split(","): continue
        (_, evaluated, examples), source = lm_eval_local.STOCK[name], lm_eval_rows.rows_of(name, a.data)
        documents = min(limit, len(source))
        files = {evaluated: lm_eval_local.write_rows(work / f"{name}.jsonl", source[:documents])}
        if examples and shots: files[examples] = lm_eval_local.write_rows(work / f"{name}_pool.jsonl", source[documents:documents + 500] or source)
        before = ours(a.salient, a.model, name, files, shots)
        seconds, size = theirs(a.model, name, files, shots, sizes)
        after = ours(a.salient, a.model, name, files, shots)
        program, alone = (min(x, y) for x, y in zip(before, after))
        rows.append(dict(task=name, shots=shots, documents=documents, lm_eval=seconds, batch=size, program=program, alone=alone))
        cases.append((name, shots, files))
        print(table(rows[-1:], 0)[2], flush=True)
    at_once = min(ours_at_once(a.salient, a.model, work, cases) for _ in range(2))
    lines = table(rows, os.environ.get("OMP_NUM_THREADS", "2"), start, at_once)
    print("\n".join(lines))
    if a.json: pathlib.Path(a.json).write_text(json.dumps(rows, indent=1))
    if a.docs: marked_section.replace_section(ROOT / "docs/performance.md", "lm-eval speed", "\n".join(lines) + "\n")


main()
