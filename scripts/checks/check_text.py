"""`salient tokenize` against tokenizers, `salient render` against apply_chat_template."""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

# The split patterns of GPT-4-like vocabularies: digits in threes (Llama 3) and one by one (Qwen).
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

STRINGS = [
    "", " ", "\n", "\t\t\n \n", "a", "Hello, world!", "  two  spaces  ", " " * 300, "x" + " " * 129 + "y", "\n" * 40, "\r\n\r\n mixed \r ends \n",
    "I'm you're HE'LL they'Ve isn’t 'S 'd", "3.14159 1,000,000 -42 1e-10 007 ٣٤٥ 一二三 ½ ²³ Ⅷ 𝟘𝟙𝟚 123456789",
    "naïve café Zürich Ünïcödé", "nai\u0308ve cafe\u0301 A\u030a \u0041\u0301\u0323 q\u0307\u0323", "\u0301leading mark", "e\u0301" * 30,
    "\ufb01ligature \u2126 \u212b \u1e9b\u0323 \uac00 \u1100\u1161\u11a8", "日本語のテキスト、中文字符。한국어 ไทย हिन्दी தமிழ்", "שלום עולם مرحبا بالعالم",
    "😀😃 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 🏳️‍🌈 ☺️ 1️⃣ 🧑🏿‍🚀", "\U0001f9ff\U00020000\U0002f800\U000e0041\U0010fffd", "\x00", "\x00\x01\x02\x1b[31m\x7f\x80\x9f",
    "zero\u200bwidth\u200cnon\u200djoiner\u2060\ufeff", "\ufeffBOM", "\u00a0nbsp\u2003em\u3000ideographic\u2028line\u2029para\u0085next\x0b\x0c",
    "\u202eright to left\u202c \u0600 \u06dd", "\ufffd\ufffe\uffff", "ſſ ß ẞ İı Σσς ǅ", "ZWJ\u200d", "▁ ▁▁under", "Ġ Ċ ĉ",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if k != '__init__'}\n\n\n\tif (a&&b||!c) { i++; }  // ok\n",
    "<html><body class=\"a\">&amp;</body></html>", "SELECT * FROM t WHERE a='b''c';--", "https://example.org/a_b?c=%20&d[]=e#f", "\\n \\u0041 \"quoted\" `tick`",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>", " <|im_end|> ", "<|im_end|><|im_end|>x<|im_en", "<s>[INST] x [/INST]</s>", "<0x0A><unk>",
    "a" * 5000, "ab" * 2000, "!?" * 500, "aAbB" * 300, "1" * 400, "é" * 400, "\u4e00" * 400,
]


def random_strings(count):
    """Mixtures of characters from many blocks; surrogates left out, which no UTF-8 text holds."""
    rng = random.Random(11)
    ranges = [(0x20, 0x7e), (0x20, 0x7e), (0, 0x1f), (0x80, 0x24f), (0x300, 0x36f), (0x370, 0x5ff), (0x600, 0xdff), (0x1100, 0x11ff), (0x1e00, 0x20cf),
              (0x2100, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xf900, 0xffff), (0x10000, 0x1ffff), (0x20000, 0x2fa1f), (0xe0000, 0xe01ef)]
    for _ in range(count):
        yield "".join(rng.choice((" ", "  ", "\n")) if rng.random() < 0.15 else chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 60)))


