"""Makes tests/data/templates/: what transformers' own template environment renders.

Run with an interpreter that has transformers (5.23) and jinja2 (3.1.6):  python scripts/goldens/templates.py
"""

import datetime
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import templates_chats
import templates_snippets

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "templates"


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 13, 45, 0)


chat_template_utils.datetime = FixedClock


def render_snippet(source, variables):
    """The text, or the class of the error."""
    try:
        return {"text": chat_template_utils._compile_jinja_template(source).render(**variables)}
    except Exception as error:  # every error counts: the test only asks that there is one
        return {"error": type(error).__name__}


def render_chat(source, messages, variables):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[messages], chat_template=source, **{**templates_chats.SPECIAL_TOKENS, **variables}
        )
        return {"text": rendered[0]}
    except Exception as error:
        return {"error": str(error)}


def write(name, value):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    made_by = {"transformers": transformers.__version__, "jinja2": jinja2.__version__}

    sources = ["{{ " + line + " }}" for line in templates_snippets.EXPRESSIONS.strip("\n").replace("\\\n", "\\\x00").split("\n")]
    sources = [source.replace("\x00", "\n") for source in sources] + templates_snippets.STATEMENTS
    snippets = [{"source": source, **render_snippet(source, templates_snippets.VARIABLES)} for source in sources]
    # Printed addresses differ from run to run.
    snippets = [one for one in snippets if " at 0x" not in one.get("text", "")]
    write("snippets.json", {"made_by": made_by, "variables": templates_snippets.VARIABLES, "snippets": snippets})

    chats = []
    for name, source in templates_chats.TEMPLATES.items():
        (OUT / f"{name}.jinja").write_text(source, encoding="utf-8")
        for case, messages, variables in templates_chats.cases(name):
            chats.append({"template": name, "case": case, "variables": variables, **render_chat(source, messages, variables)})
    write("chats.json", {"made_by": made_by, "special_tokens": templates_chats.SPECIAL_TOKENS,
                         "conversations": templates_chats.CONVERSATIONS, "renders": chats})
    print(f"{len(snippets)} snippets, {len(templates_chats.TEMPLATES)} templates, {len(chats)} renders")


if __name__ == "__main__":
    main()
