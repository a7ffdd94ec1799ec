"""What does a minority achieve by relabeling photographs, beside the firm's means and an action at test time?

Run as ``TTCA_DATA=… python -m benchmarks waterbirds --json``. The firm trains a linear layer on features of a public
backbone (EfficientNet-Lite0, ImageNet). The groups are backgrounds, the favorable label is *waterbird*, and the
minority of the method are birds on land: on land few birds are called waterbirds. None of that is stated on the poster
of Ben-Dov et al. (arXiv 2508.15374); it is *ours*.

- Like the poster's other data sets, all photographs are split anew by each seed: 60 % train, 20 % choose, 20 % test.
  The firm's penalty was settled on seeds from 100 on: the same photographs, split otherwise.
- ``--side-by-side`` keeps the published splits, where 95 % of the training birds are on their usual background. It sets
  relabeling beside an action at test time of birds off their usual background: the same classifier, the same people.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import CellKey, code_digest, kept_cell, opened, racing
from benchmarks._tracks import TRACKS, data_root, waterbirds_test
from benchmarks._waterbirds import SPLITS, birds, features
from benchmarks.minority import FIRMS, Ask, Roles, Settings, Variant, drawn, measure_people, summarise
from ttca.errors import ConfigError, NothingHelpsError
from ttca.people import People
from ttca.platforms.base import Platform
from ttca.training_time.relabelling import (
    LabeledRows,
    Trial,
    collective,
    equalized_odds,
    firm_errors,
    flip_first,
    least_violation_within,
    rb_prob,
)
from ttca.values import Value

__all__ = ["DIFFERS", "QUICK", "SETTINGS", "Seen", "main", "split_anew"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--seeds", "1", "--no-variants")
Integers = NDArray[np.int64]
DIFFERS = (
    "The poster does not say which model the firm trains, on which features, who the minority is, k, the splits, or on "
    "whose rows the number of flips is chosen. Half of the published test split is here. Compare falls, not levels."
)
SETTINGS = Settings(firm="penalized", scorer="penalized", gammas=(0.5, 0.9), cells=(8, 32))
#: Shares of the birds on land that relabel beside the action at test time.
_SHARES = (0.3, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Seen(Value):
    """Photographs as features.

    Parameters
    ----------
    features : float64 array, shape (N, D)
    labels, places : int64 arrays, shape (N,)
        1 for a waterbird, and for a background of water.
    """

    features: NDArray[np.float64]
    labels: Integers
    places: Integers

    def rows(self, rows: Integers, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> LabeledRows:
        """Return some as the study takes them: on land is the minority, a waterbird is favorable."""
        return LabeledRows((self.features[rows] - mean) / scale, self.labels[rows], self.places[rows] == 0)

    def roles(self, train: Integers, validation: Integers, test: Integers) -> Roles:
        """Return people by their rows; features are standardized by training people's."""
        mean, scale = self.features[train].mean(0), self.features[train].std(0)
        scale = np.where(scale > 0, scale, 1.0)
        first, second, third = (self.rows(rows, mean, scale) for rows in (train, validation, test))
        return first, second, third


def split_anew(seen: Seen, seed: int) -> Roles:
    """Return training, validation and test people of all photographs: 60/20/20 of each background and label.

    Parameters
    ----------
    seen : Seen
    seed : int
    """
    return seen.roles(*drawn(seen.labels, seen.places == 0, seed))


def _other_minority(people: Roles) -> Roles:
    """Return the same people where birds on water act, and a landbird is what they report."""
    first, second, third = (LabeledRows(p.features, 1 - p.labels, ~p.minority) for p in people)
    return first, second, third


def _variants(people: Roles, published: Roles, settings: Settings) -> Mapping[str, Variant]:
    usual = Ask("RB-prob", 0.3, settings.k, settings.scorer)
    return {
        "firm trains a network of 32 units": (usual, "network", people),
        "firm penalizes five times as much": (usual, "more penalized", people),
        "minority: birds on water": (usual, settings.firm, _other_minority(people)),
        "the published splits": (usual, settings.firm, published),
        "collective knows ten majority people": (replace(usual, majority_people=10), settings.firm, people),
        "RB-label, k = 3": (Ask("RB-label", 0.3, 3), settings.firm, people),
        "RB-label, k = 50": (Ask("RB-label", 0.3, 50), settings.firm, people),
    }


