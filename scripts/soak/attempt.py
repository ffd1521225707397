"""One work from its first start to its end, with every signal of its plan, and what is wrong with what it left."""
import json
import pathlib
import signal
import time

from audit import (BAD_WORDS, answers_in, compare_rows, compare_trees, contents_of, files_of, store_complaints, stores_in,
                   tree_of, unfinished_in)
from plan import COMPANION
from processes import end_all, living


def stamp(path):
    """Another one when the file is written again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


class Attempt:
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
        words = self.work.words
        return "--out" in words and (self.folder / words[words.index("--out") + 1]).exists()

    def check_end(self, ended, allowed):
        """A process may end by a signal that was sent, by 8 (cancelled), or with one of `allowed`."""
        names = {-signal.Signals[f"SIG{name}"] for name in ended.sent}
        call = f"start {self.starts} (salient {' '.join(ended.words)})"
        if ended.hung:
            self.wrong.append(f"{call} did not end in {self.patience():.0f} s")
        elif ended.status not in {*allowed, *names, *([8] if ended.sent else [])}:
            self.wrong.append(f"{call} ended with {ended.status}: {ended.err.strip()[-300:]}")
        if found := BAD_WORDS.search(ended.err): self.wrong.append(f"{call} says '{found[0]}': {ended.err.strip()[-300:]}")

    def companion_words(self, name):
        """How the second process is called: as the work, or as another work on its store."""
        if name != COMPANION: return self.work.words
        companion = next(work for work in self.soak.works if work.name == COMPANION)
        self.other_rows = self.soak.reference(companion)["rows"]
        return tuple(self.work.store if word == companion.store else word for word in companion.words)

    def strike(self, blow):
        """Starts the work and sends it the signals of `blow`, beside a second process where the blow has one. Gives how the
        processes of the work ended."""
        seconds = self.reference["seconds"]
        done = self.output_exists()
        process = other = None
        if blow.head_start < 0:
            process = self.start(self.work.words)
            time.sleep(-blow.head_start * seconds)
        if blow.companion: other = self.start(self.companion_words(blow.companion))
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
            if name in self.reference["tree"] and path.name not in self.work.may_rewrite:
                self.finished_files.setdefault(name, stamp(path))
        if self.work.store:
            for key, created in answers_in(self.folder / self.work.store).items(): self.answers.setdefault(key, created)
        for store in stores_in(self.folder): self.wrong += store_complaints(store, finished=False)

    def made_again(self):
        """Finished files and answers that were made a second time, and answers that were lost."""
        files = [(name, before, self.folder / name) for name, before in self.finished_files.items()]
        found = [f"{name} was finished and is made again" for name, before, path in files
                 if path.exists() and stamp(path) != before]
        if self.answers:
            now = answers_in(self.folder / self.work.store)
            if lost := self.answers.keys() - now.keys(): found.append(f"{len(lost)} answers were lost")
            again = [key.decode() for key, created in self.answers.items() if now.get(key, created) != created]
            # Work with other limits cuts requests into other batches, and asks a batch as a whole (eval/tree_likelihood.cpp).
            if again and not self.other_rows: found.append(f"{len(again)} answers were asked for again: {', '.join(again[:3])}")
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
            # A run of a killed process says so when it is asked for.
            ended = self.start(("runs", "--store", self.work.store, "--status", "running", "--json")).end(self.patience())
            if ended.status != 0 or json.loads(ended.out):
                self.wrong.append(f"runs that nobody works on: {ended.out or ended.err}")
        for store in stores_in(self.folder): self.wrong += store_complaints(store, finished=True)
        self.wrong += self.made_again()
        for pattern in self.work.artifacts:
            artifacts = sorted(self.folder.glob(pattern))
            if not artifacts: self.wrong.append(f"no artifact {pattern}")
            for artifact in artifacts:
                ended = self.start(("verify", str(artifact), "--threads", str(self.soak.options.threads))).end(self.patience())
                self.check_end(ended, (0,))

    def compare_store(self):
        """Gives how many rows there are."""
        rows, expected = contents_of(self.folder / self.work.store, self.folder), self.reference["rows"]
        if self.other_rows:
            # Both works may have a row of the same text: twice where it is a document of two evaluations, once as an answer.
            rows, expected = sorted(set(rows)), sorted({*expected, *self.other_rows})
        self.wrong += compare_rows(rows, expected)
        return len(rows)

    def start_again(self):
        """All is done: another start finds nothing to do, or refuses the output that exists, and changes nothing."""
        before = {name: stamp(path) for name, path in files_of(self.folder).items() if name in self.reference["tree"]}
        ended = self.start(self.work.words).end(self.patience())
        self.tally.count(ended)
        self.check_end(ended, self.work.again)
        changed = [name for name, was in before.items() if stamp(self.folder / name) != was]
        if changed: self.wrong.append(f"all was done, and these were made again: {', '.join(changed[:5])}")
        self.tally.made_again += len(changed)
        if self.work.store: self.compare_store()
