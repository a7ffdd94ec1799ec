"""What could a platform do about δ, and what does that cost the people it serves? Each defense is measured both ways.

Run as ``TTCA_DATA=… python -m benchmarks defences --track T --json``. *Not known*: δ was learned for the platform
as it is, which then defends itself. *Known*: the collective asked the defended platform itself, and learned δ through
the nearest change that the toolkit has. Both are measured on the same people, beside what the defense does to those who
send no δ at all. Detectors see the queries and submissions of the same actions, and honest streams.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, CellKey, acting, code_digest, opened, settings_of
from benchmarks._defended import DEFENCES, asked, compared_with, defended, retrained_reader
from benchmarks._detectors import Prada, Stateful, area_under_curve, encode, expose, residuals
from benchmarks._tracks import AGE_GENDER_PEOPLE, Cell
from benchmarks.transfer import quick_key
from ttca.answers import Answers
from ttca.attacks.square import square
from ttca.blocks import shrink
from ttca.conditions import ROW_KEYS, Opponents
from ttca.data.cameras import bad_camera, soft_focus
from ttca.demo.world import CAMERA, SHARE_IN_TRAINING, DigitsWorld, digits_world
from ttca.errors import ActionError, ConfigError, WorthlessProxyError
from ttca.images import Images
from ttca.learning import load_arrays
from ttca.lossy import jpeg
from ttca.measurement import Measurement, measure
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.pooling.quotas import Quota, least_seconds

__all__ = ["QUICK", "Plan", "main"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What is measured on one track.

    Parameters
    ----------
    queries : int
        Of the kept cell whose δ is used (:func:`benchmarks.transfer.quick_key`).
    epsilons : tuple of int
        At which δ is measured; the first is the one of the documents' tables.
    defences, known : tuple of str
        Of :data:`benchmarks._defended.DEFENCES`; those that a collective is measured to know and ask.
    family : tuple of int
        The ε that δ is learned for where the defence is known, from the smallest to the largest.
    seeds : int
        So many where none are asked for.
    people : int
        Test people per group at most.
    senders : int
        Submissions that are averaged, and as many others, at most.
    counts : tuple of int
        Submissions that are averaged.
    """

    queries: int
    epsilons: tuple[int, ...]
    defences: tuple[str, ...]
    known: tuple[str, ...]
    family: tuple[int, ...]
    seeds: int
    people: int
    counts: tuple[int, ...]
    senders: int = 10**6


_INPUT = ("none", "jpeg75", "jpeg50", "bits4", "bits3", "blur", "pad", "abstain50", "abstain70")
PLANS: Mapping[str, Plan] = {
    "digits": Plan(
        queries=420,
        epsilons=(8, 16),
        defences=tuple(DEFENCES),
        known=("jpeg50", "bits3", "blur", "pad", "abstain50", "noise", "adversarial"),
        family=(8,),
        seeds=3,
        people=10**6,
        counts=(10, 40),
    ),
    "cifar10-resnet56": Plan(
        queries=500,
        epsilons=(4, 8),
        defences=_INPUT,
        known=("jpeg75",),
        family=(2, 4),
        seeds=1,
        people=400,
        counts=(10, 40, 160),
    ),
    "fairface-agegender": Plan(
        queries=500,
        epsilons=(4, 8),
        defences=_INPUT,
        known=("jpeg75",),
        family=(2, 4),
        seeds=1,
        people=200,
        counts=(10, 40, 160),
        # Photographs of 224×224.
        senders=600,
    ),
}
#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--track", "digits", "--seeds", "1", "--defences", "none", "jpeg50", "pad", "adversarial", "--known", "jpeg50",
)  # fmt: skip
#: Members whose keys the pool's queries and the submissions are dealt to.
_KEYS = 20
#: Where the defended platforms are made.
_DEFENDED = Path(__file__).with_name("_defended.py")
_STREAMS, _CALIBRATION = 20, 40
_PRADA_FALSE = 0.05
#: Neighbours of stateful detection, and the share of honest pictures it may flag; the last pair is the paper's.
_STATEFUL = ((1, 0.01), (10, 0.01), (50, 0.001))
_ALONE, _BUDGET = 20, 300
_HISTORY = 1000
#: Shares of submissions with δ; 0 and 1 are among them, so that every class has enough of both kinds.
_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
_DRAWS = 5
_PER_DAY, MEMBERS = (10, 50, 250), (1, 5, 20, 100, 1000)
#: Conditions of a measurement, under the names that honest rows have for them.
_NUMBERS = {condition: key for key, condition in ROW_KEYS.items()}


