"""Starts the program, sends it signals at given moments, and notices how it ends."""
import dataclasses
import os
import pathlib
import signal
import subprocess
import time

MARK = "SALIENT_SOAK"  # an environment variable with the work's folder: jobs that a launcher started have it, too


@dataclasses.dataclass
class Ended:
    words: tuple
    status: int           # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    sent: tuple = ()      # names of the signals that it got
    stopping: float = 0   # seconds from the first of them to its end
    hung: bool = False    # it had to be killed because it did not end


class Process:
    def __init__(self, program, words, folder, log, threads):
        """`log`: a path; standard output and error become log.out and log.err."""
        self.words, self.log = words, pathlib.Path(log)
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1",
                       MARK: str(folder)}
        self.started = time.monotonic()
        with open(f"{log}.out", "wb") as out, open(f"{log}.err", "wb") as err:
            # A session of its own: Ctrl-C on the terminal is for the soak, which ends its processes itself.
            self.process = subprocess.Popen([str(program), *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            env=environment, start_new_session=True)

    def lives_after(self, seconds):
        """Waits, at most so long since its start, for the end."""
        try:
            self.process.wait(max(0, self.started + seconds - time.monotonic()))
            return False
        except subprocess.TimeoutExpired:
            return True

    def end(self, patience, signals=()):
        """Sends `signals`, pairs of a name and the seconds since the start; waits for the end, `patience` seconds from the last."""
        sent, first, last = [], None, 0
        for name, moment in signals:
            if not self.lives_after(moment): break
            self.process.send_signal(signal.Signals[f"SIG{name}"])
            sent.append(name)
            first = first or time.monotonic()
            last = moment
        hung = self.lives_after(last + patience)
        if hung:
            self.process.kill()
            self.process.wait()
        now = time.monotonic()
        texts = [pathlib.Path(f"{self.log}.{end}").read_text(encoding="utf-8", errors="replace") for end in ("out", "err")]
        stopping = now - first if first else 0
        return Ended(self.words, self.process.returncode, *texts, now - self.started, tuple(sent), stopping, hung)


def living(folder):
    """Processes that were started for `folder`, or one below it, and have not ended, whoever started them."""
    wanted = f"\0{MARK}={folder}".encode()
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = b"\0" + (entry / "environ").read_bytes()
            if wanted + b"\0" in environment or wanted + b"/" in environment: found.append(int(entry.name))
        except OSError:
            pass  # it has ended meanwhile, or belongs to somebody else
    return found


def end_all(folder):
    for pid in living(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
