#!/usr/bin/env python3
"""Runs pipelines, sweeps, quantizations, exports and evaluations of the demo model for an hour, stops them at random moments with SIGKILL, SIGTERM and SIGINT,
starts them again until they end by themselves, and compares what they leave with what the same work leaves when nobody disturbs it. Prints the audit.

  scripts/soak.sh                                    an hour
  scripts/soak.sh --minutes 3 --seed 7               everything random follows from the seed
  scripts/soak.sh --seed 7 --iteration 12            the twelfth work of that seed alone: the same kind, signals, and moments as shares of its duration
  scripts/soak.sh --only sweep --minutes 10          works whose name begins so

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

from audit import (BAD_WORDS, answers_in, compare_rows, compare_trees, contents_of, files_of, sha256, store_complaints, stores_in, tree_of, unfinished_in)
from plan import draw_plan
from processes import Process, end_all, living
from table import Tally, print_audit
from works import ROOT, Shelf, make_works

COMPANION = "eval"  # what shares a store with another kind of work


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="with the undisturbed works, each of which is done when its kind comes first; default 60")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="default: another one each time; it is printed")
    parser.add_argument("--iteration", type=int, metavar="N", help="only the N-th work of the seed")
    parser.add_argument("--only", metavar="NAME", help="only works whose name begins so")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process; default 1")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder; it is kept anyway where something differs")
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE", help="the program; default: build/release")
    return parser.parse_args()


class Soak:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.started = time.monotonic()
        self.shelf = Shelf(scratch / "shelf")
        self.works = make_works(self.shelf, options.threads)
        self.tallies = {work.name: Tally() for work in self.works}
        self.references = {}

    def say(self, text):
        left = max(0, self.options.minutes * 60 - (time.monotonic() - self.started))
        print(f"[{left // 60:3.0f}:{left % 60:02.0f} left] {text}", file=sys.stderr, flush=True)

    def start(self, words, folder, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        return Process(self.options.salient, words, folder, log, self.options.threads)

    def undisturbed(self, words, folder, log):
        ended = self.start(tuple(map(str, words)), folder, log).end(patience=3600)
        if ended.status != 0: sys.exit(f"salient {' '.join(ended.words)}\nended with {ended.status} though nobody disturbed it:\n{ended.err[-2000:]}")
        return ended

    def make_shelf(self):
        self.shelf.folder.mkdir()
        self.say("models and calibration rows that the works read")
        self.shelf.make(lambda words: self.undisturbed([*words, "--threads", str(self.options.threads)], self.shelf.folder, self.scratch / "logs/shelf"))
        self.shelf_files = tree_of(self.shelf.folder)

    def reference(self, work):
        """What `work` leaves when nobody disturbs it; made at the first question."""
        if work.name in self.references: return self.references[work.name]
        folder = self.scratch / "reference" / work.name.replace(" ", "_")
        folder.mkdir(parents=True)
        if work.prepare: work.prepare(folder)
        ended = self.undisturbed(work.words, folder, self.scratch / "logs" / folder.name)
        made = {"seconds": ended.seconds, "tree": tree_of(folder), "figures": work.figures(json.loads(ended.out)) if work.figures else None,
                "rows": contents_of(folder / work.store, folder) if work.store else []}
        self.references[work.name] = made
        self.say(f"undisturbed: {work.name}, {ended.seconds:.1f} s, {len(made['tree'])} files, {len(made['rows'])} rows")
        return made

    def work_of(self, number):
        """The random numbers of an iteration, which are the same whatever came before, and its work."""
        chance = random.Random(f"{self.options.seed}:{number}")
        wanted = [work for work in self.works if work.name.startswith(self.options.only or "")]
        if not wanted: sys.exit(f"no work's name begins with '{self.options.only}'; there are: {', '.join(work.name for work in self.works)}")
        return chance, chance.choice(wanted)

    def run(self):
        self.make_shelf()
        if self.options.iteration:
            self.iterate(self.options.iteration)
            return
        number = 0
        while time.monotonic() - self.started < self.options.minutes * 60:
            number += 1
            self.iterate(number)

    def iterate(self, number):
        chance, work = self.work_of(number)
        attempt = Attempt(self, number, work, draw_plan(chance, work))
        attempt.run()
        tally = self.tallies[work.name]
        tally.works += 1
        if attempt.wrong:
            repeat = f"scripts/soak.sh --seed {self.options.seed} --iteration {number}" + (f" --only '{self.options.only}'" if self.options.only else "")
            tally.wrong.append((number, attempt.folder, attempt.wrong, attempt.history, repeat))
        elif not self.options.keep:
            shutil.rmtree(attempt.folder)
        self.say(f"{number} {work.name}: {', '.join(attempt.history)}: " + ("; ".join(attempt.wrong)[:400] if attempt.wrong else "the same"))

    def check_shelf(self):
        """What the works only read must be as it was."""
        return compare_trees(tree_of(self.shelf.folder), self.shelf_files)


class Attempt:
    """One work from its first start to its end, with every signal of its plan, and what is wrong with what it left."""

    def __init__(self, soak, number, work, plan):
        self.soak, self.number, self.work, self.plan = soak, number, work, plan
        self.folder = soak.scratch / "work" / str(number)
        self.tally = soak.tallies[work.name]
        self.reference = soak.reference(work)
        self.other_rows = []  # of other work on the same store
        self.wrong, self.history = [], []
        self.finished_files, self.answers = {}, {}
        self.starts = 0

    def start(self, words):
        self.starts += 1
        return self.soak.start(words, self.folder, self.soak.scratch / f"logs/{self.number}/{self.starts}")

    def patience(self):
        return 60 + 20 * self.reference["seconds"]

    def run(self):
        self.folder.mkdir(parents=True)
        if self.work.prepare: self.work.prepare(self.folder)
        try:
            for blow in self.plan.blows:
                ends = self.strike(blow)
                self.note_what_is_there()
                if 0 in ends and self.work.again != (0,): break  # its output exists: it cannot be started again
            else:
                self.finish()
            self.compare()
            if self.plan.again: self.start_again()
        finally:
            end_all(self.folder)

    def output_exists(self):
        """Whether a signal came after the last step: the output has its name then, whatever the exit status says."""
        return "--out" in self.work.words and (self.folder / self.work.words[self.work.words.index("--out") + 1]).exists()

    def check_end(self, ended, allowed):
        """A process may end by a signal that was sent, by 8 (cancelled), or with one of `allowed`."""
        names = {-signal.Signals[f"SIG{name}"] for name in ended.sent}
        call = f"start {self.starts} (salient {' '.join(ended.words)})"
        if ended.hung: self.wrong.append(f"{call} did not end in {self.patience():.0f} s")
        elif ended.status not in {*allowed, *names, *([8] if ended.sent else [])}:
            self.wrong.append(f"{call} ended with {ended.status}: {ended.err.strip()[-300:]}")
        if found := BAD_WORDS.search(ended.err): self.wrong.append(f"{call} says '{found[0]}': {ended.err.strip()[-300:]}")

    def strike(self, blow):
        """Starts the work and sends it the signals of `blow`, beside a second process where the blow has one. Gives how the work's processes ended."""
        seconds = self.reference["seconds"]
        done = self.output_exists()
        process = other = None
        if blow.head_start < 0: process = self.start(self.work.words)
        if blow.companion:
            words = self.work.words
            if blow.companion == COMPANION:
                companion = next(work for work in self.soak.works if work.name == COMPANION)
                self.other_rows = self.soak.reference(companion)["rows"]
                words = tuple(self.work.store if word == companion.store else word for word in companion.words)
            if process: time.sleep(-blow.head_start * seconds)
            other = self.start(words)
        if not process:
            time.sleep(blow.head_start * seconds)
            process = self.start(self.work.words)
        ended = process.end(self.patience(), [(name, moment * seconds) for name, moment in blow.signals])
        self.tally.count(ended)
        self.check_end(ended, self.work.crowded if other else self.work.again if done else (0,))
        how = "+".join(ended.sent) if ended.status < 0 else "ended" if ended.status == 0 else f"exit code {ended.status}"
        self.history.append(f"{how} at {ended.seconds:.2f} s" + (f" beside {blow.companion}" if other else ""))
        if not other: return [ended.status]
        survivor = other.end(self.patience())
        self.tally.together += 1
        self.check_end(survivor, self.work.again if done else self.work.crowded)
        return [ended.status] + ([survivor.status] if blow.companion != COMPANION else [])

    def finish(self):
        """Starts the work once more, and lets it end."""
        done = self.output_exists()
        ended = self.start(self.work.words).end(self.patience())
        self.tally.count(ended)
        self.history.append(f"ended in {ended.seconds:.2f} s")
        self.check_end(ended, self.work.again if done else (0,))
        if ended.status == 0 and self.work.figures:
            figures = self.work.figures(json.loads(ended.out))
            if figures != self.reference["figures"]: self.wrong.append(f"printed other figures: {json.dumps(figures)[:300]}")

    def note_what_is_there(self):
        """Remembers finished files and stored answers, which nothing may make again, and looks whether the stores are sound."""
        if living(self.folder): return  # jobs of a launcher that was killed go on
        for name, path in files_of(self.folder).items():
            if name not in self.reference["tree"] or path.name in self.work.may_rewrite: continue
            status = path.stat()
            self.finished_files.setdefault(name, (status.st_ino, status.st_mtime_ns))
        if self.work.store:
            for key, created in answers_in(self.folder / self.work.store).items(): self.answers.setdefault(key, created)
        for store in stores_in(self.folder): self.wrong += store_complaints(store, finished=False)

    def made_again(self):
        """Finished files and answers that were made a second time, and answers that were lost."""
        found = []
        for name, before in self.finished_files.items():
            path = self.folder / name
            if path.exists() and (path.stat().st_ino, path.stat().st_mtime_ns) != before: found.append(f"{name} was finished and is made again")
        if self.answers:
            now = answers_in(self.folder / self.work.store)
            found += [f"{len(self.answers.keys() - now.keys())} answers were lost"] if self.answers.keys() - now.keys() else []
            # Work with other limits cuts requests into other batches, and asks a batch as a whole (eval/tree_likelihood.cpp).
            again = [] if self.other_rows else [key.decode() for key, created in self.answers.items() if now.get(key, created) != created]
            found += [f"{len(again)} answers were asked for again: {', '.join(again[:3])}"] if again else []
        self.tally.made_again += len(found)
        return found

    def compare(self):
        if left := living(self.folder): self.wrong.append(f"processes are left: {left}")
        tree = tree_of(self.folder)
        self.wrong += compare_trees(tree, self.reference["tree"])
        self.tally.files += len(tree)
        self.tally.bytes += sum(path.stat().st_size for name, path in files_of(self.folder).items() if name in tree)
        self.wrong += [f"{name} was left" for name in unfinished_in(self.folder)]
        if self.work.store:
            self.tally.rows += self.compare_store()
        for store in stores_in(self.folder): self.wrong += store_complaints(store, finished=True)
        self.wrong += self.made_again()
        if self.work.store:
            # A run of a killed process says so when it is asked for.
            ended = self.start(("runs", "--store", self.work.store, "--status", "running", "--json")).end(self.patience())
            if ended.status != 0 or json.loads(ended.out): self.wrong.append(f"runs that nobody works on: {ended.out or ended.err}")
        for pattern in self.work.artifacts:
            artifacts = sorted(self.folder.glob(pattern))
            if not artifacts: self.wrong.append(f"no artifact {pattern}")
            for artifact in artifacts:
                ended = self.start(("verify", str(artifact), "--threads", str(self.soak.options.threads))).end(self.patience())
                self.check_end(ended, (0,))

    def compare_store(self):
        """Gives how many rows there are."""
        rows, expected = contents_of(self.folder / self.work.store, self.folder), self.reference["rows"]
        # The other work has some rows of the same text, which stand there once or twice: documents of two evaluations, but one answer.
        self.wrong += compare_rows(sorted(set(rows)), sorted({*expected, *self.other_rows})) if self.other_rows else compare_rows(rows, expected)
        return len(rows)

    def start_again(self):
        """All is done: another start finds nothing to do, or refuses the output that exists, and changes nothing."""
        before = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files_of(self.folder).items() if name in self.reference["tree"]}
        ended = self.start(self.work.words).end(self.patience())
        self.tally.count(ended)
        self.check_end(ended, self.work.again)
        changed = [name for name, was in before.items() if (self.folder / name).stat().st_ino != was[0] or (self.folder / name).stat().st_mtime_ns != was[1]]
        if changed: self.wrong.append(f"all was done, and these were made again: {', '.join(changed[:5])}")
        self.tally.made_again += len(changed)
        if self.work.store: self.compare_store()


