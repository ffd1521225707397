"""What happens to one work: drawn from random numbers alone, so that a seed and the number of the work say it again."""
import dataclasses

COMPANION = "eval"  # what shares a store with another kind of work


@dataclasses.dataclass(frozen=True)
class Blow:
    signals: tuple       # pairs of a signal's name and its moment, in shares of the undisturbed work's duration since the start
    companion: str = ""  # "itself" or COMPANION: a second process on the same store, which is let to its end
    head_start: float = 0  # of the second process, in such shares; below 0 it is the later one


@dataclasses.dataclass(frozen=True)
class Plan:
    blows: tuple
    again: bool  # start it again when all is done


def draw_blow(chance, work):
    # Half of the moments lie in the first half or quarter: a work that goes on is shorter than the whole.
    moment = chance.random() * chance.choice((1, 1, 0.5, 0.25))
    first = chance.choice(("KILL", "KILL", "KILL", "TERM", "TERM", "INT", "INT"))
    signals = [(first, moment)]
    # Somebody who is impatient, and a batch system whose patience is over.
    if first != "KILL" and chance.random() < 0.3: signals.append((chance.choice((first, "KILL")), moment + chance.random() * 0.05))
    if chance.random() >= 0.25: return Blow(tuple(signals))
    others = ("itself", COMPANION) if work.store and work.name != COMPANION else ("itself",)
    return Blow(tuple(signals), chance.choice(others), chance.choice((chance.random() * 0.5, -chance.random() * moment)))


def draw_plan(chance, work):
    blows = tuple(draw_blow(chance, work) for _ in range(chance.choice((1, 1, 2, 2, 3, 5))))
    return Plan(blows, chance.random() < 0.3)
