#!/usr/bin/env python3
"""One table of the rows that the clients left; scripts/interop.sh runs it.

usage: table.py ROWS_FOLDER TABLE.json [--docs FILE.md] -- CLIENT...

A client that left no rows (its environment could not be made, or its check broke off) is a row that failed. With --docs the part of the file between
"<!-- interop: scripts/interop.sh --docs -->" and "<!-- end of interop -->" becomes two tables: formats by clients, and every row.
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from marked_section import markdown_table, replace_section


def read(folder, clients):
    rows = []
    for client in clients:
        file = folder / f"{client}.json"
        rows += json.loads(file.read_text()) if file.exists() else [dict(client=client, version="", format="", compared="", difference="the check left no rows", status="FAIL")]
    return rows


def overview(rows, clients):
    """Formats by clients: how many comparisons were fine, failed and were left out."""
    formats = sorted({row["format"] for row in rows if row["format"]})

    def cell(name, client):
        counts = {status: sum(row["status"] == status for row in rows if (row["format"], row["client"]) == (name, client)) for status in ("ok", "FAIL", "skipped")}
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count)

    return markdown_table(["format", *clients], [[f"`{name}`", *(cell(name, client) for client in clients)] for name in formats])


def plain(rows):
    """The columns but the last two padded; the difference, which may be long, at the end."""
    heads = ("client", "version", "format", "compared", "status", "difference")
    lines = [heads, *([row[head] for head in heads] for row in rows)]
    widths = [max(len(one[i]) for one in lines) for i in range(len(heads) - 1)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(one, widths)), one[-1]]) for one in lines)


def main():
    words = sys.argv[1:]
    if "--" not in words or words.index("--") not in (2, 4):
        sys.exit(__doc__)
    at = words.index("--")
    options, clients = words[:at], words[at + 1:]
    rows = read(pathlib.Path(options[0]), clients)
    pathlib.Path(options[1]).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print("\n" + plain(rows))
    counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", "FAIL", "skipped")}
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.items()))
    if options[2:3] == ["--docs"]:
        versions = {row["client"]: row["version"] for row in rows}
        listed = [[row["client"], f"`{row['format']}`", row["compared"], row["difference"], row["status"]] for row in rows]
        replace_section(options[3], "interop", overview(rows, clients) + "\n" + "\n".join(f"- {client}: {version}" for client, version in versions.items()) + "\n\n" +
                        markdown_table(["client", "format", "compared", "difference", ""], listed))
    sys.exit(1 if counts["FAIL"] or not counts["ok"] else 0)


main()