def main(argv: list[str]) -> dict[str, Any]:
    """Measure defences, detectors and exposure, and return the record; prints nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks defences", description=__doc__)
    parser.add_argument("--track", choices=tuple(PLANS), default="digits")
    parser.add_argument("--seeds", type=int, help="number of seeds; default: what each track's plan says")
    parser.add_argument("--defences", nargs="+", choices=tuple(DEFENCES))
    parser.add_argument("--known", nargs="*", choices=tuple(DEFENCES), help="defenses that the collective knows of")
    parser.add_argument("--final", action="store_true", help="measure final people instead of dev-test people")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds is not None and options.seeds < 1:
        raise ConfigError(f"Expected 1 or more seeds, got {options.seeds}. Ask for one.")
    began = time.perf_counter()
    plan = _narrowed(options.track, options.seeds, options.defences, options.known)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(plan.seeds):
        for part, lines in _seed(options.track, plan, seed, options.final).items():
            found.setdefault(part, []).extend(lines)
    return {
        "file": f"defences-{options.track}" + ("-final" if options.final else ""),
        "people": "final" if options.final else "dev-test",
        "defences": {name: {"kind": d.kind, "says": d.says} for name, d in DEFENCES.items()},
        "plans": {options.track: vars(plan) | {"known_through": _transforms(plan)}},
        **found,
        "seconds": time.perf_counter() - began,
    }


def _narrowed(track: str, seeds: int | None, some: Sequence[str] | None, known: Sequence[str] | None) -> Plan:
    """Return a track's plan, or what was asked for of it; a defence that cannot be measured there is refused."""
    plan = PLANS[track]
    if seeds is not None:
        plan = replace(plan, seeds=seeds)
    if some is not None:
        missing = [name for name in some if name not in plan.defences]
        if missing:
            raise ConfigError(
                f"Expected --defences to name some of {', '.join(plan.defences)} on {track}, got {', '.join(missing)}. "
                "Leave it out."
            )
        # What they are compared with is measured, too.
        needed = {*some, "none", *(compared_with(name) for name in some)}
        plan = replace(plan, defences=tuple(name for name in plan.defences if name in needed))
    if known is None:
        return replace(plan, known=tuple(name for name in plan.known if name in plan.defences))
    possible = [name for name in plan.defences if name != "none"]
    missing = [name for name in known if name not in possible]
    if missing:
        raise ConfigError(
            f"Expected --known to name defenses that are measured ({', '.join(possible)}), got {', '.join(missing)}. "
            "Add it to --defences, or leave it out."
        )
    return replace(plan, known=tuple(known))


def _transforms(plan: Plan) -> dict[str, list[str]]:
    return {name: list(DEFENCES[name].transforms) for name in plan.known}


def _seed(name: str, plan: Plan, seed: int, final: bool) -> dict[str, list[dict[str, Any]]]:
    """Return all lines of one track and seed, from one kept action."""
    key = quick_key(name, plan.queries, seed)
    with key.of.open_platform(key.answers) as platform, opened(key, platform) as found:
        test = found.cell.test
        if final:
            test = key.of.people(key.queries, key.regime, key.seed, True).test
        seen = _Seen(key, platform, found, test, found.action.learn())
        return {
            "cells": list(_cells(seen, plan)),
            **_detected(seen, plan),
            "exposure": [line for epsilon in plan.epsilons for line in _exposed(seen, plan, epsilon)],
            "limits": list(_limits(seen)) if seed == 0 else [],
        }


