"""The texts that the demo model is trained, calibrated and measured on: rows rendered as ChatML conversations or as plain text."""

SYSTEM = "You are a careful assistant. Think in short steps and end with the answer."


def chat(user, answer):
    return (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            f"<|im_start|>assistant\n{answer}<|im_end|>\n")


def math_chat(row):
    return chat(row["question"], row["answer"])


def math_plain(row):
    return f"Question: {row['question']}\nAnswer: {row['answer']}"


def arc_chat(row):
    choices = zip(row["choices"]["label"], row["choices"]["text"])
    return chat(row["question"] + "".join(f"\n{label}. {text}" for label, text in choices), row["answerKey"])


def arc_plain(row):
    right = row["choices"]["label"].index(row["answerKey"])
    return f"Question: {row['question']}\nAnswer: {row['choices']['text'][right]}"


def squad_answer(row):
    return row["answers"]["text"][0] if row["answers"]["text"] else "unanswerable"


def squad_chat(row):
    return chat(f"{row['context']}\n{row['question']}", squad_answer(row))


def squad_plain(row):
    return (f"Title: {row['title']}\n\nBackground: {row['context']}\n\nQuestion: {row['question']}\n\n"
            f" Answer: {squad_answer(row)}")
