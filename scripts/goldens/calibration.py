#!/usr/bin/env python3
"""Reference values for tests/calibration, from the demo model's tokenizer, template and data.

usage: calibration.py rendered > tests/data/calibration/rendered.json    (transformers)
       calibration.py tokens   > tests/data/calibration/tokens.json      (tokenizers)
       calibration.py autoawq  > tests/data/calibration/autoawq.json     (autoawq 0.2.9, its own get_calib_dataset)
The system prompt and the user and assistant turns are those of scripts/demo_model/train.py, which trained the demo model.
"""
import hashlib
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
SYSTEM = "You are a careful assistant. Think in short steps and end with the answer."


def lines(name, count=None):
    return [json.loads(line) for line in open(DEMO / "data" / name)][:count]


def arc_user(row):
    return row["question"] + "".join(f"\n{label}. {text}" for label, text in zip(row["choices"]["label"], row["choices"]["text"]))


def squad_answer(row):
    return row["answers"]["text"][0] if row["answers"]["text"] else "unanswerable"


def turn(role, content):
    return {"role": role, "content": content}


def rendered():
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    squad = lines("squad_train.jsonl", 40)
    squad = [r for r in squad if r["answers"]["text"]][:2] + [r for r in squad if not r["answers"]["text"]][:2]
    cases = [("pair", r, [turn("user", r["question"]), turn("assistant", r["answer"])]) for r in lines("openmath_train.jsonl", 3)]
    cases += [("multiple_choice", r, [turn("user", arc_user(r)), turn("assistant", r["answerKey"])]) for r in lines("arc_train.jsonl", 3)]
    cases += [("squad", r, [turn("user", f"{r['context']}\n{r['question']}"), turn("assistant", squad_answer(r))]) for r in squad]
    cases += [
        ("alpaca", {"instruction": "Add.", "input": "1 and 2", "output": "3"}, [turn("user", "Add.\n1 and 2"), turn("assistant", "3")]),
        ("alpaca", {"instruction": "Greet.", "input": "", "output": "Hello é 😀"}, [turn("user", "Greet."), turn("assistant", "Hello é 😀")]),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}, {"from": "human", "value": "And?"},
                                        {"from": "gpt", "value": "Done."}]},
         [turn("user", "Hi"), turn("assistant", "Ho"), turn("user", "And?"), turn("assistant", "Done.")]),
        ("messages", {"messages": [turn("system", "Own prompt."), turn("user", "Hi"), turn("assistant", "Ho")]},
         [turn("system", "Own prompt."), turn("user", "Hi"), turn("assistant", "Ho")]),
        ("pair", {"prompt": "Once", "completion": "upon a time"}, [turn("user", "Once"), turn("assistant", "upon a time")]),
    ]
    result = []
    for layout, row, messages in cases:
        for system in ("", SYSTEM, "Another prompt."):
            full = messages if not system or messages[0]["role"] == "system" else [turn("system", system)] + messages
            result.append({"layout": layout, "row": row, "system_prompt": system,
                           "conversation": tokenizer.apply_chat_template(full, tokenize=False),
                           "prompt": tokenizer.apply_chat_template(full[:-1], tokenize=False, add_generation_prompt=True)})
    return {"made_with": f"transformers {transformers.__version__}", "cases": result}


def tokens():
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    texts = [row["text"] for row in lines("calib_mixed.jsonl", 40)]
    ids = [tokenizer.encode(text).ids for text in texts]
    return {"made_with": f"tokenizers {tokenizers.__version__}", "file": "calib_mixed.jsonl", "lengths": [len(x) for x in ids],
            "first_row": ids[0], "last_row": ids[-1]}


def autoawq():
    import awq
    import transformers
    from awq.utils.calib_data import get_calib_dataset
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    texts = [row["text"] for row in lines("calib_mixed.jsonl")]
    texts[3] = "  \u3000\n" + texts[3] + "\u2003\n"  # white space of other kinds is stripped too
    texts[5] = " \n"                                 # and a blank text is left out
    cases = []
    for samples, seq_len in ((128, 256), (128, 64), (7, 100)):
        blocks = get_calib_dataset(texts, tokenizer, n_samples=samples, max_seq_len=seq_len)
        flat = [int(i) for block in blocks for i in block[0]]
        cases.append({"samples": samples, "max_seq_len": seq_len, "blocks": len(blocks), "first_ids": flat[:12],
                      "sha256": hashlib.sha256(" ".join(map(str, flat)).encode()).hexdigest()})
    return {"made_with": f"autoawq {awq.__version__}", "file": "calib_mixed.jsonl", "cases": cases}


if __name__ == "__main__":
    print(json.dumps({"rendered": rendered, "tokens": tokens, "autoawq": autoawq}[sys.argv[1]](), ensure_ascii=False, indent=1))