@dataclass(frozen=True)
class _Seen:
    """An action that is done, its platform as it is, and the people it is measured on."""

    key: CellKey
    platform: Platform
    found: Acting
    test: People
    sets: dict[int, PerturbationSet]

    @property
    def cell(self) -> Cell:
        return self.found.cell

    @property
    def names(self) -> dict[str, Any]:
        return {"track": self.key.track, "seed": self.key.seed}


@lru_cache(maxsize=1)
def _world() -> DigitsWorld:
    """Return whom the digits' platform was trained on: the track's one world."""
    return digits_world(seed=0)


# -- defences, known and not --------------------------------------------------------------------------------------


def _first(people: People, count: int) -> People:
    """Return the first people of either group."""
    rows = [np.flatnonzero(people.subgroup == group)[:count] for group in (True, False)]
    return people[np.concatenate(rows)]


def _cells(seen: _Seen, plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield one line per defence, ε and whether the collective knew."""
    people = _first(seen.test, plan.people)
    opponents = {epsilon: seen.found.action.opponents(epsilon) for epsilon in plan.epsilons}
    proxy, _ = seen.found.action.distil()
    predict = partial(seen.found.action.learner.predict, proxy)
    for name in plan.defences:
        platform = _platform(seen, name)
        for epsilon in plan.epsilons:
            said = measure(
                partial(_ask, platform), people, perturbations=seen.sets[epsilon], opponents=opponents[epsilon],
                proxy=predict, seed=seen.key.seed,
            )  # fmt: skip
            yield {**seen.names, "defence": name, "known": False, "epsilon": epsilon} | _line(
                platform, people, said, seen.sets[epsilon]
            )
        if name in plan.known:
            yield from _knowing(seen, plan, name, people, opponents)


def _ask(platform: Platform, images: Images, _owners: NDArray[np.str_]) -> Answers:
    return asked(platform, images)


def _platform(seen: _Seen, name: str) -> Platform:
    """Return the track's platform under a defence; what it draws and how it is trained depend on the seed."""
    defence, seed = DEFENCES[name], seen.key.seed
    if name == "none":
        return seen.platform
    if defence.training is None:
        return defended(seen.platform, name, defence, seed=seed)
    if seen.key.track != "digits":
        raise ConfigError(f"Expected a platform that is trained here for {name!r}, got {seen.key.track}. Use digits.")
    # Another seed than the demo's own platform has, which is 0: otherwise nothing but the defence might change.
    return retrained_reader(_world(), name, seed=seed + 1, **defence.training)


def _knowing(
    seen: _Seen, plan: Plan, name: str, people: People, opponents: Mapping[int, Opponents]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of an action that asked the defended platform itself, and learned through the nearest change.

    Noise, zero-query and class-agnostic δ are those of the action that did not know: they never saw an answer of
    either platform, but for the last.
    """
    key, platform = seen.key, _platform(seen, name)
    chosen = {**key.chosen, "transforms": DEFENCES[name].transforms}
    settings = settings_of(key.of, chosen, epsilons=plan.family, seed=key.seed)
    for_lines = {**seen.names, "defence": name, "known": True}
    with (
        _action_folder(key, name) as home,
        acting(key.of, platform, settings, queries=key.queries, regime=key.regime, home=home) as found,
    ):
        try:
            proxy, _ = found.action.distil()
            sets = found.action.learn()
        except WorthlessProxyError as error:
            # That no action is possible is what some defences are for.
            yield {**for_lines, "epsilon": plan.epsilons[0], "failed": str(error)}
            return
        for epsilon in sorted(set(plan.epsilons) & set(plan.family)):
            said = measure(
                partial(_ask, platform), people, perturbations=sets[epsilon], opponents=opponents[epsilon],
                proxy=partial(found.action.learner.predict, proxy), seed=key.seed,
            )  # fmt: skip
            yield {**for_lines, "epsilon": epsilon} | _line(platform, people, said, sets[epsilon])


@contextmanager
def _action_folder(key: CellKey, name: str) -> Iterator[Path]:
    """Yield a folder for an action: in the cache for photographs, thrown away for digits, which are soon done again."""
    if key.track == "digits":
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    # Its platform is made by code that decides no other cell.
    home = key.home().with_name(f"{key.home().name}-{name}-{code_digest(_DEFENDED)}")
    home.mkdir(parents=True, exist_ok=True)
    yield home


def _line(platform: Platform, people: People, said: Measurement, delta: PerturbationSet) -> dict[str, Any]:
    """Return the numbers of one measurement, and how many people the platform refused to answer."""
    rates = {name: said.rate(condition) for condition, name in _NUMBERS.items()}
    gap = rates["reference_before"] - rates["subgroup_before"]
    refused = dict.fromkeys(("refused_reference", "refused_subgroup", "refused_with_delta"), 0.0)
    if not platform.info.gives_scores:
        own = people[people.subgroup]
        sent = (people[~people.subgroup].images, own.images, delta.apply(own.images, own.classes))
        shares = [float((~asked(platform, images).answered).mean()) for images in sent]
        refused = dict(zip(refused, shares, strict=True))
    low, high = said.interval("subgroup_after")
    return {
        **rates,
        "subgroup_after_lower": low,
        "subgroup_after_upper": high,
        "gap_before": gap,
        "gap_closed": None if math.isnan(said.gap_closed) else said.gap_closed,
        "fidelity_subgroup": said.fidelity_subgroup,
        **refused,
        "people": {"reference": int((~people.subgroup).sum()), "subgroup": int(people.subgroup.sum())},
    }


# -- what detectors see -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """Pictures and what the platform, as it is, answered about them."""

    images: Images
    labels: Labels

    @classmethod
    def of(cls, platform: Platform, images: Images) -> _Pictures:
        return cls(images, asked(platform, images).labels)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> _Pictures:
        return _Pictures(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


def _together(parts: Sequence[_Pictures]) -> _Pictures:
    return _Pictures(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def _dealt(pictures: _Pictures, keys: int) -> list[_Pictures]:
    """Return what each key sends when a stream is dealt to them one by one."""
    return [pictures[np.arange(k, len(pictures), keys)] for k in range(keys)]


def _detected(seen: _Seen, plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Return every kind of stream, and what every detector, calibrated on the platform's own pictures, says of it."""
    rng = np.random.default_rng([seen.key.seed, 11])
    history = {group: _Pictures.of(seen.platform, images[:_HISTORY]) for group, images in _history(seen).items()}
    both = _together(list(history.values()))
    pool = _Pictures.of(seen.platform, _pool_images(seen.found.action.folder, seen.found.action.asked_people().images))
    calibration = [both[rng.permutation(len(both))[: len(pool)]] for _ in range(_CALIBRATION)]
    prada = Prada.calibrated(
        [Prada.lowest(s.images, s.labels) for s in calibration], false_positives=_PRADA_FALSE
    )  # fmt: skip
    codes = encode(both.images)
    stateful = {
        f"stateful, k = {k} at {100 * false:g}%": Stateful.calibrated(codes, k=k, false_positives=false)
        for k, false in _STATEFUL
    }
    kinds, said = [], []
    for name, streams in _streams(seen, plan, pool, rng).items():
        lowest = [Prada.lowest(s.images, s.labels) for s in streams]
        common = {
            **seen.names, "stream": name, "streams": len(streams), "pictures": statistics.fmean(map(len, streams)),
        }  # fmt: skip
        kinds.append({**common, "sets": sorted({_set_of(s.images) for s in streams})})
        said.append(
            {
                **common,
                "detector": f"PRADA at {_PRADA_FALSE:.0%}",
                "threshold": prada.threshold,
                "streams_flagged": statistics.fmean(map(prada.alarms, lowest)),
                "long_enough": statistics.fmean(w is not None for w in lowest),
            }
        )
        for detector_name, detector in stateful.items():
            flags = [detector.flags(encode(s.images)) for s in streams]
            long = [f for f in flags if len(f) > detector.k]
            said.append(
                {
                    **common,
                    "detector": detector_name,
                    "threshold": detector.threshold,
                    "streams_flagged": statistics.fmean(bool(f.any()) for f in flags),
                    "pictures_flagged": float(np.concatenate(long).mean()) if long else None,
                    "long_enough": len(long) / len(flags),
                }
            )
    return {"streams": kinds, "detectors": said}


def _set_of(images: Images) -> str:
    """Return a digest of pictures whatever their order: streams with the same one are one set, shuffled."""
    marks = sorted(hashlib.sha256(image.tobytes()).digest() for image in images)
    return hashlib.sha256(b"".join(marks)).hexdigest()[:12]


def _history(seen: _Seen) -> dict[str, Images]:
    """Return pictures the platform has from before, of either group: nobody's who is in the action or measured."""
    if seen.key.track == "digits":
        world = _world()
        sharp = world.training_images[round(SHARE_IN_TRAINING * len(world.training_images)) :]
        return {"reference": sharp, "subgroup": bad_camera(sharp, seed=0, **CAMERA)}
    if seen.key.track.startswith("fairface"):
        return _unasked_faces({*seen.cell.roster.pool.persons.tolist(), *seen.cell.roster.selection.persons.tolist()})
    public, views = seen.cell.public, seen.cell.views
    if public is None or views is None:
        raise ConfigError(f"Expected public data of both groups, got none for {seen.key.track}. Use the regime public.")
    # The views are public images too: who stands among them would be in the history twice, sharp and soft.
    shown = {image.tobytes() for image in views.images}
    sharp = public.images[: 2 * _HISTORY]
    apart = np.array([soft.tobytes() not in shown for soft in soft_focus(sharp)], np.bool_)
    return {"reference": sharp[apart], "subgroup": views.images}


def _unasked_faces(asked: set[str]) -> dict[str, Images]:
    """Return photographs of either group among the pool's rows of FairFace, of people whom nobody asked about."""
    found: dict[bool, list[Images]] = {False: [], True: []}
    for people in AGE_GENDER_PEOPLE.pool():
        rest = people[~np.isin(people.persons, sorted(asked))]
        for group, parts in found.items():
            room = _HISTORY - sum(map(len, parts))
            parts.append(rest[rest.subgroup == group].images[:room])
    return {"reference": np.concatenate(found[False]), "subgroup": np.concatenate(found[True])}


def _one_camera(people: People) -> People:
    """Return everybody once, every other one of those with two pictures through the subgroup's camera."""
    twice = np.intersect1d(people.persons[people.subgroup], people.persons[~people.subgroup])
    sharp_only, soft_only = (np.isin(people.persons, twice[start::2]) for start in (0, 1))
    return people[np.where(people.subgroup, ~sharp_only, ~soft_only)]


def _streams(seen: _Seen, plan: Plan, pool: _Pictures, rng: np.random.Generator) -> dict[str, list[_Pictures]]:
    """Return the streams to tell apart, by what they are; none is longer than the pool's."""
    platform, epsilon = seen.platform, plan.epsilons[0]
    people = _first(seen.test, plan.people)
    if seen.key.track != "digits":
        # A person has one camera: the two pictures of one photograph would be near-copies that no honest stream has.
        # Digits are too few to be halved, and their bad camera leaves nothing that is near.
        people = _one_camera(_first(seen.test, 2 * plan.people))
    groups = {
        "reference": _Pictures.of(platform, people[~people.subgroup].images),
        "subgroup": _Pictures.of(platform, people[people.subgroup].images),
    }
    groups["both groups"] = _together(list(groups.values()))

    def drawn(of: _Pictures, length: int) -> list[_Pictures]:
        return [of[rng.permutation(len(of))[:length]] for _ in range(_STREAMS)]

    own = people[people.subgroup]
    with_delta = _Pictures.of(platform, seen.sets[epsilon].apply(own.images, own.classes))
    verification = seen.cell.roster.verification
    members = verification[verification.subgroup]
    # What was really paid for: the baseline of both groups, and the tests down to the first failure.
    tested = [
        seen.sets[test.epsilon].apply(members.images, members.classes) for test in seen.found.action.verify().tests
    ]
    verified = _Pictures.of(platform, np.concatenate([verification.images, *tested]))
    verified = verified[rng.permutation(len(verified))]
    roster = seen.cell.roster
    share = float(np.concatenate([roster.pool.subgroup, roster.selection.subgroup]).mean())

    def mixed() -> _Pictures:
        few = round(len(pool) * share)
        parts = _together([drawn(groups["subgroup"], few)[0], drawn(groups["reference"], len(pool) - few)[0]])
        return parts[rng.permutation(len(parts))]

    # A picture as it is, and as two messengers pass it on.
    once = groups["both groups"]
    passed_on = [_Pictures.of(platform, jpeg(once.images, quality=quality)) for quality in (90, 75)]
    copies, steps = _together([once, *passed_on]), len(once) * np.arange(3)
    thrice = [copies[(rng.permutation(len(once))[: len(pool) // 3, None] + steps).ravel()] for _ in range(_STREAMS)]
    return {
        **{f"honest, {name}": drawn(of, len(pool)) for name, of in groups.items()},
        "honest, mixed as the pool": [mixed() for _ in range(_STREAMS)],
        "honest, both groups, a short stream": drawn(groups["both groups"], -(-len(pool) // _KEYS)),
        "honest, each picture three times": thrice,
        "pool, each key": _dealt(pool, _KEYS),
        # Members ask at the same time: in what order, chance decides.
        "pool, all keys": drawn(pool, len(pool)),
        # In parts as long as the pool: a detector of streams alarms more often on a longer one.
        "verification, all keys": [
            verified[start : start + len(pool)] for start in range(0, len(verified) - len(pool) + 1, len(pool))
        ]
        or [verified],
        "submissions with δ, each key": _dealt(with_delta, _KEYS),
        "submissions with δ, all keys": drawn(with_delta, len(pool)),
        "one person's Square attack": _alone(seen, epsilon, rng),
    }


def _pool_images(folder: Path, plain: Images) -> Images:
    """Return all images that the pool asked about: those as they are, then the altered copies of each round."""
    rounds = sorted((folder / "rounds").glob("altered-*.safetensors"))
    copies = [load_arrays(path, None, ("images",)) for path in rounds]
    return np.concatenate([plain, *(c["images"] for c in copies if c is not None)])


def _alone(seen: _Seen, epsilon: int, rng: np.random.Generator) -> list[_Pictures]:
    """Return what people whom the platform gets wrong send when each attacks alone, one stream a person."""
    pool = seen.cell.roster.pool
    members = pool[pool.subgroup]
    wrong = np.flatnonzero(asked(seen.platform, members.images).labels != members.classes)[:_ALONE]
    if not len(wrong):
        raise ActionError("Expected members whom the platform gets wrong, got none. There is no gap to close.")
    streams = []
    for row in wrong.tolist():
        one = members[np.array([row])]
        sent: list[Images] = []

        def box(images: Images, sent: list[Images] = sent) -> NDArray[np.float32]:
            sent.append(images.copy())
            return asked(seen.platform, images).scores

        square(box, one.images, one.classes, epsilon=epsilon, budget=_BUDGET, rng=rng)
        streams.append(_Pictures.of(seen.platform, np.concatenate(sent)))
    return streams


# -- what averaging shows -----------------------------------------------------------------------------------------


def _exposed(seen: _Seen, plan: Plan, epsilon: int) -> Iterator[dict[str, Any]]:
    """Yield how much of δ is seen in averages of submissions, by share of those with δ and by their number.

    Submissions are the subgroup's, sorted by what the platform answered: it does not know the truth. All shares of one
    number are of the same classes: those with so many submissions of either kind.
    """
    given, platform, block = seen.sets[epsilon], seen.platform, seen.key.chosen.get("block", 1)
    senders, others = (_first(people, plan.senders) for people in _senders(seen))
    before = _Pictures.of(platform, _history(seen)["subgroup"][:_HISTORY])
    plain = [_Pictures.of(platform, p.images) for p in (senders, others)]
    moved = [_Pictures.of(platform, given.apply(p.images, p.classes)) for p in (senders, others)]
    # Where δ is constant on squares, their means are looked at: nothing else holds any of it.
    before = _Pictures(shrink(before.images, block), before.labels)
    plain, moved = ([_Pictures(shrink(p.images, block), p.labels) for p in pair] for pair in (plain, moved))
    small = given.delta[:, ::block, ::block]
    looks: dict[str, Callable[[NDArray[np.integer[Any]]], Floats]] = {
        "residuals": residuals,
        "pixels": lambda images: images.reshape(len(images), -1).astype(np.float64),
    }
    for of, look in looks.items():
        seen_as = [[look(p.images) for p in pair] for pair in (plain, moved)]
        old = look(before.images)
        deltas, filters = small.reshape(len(small), -1).astype(np.float64), look(small)
        lines: dict[tuple[int, float], list[tuple[float, float]]] = {}
        known: dict[int, list[float]] = {}
        rng = np.random.default_rng([seen.key.seed, 12])
        for c, delta in enumerate(deltas):
            without, carrying = ([np.flatnonzero(p.labels == c) for p in pair] for pair in (plain, moved))
            held = (seen_as[1][1][carrying[1]], seen_as[0][1][without[1]])
            past = old[before.labels == c]
            if not (len(held[0]) and len(held[1]) and len(past)):
                continue
            area = area_under_curve(held[0] @ filters[c], held[1] @ filters[c])
            for count in plan.counts:
                if min(len(carrying[0]), len(without[0])) < count:
                    continue
                known.setdefault(count, []).append(area)
                for share in _whole(count):
                    some = round(share * count)
                    for _ in range(_DRAWS):
                        sent = np.concatenate(
                            [
                                seen_as[1][0][rng.permutation(carrying[0])[:some]],
                                seen_as[0][0][rng.permutation(without[0])[: count - some]],
                            ]
                        )
                        found = expose(sent, past, delta, held)
                        lines.setdefault((count, share), []).append((found.cosine, found.area))
        for (count, share), values in lines.items():
            yield {
                **seen.names,
                "epsilon": epsilon,
                "of": of,
                "submissions": count,
                "share": share,
                "with_delta": round(share * count),
                "cosine": statistics.fmean(v[0] for v in values),
                "area": statistics.fmean(v[1] for v in values),
                "area_where_the_file_is_known": statistics.fmean(known[count]),
                "classes": len(known[count]),
                "draws": len(values),
            }


def _whole(count: int) -> list[float]:
    """Return the shares that are whole numbers of so many submissions: of ten none carries δ at 5 %."""
    return [share for share in _SHARES if math.isclose(share * count, round(share * count))]


def _senders(seen: _Seen) -> tuple[People, People]:
    """Return the subgroup's people who submit, and others to be told apart: nobody is both."""
    roster = seen.cell.roster
    test = seen.test[seen.test.subgroup]
    ours = [p[p.subgroup] for p in (roster.pool, roster.selection, roster.verification)]
    if seen.key.track == "digits":
        return People.concatenate(ours), test
    half = len(test) // 2
    return People.concatenate([*ours, test[np.arange(half)]]), test[np.arange(half, len(test))]


# -- how long limits make it take ---------------------------------------------------------------------------------


def _limits(seen: _Seen) -> Iterator[dict[str, Any]]:
    """Yield the days that a rate limit per key makes the whole action take, by the arithmetic the ledger keeps to."""
    verification = seen.cell.roster.verification
    baseline, tests = len(verification), int(verification.subgroup.sum()) * len(seen.key.epsilons)
    queries = seen.key.queries + baseline + tests
    for per_day in _PER_DAY:
        for members in MEMBERS:
            quota = Quota(10**9, per_day=per_day)
            yield {
                "track": seen.key.track,
                "queries": {"pool": seen.key.queries, "baseline": baseline, "verification": tests},
                "members": members,
                "per_day": per_day,
                "days": least_seconds(queries, [(10**9, quota)] * members) / 86400,
                "days_without_certificate": least_seconds(seen.key.queries, [(10**9, quota)] * members) / 86400,
            }
