"""The audit: a row for each kind of work, and what differed."""
import dataclasses

COLUMNS = ("work", "times", "starts", "KILL", "TERM", "INT", "went on", "two at once", "made again", "files", "MB", "rows",
           "longest stop", "differ")


@dataclasses.dataclass
class Tally:
    works: int = 0       # from a first start to the end
    starts: int = 0
    signals: dict = dataclasses.field(default_factory=lambda: {"KILL": 0, "TERM": 0, "INT": 0})  # which a start was ended by
    together: int = 0    # starts beside a second process
    made_again: int = 0  # files and answers that were finished before a signal
    files: int = 0       # compared, byte for byte
    bytes: int = 0
    rows: int = 0        # of stores, compared
    stopping: float = 0  # the longest from SIGTERM or SIGINT to the end, in seconds
    wrong: list = dataclasses.field(default_factory=list)

    def count(self, ended):
        self.starts += 1
        if ended.sent and ended.status != 0: self.signals[ended.sent[-1]] += 1
        if ended.sent and "KILL" not in ended.sent: self.stopping = max(self.stopping, ended.stopping)

    def went_on(self):
        """Every start that a signal ended was followed by another one."""
        return sum(self.signals.values())

    def row(self, name):
        return [name, self.works, self.starts, *self.signals.values(), self.went_on(), self.together, self.made_again, self.files,
                f"{self.bytes / 1e6:.1f}", self.rows, f"{self.stopping:.2f} s", len(self.wrong)]


def total(tallies):
    whole = Tally()
    for tally in tallies:
        for field in ("works", "starts", "together", "made_again", "files", "bytes", "rows"):
            setattr(whole, field, getattr(whole, field) + getattr(tally, field))
        for name, count in tally.signals.items(): whole.signals[name] += count
        whole.stopping = max(whole.stopping, tally.stopping)
        whole.wrong += tally.wrong
    return whole


def print_audit(tallies):
    """tallies: {name of a work: Tally}. Gives the sum of all."""
    done = {name: tally for name, tally in tallies.items() if tally.starts}
    whole = total(done.values())
    rows = [list(COLUMNS), *(tally.row(name) for name, tally in done.items()), whole.row("all")]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(COLUMNS))]
    for number, row in enumerate(rows):
        cells = [str(value).rjust(width) for value, width in zip(row, widths)]
        print("  ".join([str(row[0]).ljust(widths[0]), *cells[1:]]))
        if number in (0, len(rows) - 2): print("  ".join("-" * width for width in widths))
    for number, folder, wrong, history, repeat in whole.wrong:
        print(f"\n{number}: {', '.join(history)}\n  " + "\n  ".join(wrong) + f"\n  left in {folder}\n  again: {repeat}")
    return whole
