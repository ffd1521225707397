#!/usr/bin/env python3
"""The table of docs/performance.md: every figure with its target, both sides measured in one sitting. scripts/bench.sh runs it.

usage: performance_table.py [options] [ROW...]     default: every row
"""
import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

import performance_rows as rows

sys.path.insert(0, str(rows.ROOT / "scripts/lib"))
from marked_section import markdown_table, replace_section


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(rows.ROWS))
    parser.add_argument("--work", type=pathlib.Path, default=rows.ROOT / "build/bench", metavar="DIR",
                        help="models and GGUF files, 8 GB in all, made once (default build/bench)")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a Python with the packages of llama-cpp, autoawq or llm-compressor")
    parser.add_argument("--salient", type=pathlib.Path, default=rows.ROOT / "build/release/salient", metavar="FILE")
    parser.add_argument("--kernels", type=pathlib.Path, default=rows.ROOT / "build/release/bench_kernels", metavar="FILE")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every tool (default: every core)")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides of a ratio, in turns (default 3)")
    parser.add_argument("--repeats", type=int, default=3, help="of one measurement (default 3)")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generation-tokens", type=int, default=128)
    parser.add_argument("--windows", type=int, default=8, help="of 512 tokens, for the perplexity (default 8)")
    parser.add_argument("--blocks", type=int, default=0, help="of the small model, to try the script (default: all)")
    parser.add_argument("--load-blocks", type=int, default=0, help="of the large model, to try the script (default: all)")
    parser.add_argument("--block-quantization", default="", metavar="OPTIONS",
                        help="of compare_block_quantization.py, to try the script, such as '--blocks 1 --tokens 2048'")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a figure misses its target")
    options = parser.parse_args()
    for name in options.rows:
        if name not in rows.ROWS:
            parser.error(f"unknown row {name}; there are: {', '.join(rows.ROWS)}")
    pythons = tuple(sorted(tuple(one.split("=", 1)) for one in options.python))
    for python in pythons:
        if len(python) != 2 or python[0] not in ("llama-cpp", "autoawq", "llm-compressor"):
            parser.error(f"--python {'='.join(python)}: expected llama-cpp=PATH, autoawq=PATH or llm-compressor=PATH")
    if not options.salient.exists():
        parser.error(f"no program {options.salient}: build the project, or name one with --salient")
    numbers = ("threads", "rounds", "repeats", "prompt_tokens", "generation_tokens", "windows", "blocks", "load_blocks")
    settings = rows.Settings(work=options.work.absolute(), salient=options.salient.absolute(), kernels=options.kernels.absolute(), pythons=pythons,
                             block_quantization=tuple(options.block_quantization.split()),
                             **{key: getattr(options, key) for key in numbers})
    return options, settings


def output_of(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=rows.ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def built_with(salient):
    """Compiler and libtorch of the program, as far as the folder that it was built in tells."""
    cache = salient.parent / "CMakeCache.txt"
    if not cache.exists():
        return []
    entries = dict(re.findall(r"^(CMAKE_CXX_COMPILER|Torch_DIR):\w+=(.*)$", cache.read_text(), re.MULTILINE))
    compiler = output_of(entries["CMAKE_CXX_COMPILER"], "--version").splitlines()[:1] if "CMAKE_CXX_COMPILER" in entries else []
    root = pathlib.Path(entries.get("Torch_DIR", "")).parents[2:3]  # .../share/cmake/Torch
    files = [file for folder in root for file in (folder / "version.py", folder / "build-version") if file.exists()]
    found = re.search(r"\d+\.\d+\.\d+[+\w.]*", files[0].read_text()) if files else None
    return compiler + ([f"libtorch {found[0]}"] if found else [])


def machine(settings):
    """What the figures depend on, as lines."""
    facts = dict(line.split(":", 1) for line in output_of("lscpu").splitlines() if ":" in line)
    fact = lambda name: " ".join(facts.get(name, "unknown").split())
    memory = next((int(line.split()[1]) / 2**20 for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")), 0)
    changed = " with uncommitted changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    versions = [output_of(settings.salient, "--version"), *built_with(settings.salient), platform.platform()]
    packages = {"llama-cpp": "llama-cpp-python", "autoawq": "autoawq", "llm-compressor": "llmcompressor"}
    for name, python in settings.pythons:
        version = output_of(python, "-c", f"import importlib.metadata as m; print(m.version('{packages[name]}'))")
        versions.append(f"{packages[name]} {version or '(version unknown)'}")
    commit = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    return [f"Machine: {fact('Model name')}, {settings.threads} threads of {fact('CPU(s)')}, {memory:.0f} GiB of memory, last level cache {fact('L3 cache')}",
            f"Versions: {', '.join(versions)}",
            f"Commit {commit}{changed}, {time.strftime('%Y-%m-%d')}; medians of {settings.rounds} rounds"]


def run_row(name, settings):
    try:
        return rows.ROWS[name](settings)
    except rows.CannotRun as reason:
        return [rows.Result(name, "", str(reason), rows.NOT_RUN)]
    except (Exception, SystemExit) as error:  # the other rows still come
        return [rows.Result(name, "", f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}", rows.NOT_RUN)]


def main():
    options, settings = parse_arguments()
    results = []
    for name in options.rows or rows.ROWS:
        for result in run_row(name, settings):
            results.append(result)
            print(f"{result.outcome:8} {result.work}: {result.found}", flush=True)
            for what, figures in result.details:
                print(f"           {what}: {figures}", flush=True)
    lines = machine(settings)
    heads = ("work", "target", "found", "outcome")
    table = [[getattr(result, head) for head in heads] for result in results]
    print()
    for row in table:
        print(f"{row[3]:8} {row[0]}{row[1] and f', target {row[1]}'}: {row[2]}")
    print("\n" + "\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(dict(machine=lines, rows=[vars(result) for result in results]), indent=1) + "\n")
    if options.docs:
        details = [[result.work, what, figures] for result in results for what, figures in result.details]
        replace_section(rows.ROOT / "docs/performance.md", "bench", "".join(f"- {line}\n" for line in lines) + "\n" + markdown_table(heads, table) + "\n" +
                        markdown_table(("work", "side", "measured"), details))
    sys.exit(options.check and any(result.outcome == rows.MISSED for result in results))


main()
