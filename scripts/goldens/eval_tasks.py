#!/usr/bin/env python3
"""Reference values for tests/eval, by lm-evaluation-harness 0.4.13: whole tasks on the demo model (prompts, log-likelihoods, texts, metrics), few-shot draws,
filters, exact_match, and the functions of hellaswag and wikitext. Rows are the demo's own, or made up here in the layout of the data set.

usage: eval_tasks.py PROJECT_FOLDER OUT.json
"""
import json, pathlib, random, sys, tempfile
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import lm_eval_local

project, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
demo = lambda name, n, skip=0: [json.loads(line) for line in open(project / "models/demo/data" / name, encoding="utf-8")][skip:skip + n]
work = pathlib.Path(tempfile.mkdtemp())
lm = lm_eval_local.load_model(project / "models/demo")
arc, math, squad = demo("arc_test.jsonl", 30), demo("openmath_test.jsonl", 24), demo("squad_test.jsonl", 24)
held = (project / "models/demo/data/heldout.txt").read_text(encoding="utf-8")

things = [("cup", "table", "heavy"), ("ball", "box", "small"), ("book", "bag", "thick"), ("caf\u00e9", "street", "narrow"), ("lamp", "shelf", "wide"), ("rope", "hook", "weak"), ("cup", "table", "heavy")]
winogrande = [dict(sentence=f"The {a} broke the {b} because the _ was too {c}.", option1=a, option2=b, answer=str(1 + i % 2)) for i, (a, b, c) in enumerate(things)]
hellaswag = [dict(activity_label=f"Making a {a}", ctx_a=f"A person holds a {a} [header] near the {b}.", ctx_b=f"the PERSON then", endings=[f" [title] puts it on the {b}.", f"eats the  {b} [step] slowly.", f"says the {a} is {c}.", "leaves."],
                  label=str(i % 4)) for i, (a, b, c) in enumerate(things)]
piqa = [dict(goal=f"How do I lift a {c} {a}?", sol1=f"Use both hands and put it on the {b}.", sol2=f"Use the {b}'s edge", label=i % 2) for i, (a, b, c) in enumerate(things)]
boolq = [dict(passage=f"The {a} is {c}. It stands on the {b}.", question=f"is the {a} {c}", label=i % 2) for i, (a, b, c) in enumerate(things)]
lambada = [dict(text=f"He took the {a} from the {b} and found it {c} so he put the {a} back on the {b}") for a, b, c in things]
mmlu = [dict(question=f" What is {i} + {i}? ", choices=[str(2 * i + k) for k in (1, 0, 3, 2)], answer=1, subject="anatomy") for i in range(7)]
truthful = [dict(question=f"Is the {a} {c}?", mc1_targets=dict(choices=[f"It depends on the {a}.", "Yes", "No, never"], labels=[1, 0, 0]),
                 mc2_targets=dict(choices=[f"It depends on the {a}.", "Sometimes", "Yes", "No, never"], labels=[1, 1, 0, 0])) for a, b, c in things]
chat = [dict(question=f"{r['question']} ", choices=r["choices"], answerKey=r["answerKey"]) for r in arc]
page = lambda title, text: f" = {title} = \n \n {text} \n"
wikitext = [dict(page=page("One", held[:600].replace(".", " .").replace(",", " ,"))), dict(page=page("Two @-@ three", "It was ( in 1999 ) \" said \" he @.@ 5 [ 3 ] , and N of them 's ; = = End = = \n" + held[700:900]))]

cases = [  # name, rows, examples' rows, shots, chat
    ("arc_easy", arc[:6], arc[6:], 0, False), ("arc_easy", arc[:4], arc[6:], 2, False), ("arc_easy", arc[:3], arc[6:], 1, True), ("hellaswag", hellaswag, None, 0, False),
    ("hellaswag", hellaswag[:5], hellaswag, 2, False), ("piqa", piqa[:5], None, 0, False), ("winogrande", winogrande[:5], None, 0, False), ("winogrande", winogrande[:4], winogrande, 2, False),
    ("boolq", boolq[:5], boolq, 1, False), ("lambada_openai", lambada[:6], None, 0, False), ("mmlu_anatomy", mmlu[:5], mmlu[5:], 2, False), ("truthfulqa_mc1", truthful[:4], None, None, False),
    ("truthfulqa_mc2", truthful[:4], None, None, False), ("openmath", math[:5], math[8:], 0, False), ("gsm8k", math[:3], math[8:], 2, False), ("gsm8k_cot", math[:3], None, 1, False),
    ("arc_challenge_chat", chat[:3], chat[6:], None, True), ("squad_v2", squad[:4], None, 0, False), ("wikitext", wikitext, None, 0, False)]
tasks = []
for name, rows, pool, shots, with_chat in cases:
    stock, evaluated, examples = lm_eval_local.STOCK[name]
    files = {evaluated: lm_eval_local.write_rows(work / "rows.jsonl", rows)}
    if pool is not None: files[examples] = lm_eval_local.write_rows(work / "pool.jsonl", pool)
    result = lm_eval_local.run(lm, name, files, shots, bootstrap_iters=1000, **(dict(apply_chat_template=True, fewshot_as_multiturn=True) if with_chat else {}))
    if name == "squad_v2": result["metrics"] = {}  # made by another package: squad.json
    # A sampled row is told by its text alone in the prompt, so prompts hold all that is to be compared.
    tasks.append(dict(task=name, split=evaluated, rows=rows, pool_split=examples, pool=pool, shots=shots, chat=with_chat, metrics=result["metrics"],
                      documents=[dict(prompts=list(dict.fromkeys(a[0] for a in s["arguments"])), responses=s["responses"], scores=s["scores"], filtered={k: v for k, v in s["filtered"].items() if k != "none"})
                                 for s in result["samples"]]))