def made_tokenizer(kind, lines):
    """A small vocabulary of one of the kinds that published models use, trained on the given lines."""
    special = ["<unk>", "<s>", "</s>"]
    if kind == "byte fallback, metaspace":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, max_token_length=12)
    else:
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.decoder = decoders.ByteLevel()
        if kind == "byte-level, GPT-2":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        else:
            digits = "{1,3}" if kind == "byte-level, Llama 3" else ""
            if not digits:
                tokenizer.normalizer = normalizers.NFC()
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(SPLIT.format(digits=digits)), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False, rstrip=True)])
    tokenizer.add_tokens([AddedToken("world", single_word=True), AddedToken("<|im_start|>", lstrip=True, normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


def compare_ids(program, folder, work, name, add_special_tokens):
    strings = STRINGS + list(random_strings(400))
    path = work / "strings.jsonl"
    path.write_text("".join(json.dumps(text, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(strings)), encoding="utf-8")
    option = ["--add-special-tokens"] if add_special_tokens else []
    found = [json.loads(line) for line in program.run("tokenize", "--model", folder, "--file", path, *option).splitlines()]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [tokenizer.encode(text, add_special_tokens=add_special_tokens).ids for text in strings]
    wrong = [text for text, ours, theirs in zip(strings, found, expected) if ours != theirs]
    note = f"{sum(map(len, expected))} ids" + (f"; first: {wrong[0][:60]!r}" if wrong else "")
    return f"{name}{', special tokens' if add_special_tokens else ''}", f"{len(wrong)} of {len(strings)}", note, not wrong and len(found) == len(strings)


def check_tokenizers(program, work, demo):
    yield program.guarded("demo", lambda: compare_ids(program, demo, work, "demo", False))
    lines = (demo / "data/heldout.txt").read_text(encoding="utf-8").splitlines()[:3000] + STRINGS[:40]
    for number, kind in enumerate(["byte-level, GPT-2", "byte-level, Llama 3", "byte-level, Qwen", "byte fallback, metaspace"]):
        folder = work / f"tokenizer_{number}"
        folder.mkdir()
        made_tokenizer(kind, lines).save(str(folder / "tokenizer.json"))
        for special in (False, True):
            yield program.guarded(kind, lambda: compare_ids(program, folder, work, kind, special))


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a \"city\" <now> & later.\nTwo lines.", "parameters": {
    "type": "object", "required": ["city"], "properties": {"city": {"type": "string", "description": "Größe – 東京"}, "days": {"type": "integer", "default": 3},
                                                           "unit": {"type": "string", "enum": ["°C", "°F"]}}}}}
CALL = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 1, "exact": True, "rate": 0.5, "none": None}}}
# name: (messages, further variables)
CHATS = {
    "question": ([{"role": "user", "content": "What is 2 + 2?"}], {}),
    "turns": ([{"role": "user", "content": " Hi \n"}, {"role": "assistant", "content": "Hello 🗼 <b>&'\""}, {"role": "user", "content": "東京?\n\n"}], {}),
    "system": ([{"role": "system", "content": " Be terse.\n"}, {"role": "user", "content": "Go"}, {"role": "assistant", "content": "Gone"}], {}),
    "late system": ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}], {}),
    "thinking": ([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA"}, {"role": "user", "content": "R"}], {"enable_thinking": False}),
    "tools": ([{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Rain?"}], {"tools": [WEATHER]}),
    "calls": ([{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
               {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"rain\": false}"}, {"role": "assistant", "content": "No."},
               {"role": "user", "content": "Thanks"}], {"tools": [WEATHER]}),
}


def compare_chats(program, folder, work, name):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrong, refused = [], 0
    for case, (messages, variables) in CHATS.items():
        (work / "messages.json").write_text(json.dumps(messages, ensure_ascii=False), encoding="utf-8")
        prompt = case != "system"
        try:
            expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **variables)
        except Exception:  # the template's own refusal, whatever its class: then ours must refuse too
            expected = None
            refused += 1
        option = ["--add-generation-prompt"] if prompt else []
        status, found = program.try_run("render", "--model", folder, "--messages", work / "messages.json", "--variables", json.dumps(variables), *option)
        if (found if status == 0 else None) != expected:
            wrong.append(case)
    note = (f"{refused} refused by both" if refused else "") + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    return name, f"{len(wrong)} of {len(CHATS)}", note, not wrong and refused < len(CHATS)


def check_templates(program, work, demo, templates):
    yield program.guarded("demo", lambda: compare_chats(program, demo, work, "demo"))
    for path in sorted(templates.glob("*.jinja")):
        folder = work / f"template_{path.stem}"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(demo / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        tokenizer.save_pretrained(folder)
        yield program.guarded(path.stem, lambda: compare_chats(program, folder, work, path.stem))
