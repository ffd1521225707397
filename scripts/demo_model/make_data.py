#!/usr/bin/env python3
"""Writes the data of the demo model: a small synthetic world in the layouts of GSM8K (openmath), ARC and SQuAD v2.

usage: make_data.py OUT_DIR

OUT_DIR/full/*_train.jsonl are the rows that train.py learns from; the files directly in OUT_DIR are those of models/demo/data, byte for
byte: the first rows of each training set, the test sets, a calibration set and a held-out text, both with the chat template applied.
Needs only the standard library; the order of the random draws is part of the result.
"""
import json
import pathlib
import random
import sys

import chat

R = random.Random(20261121)
TEST_ROWS = 400
TRAIN_ROWS = {"openmath": 24000, "arc": 14000, "squad": 16000}
BUNDLED_TRAIN_ROWS = {"openmath": 2000, "arc": 500, "squad": 500}
MIXED_ROWS = 400  # of each kind in the calibration set and in the held-out text
MIXED_SEED = 3

NAMES = ("Ava Ben Cara Dan Ella Finn Gita Hugo Iris Jack Kira Leo Maya Noah Olga Paul Quinn Rosa Sam Tara Uma Vic Wade "
         "Xena Yuri Zoe").split()
ITEMS = "apples pears coins books stamps shells cards pens cups stones eggs keys maps toys seeds".split()


def between(low, high):
    return R.randint(low, high)


def math_row():
    a, b = R.sample(NAMES, 2)
    things = R.choice(ITEMS)
    kind = between(0, 7)
    if kind == 0:
        x, y = between(2, 60), between(2, 39)
        result = x + y
        question = f"{a} has {x} {things}. {b} gives {a} {y} more. How many {things} does {a} have now?"
        steps = f"{a} starts with {x} and gets {y}. {x} + {y} = {result}."
    elif kind == 1:
        y = between(2, 40)
        x = between(y + 1, 90)
        result = x - y
        question = f"{a} has {x} {things} and loses {y} of them. How many {things} are left?"
        steps = f"{a} starts with {x} and loses {y}. {x} - {y} = {result}."
    elif kind == 2:
        x, y = between(2, 9), between(2, 9)
        result = x * y
        question = f"{a} buys {x} boxes with {y} {things} in each box. How many {things} does {a} buy?"
        steps = f"There are {x} boxes of {y}. {x} * {y} = {result}."
    elif kind == 3:
        y, result = between(2, 9), between(2, 9)
        x = y * result
        question = f"{a} shares {x} {things} equally among {y} friends. How many {things} does each friend get?"
        steps = f"{x} {things} go to {y} friends. {x} / {y} = {result}."
    elif kind == 4:
        x, y, z = between(5, 40), between(2, 30), between(2, 20)
        z = min(z, x + y - 1)
        result = x + y - z
        question = (f"{a} has {x} {things}. {b} gives {a} {y} more, and then {a} sells {z}. "
                    f"How many {things} does {a} have left?")
        steps = f"First {x} + {y} = {x + y}. Then {x + y} - {z} = {result}."
    elif kind == 5:
        x, y, z = between(2, 9), between(2, 9), between(1, 30)
        result = x * y + z
        question = (f"{a} has {x} bags with {y} {things} each and {z} loose {things}. "
                    f"How many {things} does {a} have in total?")
        steps = f"First {x} * {y} = {x * y}. Then {x * y} + {z} = {result}."
    elif kind == 6:
        x, y = between(3, 50), between(2, 40)
        result = x + y
        question = f"{a} has {x} {things}. {b} has {y} more {things} than {a}. How many {things} does {b} have?"
        steps = f"{b} has {y} more than {x}. {x} + {y} = {result}."
    else:
        x, y = between(3, 30), between(2, 30)
        result = x + y
        question = f"{a} has {x} {things} and {b} has {y} {things}. How many {things} do they have together?"
        steps = f"Together they have {x} + {y} = {result}."
    return {"question": question, "answer": f"{steps}\n#### {result}"}


MEMBERS = {
    "mammal": ("dog cat horse whale bat cow sheep lion tiger bear wolf mouse rabbit deer monkey elephant dolphin seal "
               "goat pig").split(),
    "bird": ("eagle robin owl penguin parrot crow swan duck goose hawk sparrow pigeon stork gull finch raven heron "
             "falcon").split(),
    "fish": "salmon trout shark tuna carp cod herring perch eel pike bass".split(),
    "insect": "ant bee wasp beetle fly moth butterfly cricket mosquito termite".split(),
    "metal": "iron copper gold silver tin zinc lead nickel aluminum".split(),
    "planet": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "fruit": "apple banana grape orange lemon cherry peach plum mango fig melon".split(),
    "vegetable": "carrot onion potato cabbage leek turnip spinach radish celery".split(),
    "tool": "hammer saw drill wrench chisel pliers axe shovel rake".split(),
    "instrument": "violin piano flute drum guitar trumpet harp cello organ".split(),
    "gas": "oxygen nitrogen hydrogen helium neon argon methane".split(),
    "river": "Nile Amazon Danube Rhine Volga Ganges Mekong Thames".split(),
    "country": "France Spain Japan Brazil Egypt Kenya Norway Canada India Peru".split(),
    "organ of the body": "heart lung liver kidney brain stomach skin".split(),
    "tree": "oak pine maple birch willow cedar elm ash spruce".split(),
    "color": "red blue green yellow purple brown white black pink".split(),
}
PROPERTY = {
    "mammal": "feeds its young with milk",
    "bird": "has feathers and lays eggs",
    "fish": "breathes with gills",
    "insect": "has six legs",
    "metal": "conducts electricity well",
    "planet": "moves in an orbit around the Sun",
    "fruit": "grows from a flower and holds seeds",
    "vegetable": "is grown in a garden bed and eaten in soup",
    "tool": "is used to build and repair things",
    "instrument": "is used to make music",
    "gas": "has no fixed shape or volume",
    "river": "carries fresh water to the sea",
    "country": "has a government and borders",
    "organ of the body": "is a part inside a living animal",
    "tree": "has a trunk and wood",
    "color": "is seen when light reaches the eye",
}