def main():
    options = parse_arguments()
    # Both end it with the audit. In the background of a script SIGINT is ignored, and would be by the processes that are started here.
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.default_int_handler)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="salient_soak_"))
    before = sha256(options.salient)
    soak = Soak(options, scratch)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.threads} threads, in {scratch}", flush=True)
    status = 0
    try:
        soak.run()
    except KeyboardInterrupt:
        status = 130
    finally:
        end_all(scratch)
    minutes = (time.monotonic() - soak.started) / 60
    whole = print_audit(soak.tallies)
    wrong = [f"{name} was changed" for name in soak.check_shelf()]
    if sha256(options.salient) != before: wrong.append(f"{options.salient} was built anew meanwhile")
    for text in wrong: print(text)
    print(f"\nseed {options.seed}, {minutes:.1f} minutes: {whole.works} works, {whole.starts} starts, {whole.went_on()} ended by a signal and gone on with, "
          f"{len(whole.wrong) + len(wrong)} differ: " + ("FAIL" if whole.wrong or wrong else "PASS"))
    if whole.wrong or wrong: status = 1
    if options.keep or whole.wrong or wrong:
        print(f"kept: {scratch}")
    else:
        shutil.rmtree(scratch)
    sys.exit(status)


if __name__ == "__main__":
    main()