def main(argv: list[str]) -> dict[str, Any]:
    """Run the study, or set both levers side by side, and return a JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        See ``--help``.

    Raises
    ------
    ConfigError
        If there is no seed or no process.
    DataError
        If ``TTCA_DATA`` names no folder with the data set.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks waterbirds", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="splits of the photographs; with --side-by-side draws")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed")
    parser.add_argument("--no-variants", action="store_true", help="leave out the runs that change one thing at a time")
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="number of processes")
    parser.add_argument("--side-by-side", action="store_true", help="relabeling beside an action at test time")
    parser.add_argument("--queries", type=int, default=500, help="images that the action sends for its pool")
    parser.add_argument("--epsilon", type=int, nargs="+", default=[4, 8], help="levels of 255; several make a family")
    parser.add_argument("--people", type=int, help="the first so many test people; all when not given")
    parser.add_argument("--final", action="store_true", help="measure the side by side on final people, once")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1 or options.jobs < 1:
        raise ConfigError(f"Expected 1 or more seeds and processes, got {options.seeds} and {options.jobs}. Try 10, 2.")
    parts = [(found, features(split, found)) for split in SPLITS for found in (birds(split, data_root()),)]
    seen = Seen(
        np.concatenate([f for _, f in parts]),
        np.concatenate([b.labels for b, _ in parts]),
        np.concatenate([b.places for b, _ in parts]),
    )
    train, validation, test = np.split(np.arange(len(seen.labels)), np.cumsum([len(b) for b, _ in parts])[:-1])
    numbers = range(options.first_seed, options.first_seed + options.seeds)
    if options.side_by_side:
        return _side_by_side(seen, (train, validation, test), numbers, options)
    start = time.perf_counter()
    published = seen.roles(train, validation, test)

    def one(seed: int) -> dict[str, Any]:
        people = split_anew(seen, seed)
        variants = {} if options.no_variants else _variants(people, published, SETTINGS)
        return measure_people(people, seed, SETTINGS, variants)

    with joblib.parallel_config("loky", n_jobs=options.jobs, inner_max_num_threads=1):
        seeds = joblib.Parallel()(joblib.delayed(_kept)(one, seed, options.no_variants) for seed in numbers)
    row = {
        "minority": "birds on land",
        "favourable": "waterbird",
        "rows": len(seen.labels),
        "minority_share": float((seen.places == 0).mean()),
        **summarise(seeds, "waterbirds", SETTINGS),
        "processor_seconds": float(sum(seed["seconds"] for seed in seeds)),
    }
    return {
        "file": "waterbirds",
        "seeds": list(numbers),
        "rule": "least_violation_within",
        "settings": asdict(SETTINGS),
        "libraries": {name: version(name) for name in ("scikit-learn", "fairlearn", "timm")},
        "differs_from_the_poster": DIFFERS,
        "data_sets": {"waterbirds": row},
        "seconds": time.perf_counter() - start,
    }


def _kept(one: Callable[[int], dict[str, Any]], seed: int, plain: bool) -> dict[str, Any]:
    """Return a seed's numbers, from its file where a run before this one finished it."""
    here = Path(__file__).parent
    code = code_digest(*(here / f"{name}.py" for name in ("minority", "waterbirds", "_waterbirds", "_firm_side")))
    facts = {"seed": seed, "variants": not plain, "settings": repr(SETTINGS), "code": code}
    return kept_cell("waterbirds", facts, partial(one, seed))


# --- both levers on the same people ------------------------------------------------------------------------


