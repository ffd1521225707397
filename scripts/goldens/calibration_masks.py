#!/usr/bin/env python3
"""Reference values for tests/calibration/response_spans_test.cpp: which tokens of a conversation the assistant wrote.

usage: calibration_masks.py > tests/data/calibration/response_masks.json    (transformers)
Templates with generation blocks: transformers' return_assistant_tokens_mask. The demo model's own template has none: the same rule over the
tokenizer's offsets, the answers found in the rendered text by a regular expression.
"""
import json
import pathlib
import re

import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
GENERATION = (
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'assistant' %}\n"
    "        {{- '<|im_start|>assistant\\n' }}\n"
    "        {%- generation %}\n"
    "        {{- message.content + '<|im_end|>' }}\n"
    "        {%- endgeneration %}\n"
    "        {{- '\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def turns(*contents):
    roles = ["user", "assistant"]
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


CHATS = [
    turns("What is 2 + 3?", "2 + 3 = 5.\n#### 5"),
    turns("Hi", "Hello there", "And you?", "Fine.", "Bye", "Good bye!"),
    turns("Emoji \U0001F600?", "\U0001F468\u200d\U0001F469\u200d\U0001F467 caf\u00e9 \u4f60\u597d \U0001F600", "More", "\U0001F600"),
    turns("The same", "same", "same", "same"),
    [{"role": "system", "content": "Be brief."}] + turns("Count.", "one  two\n\n three\tfour"),
    turns("A question without an answer"),
    turns("Say it", "<|im_start|> is a mark, <|im_end|> too"),
]


def main():
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    own = tokenizer.chat_template
    cases = []
    for name, template in (("generation", GENERATION), ("smol", (ROOT / "tests/data/templates/smol.jinja").read_text())):
        tokenizer.chat_template = template
        for messages in CHATS:
            made = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            mask = made["assistant_masks"]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            cases.append({"template": name, "messages": messages, "text": text, "ids": made["input_ids"], "mask": mask})
    tokenizer.chat_template = own
    for messages in CHATS[:-1]:  # marks inside an answer: no regular expression tells them apart
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = [match.span(1) for match in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.S)]
        mask = [int(any(begin < e and end > b for b, e in spans)) for begin, end in made["offset_mapping"]]
        cases.append({"template": "demo", "messages": messages, "text": text, "ids": made["input_ids"], "mask": mask})
    print(json.dumps({"made_with": f"transformers {transformers.__version__}", "generation_template": GENERATION, "cases": cases}, indent=1))


main()