# --- draws, filters, exact_match, functions of tasks
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.metrics import exact_match_hf_evaluate, perplexity, bootstrap_stderr, median, bits_per_byte, pooled_sample_stderr
from lm_eval.filters import build_filter_ensemble
from lm_eval.filters.extraction import MultiChoiceRegexFilter
from lm_eval.tasks.hellaswag.utils import preprocess
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer, process_results as wikitext_results
draws = []
for size, n, exclude in [(10, 3, False), (10, 3, True), (25, 5, False), (97, 6, True), (2251, 5, False), (7473, 8, False), (40398, 5, True)]:
    pool = [dict(i=i % (size - 1)) for i in range(size)] if exclude else [dict(i=i) for i in range(size)]
    sampler = ContextSampler(pool, rnd=1234)
    draws.append(dict(size=size, count=n, exclude=exclude, rows=[[x["i"] for x in sampler.sample(n, eval_doc=dict(i=k) if exclude else None)] for k in range(12)]))
rng = random.Random(3)
words = ["(A)", "The answer is 7.", "B", "answer: C", "#### 5", "red", "Red.", " blue ", "no", "", "12 and 13", "a,b", "x\ny", "(B) red", ": B", "caf\u00e9 \u00c9T\u00c9"]
texts = words + ["".join(rng.choice(["a", "B", "7", " ", "(", ")", ":", ".", "#", "\n", "red"]) for _ in range(rng.randrange(0, 12))) for _ in range(40)]
steps = [[["regex", dict(regex_pattern="(\\d+)|([a-c])")]], [["regex", dict(regex_pattern="[0-9]+", group_select=-1, fallback="none")]], [["regex", dict(regex_pattern="\\((\\w)\\)")], ["lowercase", {}]],
         [["remove_whitespace", {}], ["uppercase", {}]], [["map", dict(mapping_dict={"B": "2", "red": "1"}, default_value="-")]], [["regex", dict(regex_pattern="a*")]],
         [["multi_choice_regex", dict(regex_pattern="(\\([A-Z]\\))", group_select=0, ignore_case=True, ignore_punctuation=True)]]]
docs = [dict(choices=["red", "blue", "red ball"]) for _ in texts]
filters = []
for pipeline in steps:
    state = [[t] for t in texts]
    for function, kwargs in pipeline:
        from lm_eval.api.registry import get_filter
        state = list(get_filter(function)(**kwargs).apply(state, docs))
    filters.append(dict(steps=[dict(function=f, **k) for f, k in pipeline], results=[r[0] for r in state]))
rules = [dict(), dict(ignore_case=True), dict(ignore_punctuation=True, ignore_case=True), dict(ignore_numbers=True), dict(regexes_to_ignore=["\\s", "(?s)a.*"]), dict(regexes_to_ignore=[",", "\\.$"], ignore_case=True)]
pairs = [(rng.choice(texts), rng.choice(texts)) for _ in range(60)] + [("Red.", "red"), ("a b", "ab"), ("7x", "8x"), ("1,000.", "1000"), ("\u00c9T\u00c9", "\u00e9t\u00e9"), ("X.\n", "x\n")]
matches = [dict(rules=r, equal=[bool(exact_match_hf_evaluate([p], [q], **r)["exact_match"]) for p, q in pairs]) for r in rules]
odd = ["", "  a [title] b", "x [header] [y] z  w", "[a\nb] c", "a   b", "\u00a0 q [title]", "[title] [title]"]
wiki = [r["page"] for r in wikitext] + ["", "a", " s ' t", "( a ( b ) c )", "' 5 '", "/' 5/ x", '" a " b " c', "{ x }", " N N ", "a \n b", "= = = = x = = = =", "10 \u00b0 C 's"]
values = [rng.uniform(-9, 0) for _ in range(12)]
import os; os.environ["DISABLE_MULTIPROC"] = "1"
aggregations = dict(values=values, perplexity=perplexity(values), perplexity_stderr=bootstrap_stderr(perplexity, values, iters=3000), median=median(values), median_stderr=bootstrap_stderr(median, values, iters=2000),
                    bits_per_byte=bits_per_byte([(v, i + 1) for i, v in enumerate(values)]), pooled=float(pooled_sample_stderr([0.1, 0.2, 0.05], [10, 7, 30])))
result = dict(tasks=tasks, draws=draws, texts=texts, choices=docs[0]["choices"], filters=filters, pairs=pairs, matches=matches, hellaswag=[dict(text=t, processed=preprocess(t)) for t in odd],
              wikitext=[dict(page=p, text=wikitext_detokenizer(dict(page=p)), words=wikitext_results(dict(page=p), (0.0,))["word_perplexity"][1]) for p in wiki], aggregations=aggregations,
              random=dict(words=[random.Random(1234).getrandbits(32)], first=random.Random(1234).random(), choices=random.Random(0).choices(range(5153), k=8)))
out.write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=False).replace('{"task":', '\n{"task":').replace(',"draws":', ',\n"draws":') + "\n", encoding="utf-8")
print(out, out.stat().st_size)