def _side_by_side(
    seen: Seen, splits: tuple[Integers, Integers, Integers], numbers: range, options: argparse.Namespace
) -> dict[str, Any]:
    people = waterbirds_test(options.final)[: options.people]
    rows = splits[2][[int(person.removeprefix("test-")) for person in people.persons.tolist()]]
    roles = seen.roles(splits[0], splits[1], rows)
    track, by_seed = TRACKS["waterbirds"], []
    with track.open_platform("scores") as platform:
        for seed in numbers:
            facts = {
                "seed": seed, "queries": options.queries, "epsilons": options.epsilon, "people": len(people),
                "final": options.final, "platform": platform.info.fingerprint,
                "code": code_digest(*(Path(__file__).parent / f"{n}.py" for n in ("minority", "waterbirds"))),
            }  # fmt: skip
            acts = partial(_acted, platform, people, seed, options)
            by_seed.append({**_relabeled(roles, people, seed), **kept_cell("waterbirds-action", facts, acts)})
    return {
        "file": f"waterbirds-levers-q{options.queries}" + ("-final" if options.final else ""),
        "people": "final" if options.final else "dev-test",
        "test_people": len(people),
        "subgroup_people": int(people.subgroup.sum()),
        "seeds": list(numbers),
        "differs_from_the_poster": DIFFERS,
        "levers": by_seed,
    }


def _judged(said: Integers, people: People) -> dict[str, float]:
    """Return what the classifier does to test people, by background and by whether it is the usual one."""
    right = said == people.classes
    # Off its usual background a landbird is on water, and a waterbird on land.
    land = (people.classes == 0) != people.subgroup
    cells = [right[(people.classes == label) & (land == on)] for label in (0, 1) for on in (True, False)]
    return {
        "error": float(1 - right.mean()),
        "eqod": equalized_odds(people.classes, said, land),
        "subgroup_accuracy": float(right[people.subgroup].mean()),
        "reference_accuracy": float(right[~people.subgroup].mean()),
        "worst_cell_accuracy": float(min(cell.mean() for cell in cells)),
    }


def _relabeled(roles: Roles, people: People, seed: int) -> dict[str, dict[str, Any]]:
    """Return the classifier as it is, and after shares of the birds on land relabeled by RB-prob."""
    train, validation, test = roles
    found: dict[str, dict[str, Any]] = {}
    majority = ~train.minority
    for share in _SHARES:
        members = collective(train.minority, share, np.random.default_rng([seed, 1]))
        pool = members[train.labels[members] == 0]
        scores = rb_prob(
            train.features[pool], train.features[majority], train.labels[majority], classifier=FIRMS[SETTINGS.scorer]()
        )
        trials, said = [], {}
        wanted = {min(round(s * int(train.minority.sum())), len(pool)) for s in SETTINGS.flips}
        for flips in sorted(wanted):
            model = FIRMS[SETTINGS.firm]().fit(train.features, flip_first(train.labels, pool, scores, flips))
            said[flips] = np.asarray(model.predict(test.features), np.int64)
            trials.append(Trial(flips, firm_errors(model.predict, validation), firm_errors(model.predict, test)))
        found["nobody acts"] = {**_judged(said[0], people), "flips": 0}
        flips = least_violation_within(trials, rise=SETTINGS.rise).flips
        found[f"relabeling, RB-prob, α = {share}"] = {**_judged(said[flips], people), "flips": flips}
    return found


def _acted(platform: Platform, people: People, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an action at test time does to the same people, at the settings that the product chooses.

    It is kept: a killed run goes on with it, and final people are measured on the action that dev-test people judged.
    """
    track = TRACKS["waterbirds"]
    key = CellKey(
        track.name, "own", track.answers[0], options.queries, tuple(options.epsilon), seed, racing(track, platform)
    )
    with opened(key, platform) as found:
        try:
            found.action.verify()
        except NothingHelpsError as error:
            return {"an action at test time": {"nothing helps": str(error)}}
        row, measured = found.measure(track.name, people)
    said = np.empty(len(people), np.int64)
    said[people.subgroup] = measured.outcomes["subgroup_after"].answers.labels
    said[~people.subgroup] = measured.outcomes["reference_before"].answers.labels
    zero = said.copy()
    zero[people.subgroup] = measured.outcomes["zero_query"].answers.labels
    return {
        "an action at test time": {**_judged(said, people), "row": row.to_dict()},
        "control: δ that asked nothing": _judged(zero, people),
    }
