#!/usr/bin/env python3
"""Reference files for tests/eval/lm_eval_results_test.cpp: what lm-evaluation-harness 0.4.13 writes with output_path and log_samples for two tasks on a few of the demo's rows.

usage: lm_eval_files.py PROJECT_FOLDER OUT.json
"""
import json, pathlib, sys, tempfile
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import lm_eval_local
import lm_eval, yaml
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

project, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
work = pathlib.Path(tempfile.mkdtemp())
lines = lambda name, n: open(project / "models/demo/data" / name, encoding="utf-8").read().split("\n")[:n]
# The second row lacks a column, so that it is null there; columns are not sorted.
arc = lines("arc_test.jsonl", 4)
arc = [json.dumps(json.loads(line) | ({"note": {"z": "caf\u00e9", "a": 0.5}} if i != 1 else {}), ensure_ascii=False) for i, line in enumerate(arc)]
texts = {"arc_easy": "\n".join(arc) + "\n", "gsm8k": "\n".join(lines("openmath_test.jsonl", 4)) + "\n"}
tasks = work / "tasks"
tasks.mkdir()
for name in texts:
    (work / f"{name}.jsonl").write_text(texts[name], encoding="utf-8")
    stock, evaluated, examples = lm_eval_local.STOCK[name]
    spec = dict(include=str(pathlib.Path(lm_eval.__file__).parent / "tasks" / stock), task=name, dataset_path="json", dataset_name=None, tag=None, num_fewshot=1,
                dataset_kwargs=dict(data_files={evaluated: str(work / f"{name}.jsonl"), examples: str(work / f"{name}.jsonl")}))
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump(spec))
tracker = EvaluationTracker(output_path=str(work / "out"))
result = lm_eval.simple_evaluate(model="hf", model_args=dict(pretrained=str(project / "models/demo"), dtype="float32", softmax_dtype="float32"), device="cpu", batch_size=1, limit=2,
                                 tasks=list(texts), task_manager=TaskManager(include_path=str(tasks), include_defaults=False), log_samples=True, bootstrap_iters=1000, evaluation_tracker=tracker)
samples = result.pop("samples")
tracker.save_results_aggregated(results=result, samples=samples)
for task in samples: tracker.save_results_samples(task_name=task, samples=samples[task])
results = json.load(open(next((work / "out").rglob("results_*.json"))))
# What depends on this machine.
for key in ("pretty_env_info", "date", "git_hash", "upper_git_hash", "total_evaluation_time_seconds", "configs", "model_name", "model_name_sanitized", "transformers_version"): results.pop(key)
results["config"].pop("model_args")
written = {name: [json.loads(line) for line in open(next((work / "out").rglob(f"samples_{name}_*.jsonl")), encoding="utf-8")] for name in texts}
out.write_text(json.dumps(dict(made_by=f"lm_eval {results['lm_eval_version']}, scripts/goldens/lm_eval_files.py", texts=texts, results=results, samples=written), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
