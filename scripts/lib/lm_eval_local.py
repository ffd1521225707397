"""lm-evaluation-harness 0.4.13 on local rows: its stock task files, with nothing but the data replaced. Nothing is downloaded."""
import json, os, pathlib, tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# Salient's name of a task: lm-eval's file below lm_eval/tasks, the splits that it names (evaluated first, examples second).
STOCK = {
    "arc_easy": ("arc/arc_easy.yaml", "test", "train"), "arc_challenge": ("arc/arc_challenge.yaml", "test", "train"),
    "arc_challenge_chat": ("arc/arc_challenge_chat.yaml", "test", "train"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation", "train"), "piqa": ("piqa/piqa.yaml", "validation", "train"),
    "winogrande": ("winogrande/default.yaml", "validation", "train"), "boolq": ("super_glue/boolq/default.yaml", "validation", "train"),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", "validation", None), "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "validation", None),
    "lambada_openai": ("lambada/lambada_openai.yaml", "test", None), "gsm8k": ("gsm8k/gsm8k.yaml", "test", "train"),
    "gsm8k_cot": ("gsm8k/gsm8k-cot.yaml", "test", None), "openmath": ("gsm8k/gsm8k.yaml", "test", "train"),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", "test", "dev"), "wikitext": ("wikitext/wikitext.yaml", "test", "train"),
    "squad_v2": (None, "validation", "train"),
}


def load_model(folder, **options):
    import torch
    from lm_eval.models.huggingface import HFLM
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", softmax_dtype="float32", batch_size=options.pop("batch_size", 8), **options)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _squad(files, shots):
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks.squadv2 import task as stock

    class LocalSquad(stock.SQuAD2):
        DATASET_PATH = "json"

        def __init__(self, config=None):
            ConfigurableTask.__init__(self, config=dict(task="squad_v2", dataset_path="json", dataset_kwargs=dict(data_files=files), num_fewshot=shots, metadata=dict(version=3)))
            self.config.task = "squad_v2"
    stock._squad_metric = lambda predictions, references: {}  # scored by Hugging Face's evaluate, which would download it
    return LocalSquad()


def run(model, name, files, shots=None, **options):
    """files: {split: path}. Returns {"metrics": {...}, "samples": [{"arguments": [[context, continuation or kwargs]], "responses": [...], ...}]}."""
    import lm_eval, yaml
    from lm_eval.tasks import TaskManager
    stock, evaluated, examples = STOCK[name]
    files = dict(files)
    if examples and examples not in files: files[examples] = files[evaluated]  # the pool is loaded even where nothing is drawn from it
    manager = None
    if stock is None:
        task = _squad(files, shots or 0)
    else:
        path = pathlib.Path(lm_eval.__file__).parent / "tasks" / stock
        spec = dict(include=str(path), task=name + "_local", dataset_path="json", dataset_name=None, dataset_kwargs=dict(data_files=files), tag=None)
        if shots is not None: spec["num_fewshot"] = shots
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "task.yaml").write_text(yaml.safe_dump(spec))
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        task = name + "_local"
    result = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=options.pop("bootstrap_iters", 0), **options)
    key = next(iter(result["results"]))
    samples = {}
    for s in result["samples"][key]:
        arguments = s["arguments"]
        if isinstance(arguments, dict): arguments = [[a[k] for k in sorted(a)] for a in arguments.values()]
        entry = samples.setdefault(s["doc_id"], dict(arguments=[list(a) for a in arguments], responses=[r[0] for r in s["resps"]], filtered={}, scores={}))
        entry["filtered"][s["filter"]] = s["filtered_resps"]
        for metric in s["metrics"]:
            if isinstance(s[metric], (int, float)): entry["scores"][metric if s["filter"] == "none" else f"{metric},{s['filter']}"] = float(s[metric])
    metrics = {k.removesuffix(",none"): v for k, v in result["results"][key].items() if isinstance(v, (int, float)) and "," in k}
    return dict(metrics={k: float(v) for k, v in metrics.items()}, samples=[samples[i] for i in sorted(samples)])