def arc_row(number):
    kinds = list(MEMBERS)
    kind = R.choice(kinds)
    member = R.choice(MEMBERS[kind])
    others = R.sample([other for other in kinds if other != kind], 3)
    other_members = [R.choice(MEMBERS[other]) for other in others]
    form = between(0, 3)
    if form == 0:
        article = "an" if kind[0] in "aeiou" else "a"
        question, texts = f"Which of these is {article} {kind}?", [member] + other_members
    elif form == 1:
        question, texts = f"Which of these {PROPERTY[kind]}?", [member] + other_members
    elif form == 2:
        question, texts = f"What kind of thing is {member}?", [kind] + others
    else:
        question = f"Which statement is true of {member}?"
        texts = [f"It {PROPERTY[k]}." for k in [kind] + others]
    order = list(range(4))
    R.shuffle(order)
    return {"id": f"demo_{number}", "question": question,
            "choices": {"text": [texts[j] for j in order], "label": list("ABCD")}, "answerKey": "ABCD"[order.index(0)]}


CITIES = "Arden Brook Calder Dorn Elmet Farrow Glen Harrow Irving Joppa Kells Lorne Marsh Norden Orrin Penn".split()
JOBS = "baker doctor teacher painter sailor farmer singer writer tailor pilot judge miner nurse".split()
PETS = "dog cat parrot rabbit goat horse turtle hamster".split()


def squad_row(number):
    a, b = R.sample(NAMES, 2)
    city_a, city_b = R.sample(CITIES, 2)
    job_a, job_b = R.sample(JOBS, 2)
    year, pet, color = between(1900, 1999), R.choice(PETS), R.choice(MEMBERS["color"])
    facts = [
        (f"{a} was born in {city_a} in {year}.",
         [(f"Where was {a} born?", city_a), (f"In which year was {a} born?", str(year))]),
        (f"{a} works as a {job_a}.", [(f"What does {a} work as?", job_a)]),
        (f"{b} lives in {city_b} and is a {job_b}.",
         [(f"Where does {b} live?", city_b), (f"What is the job of {b}?", job_b)]),
        (f"{b} has a {color} {pet}.",
         [(f"Which animal does {b} have?", pet), (f"What color is the {pet} of {b}?", color)]),
    ]
    R.shuffle(facts)
    left_out = R.randrange(4)
    told = [fact for i, fact in enumerate(facts) if i != left_out]
    context = " ".join(sentence for sentence, _ in told)
    if R.random() < 0.3:
        question, _ = R.choice(facts[left_out][1])
        answers = {"text": [], "answer_start": []}
    else:
        question, text = R.choice(R.choice(told)[1])
        sentence = next(s for s, asked in told if any(q == question for q, _ in asked))
        if sentence.count(text):
            start = context.index(sentence) + sentence.rindex(text)
        else:
            start = context.index(text)
        assert context[start:start + len(text)] == text
        answers = {"text": [text], "answer_start": [start]}
    return {"id": f"demo_{number}", "title": f"{a} and {b}", "context": context, "question": question, "answers": answers}


def distinct(make, count, key, seen):
    rows = []
    while len(rows) < count:
        row = make()
        if key(row) not in seen:
            seen.add(key(row))
            rows.append(row)
    return rows


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def mixed(rows_of, render):
    texts = [render[name](row) for name in ("openmath", "arc", "squad") for row in rows_of[name][:MIXED_ROWS]]
    random.Random(MIXED_SEED).shuffle(texts)
    return texts


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    (out / "full").mkdir(parents=True, exist_ok=True)
    number = iter(range(10**9))
    kinds = {
        "openmath": (math_row, lambda row: row["question"]),
        "arc": (lambda: arc_row(next(number)), lambda row: row["question"] + str(sorted(row["choices"]["text"]))),
        "squad": (lambda: squad_row(next(number)), lambda row: row["context"] + row["question"]),
    }
    test, train = {}, {}
    for name, (make, key) in kinds.items():
        seen = set()  # over both sets, so that no test row is trained on
        test[name] = distinct(make, TEST_ROWS, key, seen)
        train[name] = distinct(make, TRAIN_ROWS[name], key, seen)
        write_lines(out / f"{name}_test.jsonl", test[name])
        write_lines(out / f"{name}_train.jsonl", train[name][:BUNDLED_TRAIN_ROWS[name]])
        write_lines(out / "full" / f"{name}_train.jsonl", train[name])
    render = {"openmath": chat.math_chat, "arc": chat.arc_chat, "squad": chat.squad_chat}
    write_lines(out / "calib_mixed.jsonl", [{"text": text} for text in mixed(train, render)])
    (out / "heldout.txt").write_text("".join(mixed(test, render)))


main()
