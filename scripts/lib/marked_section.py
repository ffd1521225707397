"""A part of a Markdown file that a script rewrites, between two lines that stay: <!-- NAME: COMMAND --> and <!-- end of NAME -->."""
import pathlib


def replace_section(path, name, text):
    """Puts `text` (lines with their ends) between the lines of `name`. Ends the program where the file has no such lines."""
    path = pathlib.Path(path)
    whole = path.read_text(encoding="utf-8")
    begin = whole.find(f"<!-- {name}: ")
    end = whole.find(f"<!-- end of {name} -->")
    if begin < 0 or end < begin:
        raise SystemExit(f"{path}: expected a line '<!-- {name}: ... -->' and after it '<!-- end of {name} -->'")
    begin = whole.index("\n", begin) + 1
    path.write_text(f"{whole[:begin]}\n{text}\n{whole[end:]}", encoding="utf-8")


def line(values):
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def markdown_table(heads, lines):
    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, lines)]) + "\n"
