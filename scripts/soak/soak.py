#!/usr/bin/env python3
"""Runs pipelines, sweeps, quantizations, exports and evaluations of the demo model for an hour, stops them at random moments with
SIGKILL, SIGTERM and SIGINT, starts them again until they end by themselves, and compares what they leave with what the same work
leaves when nobody disturbs it. Prints the audit.

  scripts/soak.sh                              an hour
  scripts/soak.sh --minutes 3 --seed 7         everything random follows from the seed
  scripts/soak.sh --seed 7 --iteration 12      the twelfth work of that seed alone: the same kind and signals, at the same shares of
                                               its duration, which is measured anew
  scripts/soak.sh --only sweep --minutes 10    works whose name begins so

Exit status: 0 where nothing differs, 1 on any difference (the folder of that work is kept), 130 after Ctrl-C or SIGTERM.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from attempt import Attempt
from audit import compare_trees, contents_of, sha256, tree_of
from plan import draw_plan
from processes import Process, end_all
from table import Tally, print_audit
from works import ROOT, Shelf, make_works


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/soak.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60,
                        help="with the undisturbed works, each of which is done when its kind comes first; default 60")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"),
                        help="default: a new one each time; it is printed")
    parser.add_argument("--iteration", type=int, metavar="N", help="only the N-th work of the seed")
    parser.add_argument("--only", metavar="NAME", help="only works whose name begins so")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process; default 1")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder; it is kept anyway where something differs")
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE",
                        help="the program; default: build/release")
    return parser.parse_args()


class Soak:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.started = time.monotonic()
        self.shelf = Shelf(scratch / "shelf")
        self.shelf_files = {}
        self.works = make_works(self.shelf, options.threads)
        self.tallies = {work.name: Tally() for work in self.works}
        self.references = {}

    def minutes(self):
        return (time.monotonic() - self.started) / 60

    def say(self, text):
        left = max(0, int((self.options.minutes - self.minutes()) * 60))
        print(f"[{left // 60:3}:{left % 60:02} left] {text}", file=sys.stderr, flush=True)

    def start(self, words, folder, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        return Process(self.options.salient, words, folder, log, self.options.threads)

    def undisturbed(self, words, folder, log):
        ended = self.start(tuple(map(str, words)), folder, log).end(patience=3600)
        if ended.status != 0:
            sys.exit(f"salient {' '.join(ended.words)}\nended with {ended.status} though nobody disturbed it:\n{ended.err[-2000:]}")
        return ended

    def make_shelf(self):
        self.shelf.folder.mkdir()
        self.say("models and calibration rows that the works read")
        threads, log = ["--threads", str(self.options.threads)], self.scratch / "logs/shelf"
        self.shelf.make(lambda words: self.undisturbed([*words, *threads], self.shelf.folder, log))
        self.shelf_files = tree_of(self.shelf.folder)

    def reference(self, work):
        """What `work` leaves when nobody disturbs it; made at the first question."""
        if work.name in self.references: return self.references[work.name]
        folder = self.scratch / "reference" / work.name.replace(" ", "_")
        folder.mkdir(parents=True)
        if work.prepare: work.prepare(folder)
        ended = self.undisturbed(work.words, folder, self.scratch / "logs" / folder.name)
        made = {"seconds": ended.seconds, "tree": tree_of(folder),
                "figures": work.figures(json.loads(ended.out)) if work.figures else None,
                "rows": contents_of(folder / work.store, folder) if work.store else []}
        self.references[work.name] = made
        self.say(f"undisturbed: {work.name}, {ended.seconds:.1f} s, {len(made['tree'])} files, {len(made['rows'])} rows")
        return made

    def run(self):
        wanted = [work for work in self.works if work.name.startswith(self.options.only or "")]
        if not wanted:
            sys.exit(f"no work's name begins with '{self.options.only}'; there are: {', '.join(work.name for work in self.works)}")
        self.make_shelf()
        if self.options.iteration:
            self.iterate(self.options.iteration, wanted)
            return
        number = 0
        while self.minutes() < self.options.minutes:
            number += 1
            self.iterate(number, wanted)

    def iterate(self, number, wanted):
        chance = random.Random(f"{self.options.seed}:{number}")  # whatever came before
        work = chance.choice(wanted)
        attempt = Attempt(self, number, work, draw_plan(chance, work))
        attempt.run()
        tally = self.tallies[work.name]
        tally.works += 1
        if attempt.wrong:
            only = f" --only '{self.options.only}'" if self.options.only else ""
            repeat = f"scripts/soak.sh --seed {self.options.seed} --iteration {number}{only}"
            tally.wrong.append((number, attempt.folder, attempt.wrong, attempt.history, repeat))
        elif not self.options.keep:
            shutil.rmtree(attempt.folder)
        verdict = "; ".join(attempt.wrong)[:400] if attempt.wrong else "the same"
        self.say(f"{number} {work.name}: {', '.join(attempt.history)}: {verdict}")


def main():
    options = parse_arguments()
    # Both end it with the audit. In the background of a script SIGINT is ignored, and what is started here would ignore it, too.
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.default_int_handler)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="salient_soak_"))
    program = sha256(options.salient)
    soak = Soak(options, scratch)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.threads} threads, in {scratch}", flush=True)
    status = 0
    try:
        soak.run()
    except KeyboardInterrupt:
        status = 130
    finally:
        end_all(scratch)
    whole = print_audit(soak.tallies)
    # What the works only read must be as it was.
    wrong = compare_trees(tree_of(soak.shelf.folder), soak.shelf_files)
    if sha256(options.salient) != program: wrong.append(f"{options.salient} was built anew meanwhile")
    for text in wrong: print(text)
    differ = len(whole.wrong) + len(wrong)
    print(f"\nseed {options.seed}, {soak.minutes():.1f} minutes: {whole.works} works, {whole.starts} starts, {whole.went_on()} "
          f"ended by a signal and gone on with, {differ} differ: {'FAIL' if differ else 'PASS'}")
    if differ: status = 1
    if options.keep or differ:
        print(f"kept: {scratch}")
    else:
        shutil.rmtree(scratch)
    sys.exit(status)


if __name__ == "__main__":
    main()
