"""Three levers of one subgroup on one platform, in the same metrics and with the same number of people taking part.

Run as ``TTCA_DATA=… python -m benchmarks levers --json``. The platform is gradient boosting on ACSIncome of Colorado
(people report all of it themselves, income too); it can be trained again. The subgroup are women. α of the women who
train the platform take part, and α of the women it is tested on:

- ``relabelling`` (Ben-Dov et al., arXiv 2508.15374, *published*): of those who take part, members with the other label
  report the favorable one, ranked by RB-prob; how many do is chosen on validation people. Nobody does anything later.
- ``planting`` (Gauthier, Bach, Jordan 2025, arXiv 2502.04879, *published*): a signal, here a rare number of working
  hours, is tied to the favorable label; those who take part and have that label show it later. *Feature-label*:
  all who take part report signal and label. *Feature-only*: those who have the label report the signal, nobody lies
  about the label; that the others stay where they are, also at the signal, is *ours*, and so is that a collective of
  people with the favorable label uses it for itself.
- ``perturbation`` at test time, carried over to rows of a table (*ours*): members ask the platform about their own
  records, train a logistic regression on the answers (labels), and look for the one change per class, of two columns
  that people describe their job with, that helps most of them. The budget is stated beforehand. The platform does
  not train again.

Whether it is hours, the class of worker or the label that changes: each lever is an untrue statement about oneself.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.minority import drawn
from ttca.data.tabular import Encoding, Table, load_acs_income
from ttca.errors import ConfigError
from ttca.fairness import (
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_rates,
    worst_group_accuracy,
)
from ttca.training_time.relabelling import (
    LabeledRows,
    Trial,
    collective,
    firm_errors,
    flip_first,
    least_violation_within,
    random_scores,
    rb_prob,
)

__all__ = ["LEVERS", "QUICK", "Settings", "main", "measure_seed", "summarise"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--seeds", "2")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVERS: Mapping[str, str] = {
    "relabelling, RB-prob": "before a training: a label",
    "planting, feature-only": "before a training and later: working hours",
    "planting, feature-label": "before a training: working hours and label; later: working hours",
    "perturbation at test time": "later: working hours and class of worker",
}
"""Each lever, and when its people change what."""

# Training rows a category needs for a column of its own.
_LEAST = 50


@dataclass(frozen=True)
class Settings:
    """Everything that decides a row besides data and seed.

    Parameters
    ----------
    alphas : tuple of float
        Shares of the subgroup that take part.
    flips : tuple of float
        Numbers of flips to try, as shares of the pool of those who could; the first is 0.
    rise : float
        Rise of the error that relabelling allows itself on validation people.
    hours, job : str
        The numeric and the categorical column that people may change: the signal is a value of the first, the
        perturbation moves the first and replaces the second.
    signals : (int, int)
        The signal is the rarest whole value of ``hours`` from the first to the second among training people.
    budget : float
        Most that the perturbation moves ``hours`` by, in standard deviations of training people. One categorical
        cell may change as well.
    """

    alphas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    flips: tuple[float, ...] = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
    rise: float = 0.015
    hours: str = "WKHP"
    job: str = "COW"
    signals: tuple[int, int] = (36, 49)
    budget: float = 0.5


# --- people and platform -----------------------------------------------------------------------------------


def _boosting() -> HistGradientBoostingClassifier:
    # No early stopping: it would draw its own validation rows, and a platform must be the same function every time.
    return HistGradientBoostingClassifier(
        max_iter=30, learning_rate=0.25, max_leaf_nodes=15, early_stopping=False, random_state=0
    )


def _rows(table: Table, rows: Integers) -> Table:
    return replace(
        table,
        numbers=table.numbers[rows],
        categories=table.categories[rows],
        labels=table.labels[rows],
        minority=table.minority[rows],
    )


@dataclass(frozen=True)
class _Change:
    """One change of people's records: so much is added to ``hours``, ``job`` becomes a value (−1: as it is)."""

    hours: float
    job: int


@dataclass(frozen=True)
class _World:
    """One seed's people, and how a record becomes what the platform sees."""

    train: Table
    validation: Table
    test: Table
    encoding: Encoding
    settings: Settings

    @classmethod
    def drawn(cls, table: Table, seed: int, settings: Settings) -> _World:
        """Return training, validation and test people, 60/20/20 of each group and label."""
        train, validation, test = drawn(table.labels, table.minority, seed)
        encoding = Encoding.fit(table, train, least=_LEAST)
        return cls(_rows(table, train), _rows(table, validation), _rows(table, test), encoding, settings)

    @property
    def _hours(self) -> int:
        return self.train.number_names.index(self.settings.hours)

    @property
    def _job(self) -> int:
        return self.train.category_names.index(self.settings.job)

    @cached_property
    def features(self) -> Floats:
        """Training people's features as they are."""
        return self.encoding.encode(self.train)

    @cached_property
    def seen(self) -> Floats:
        """Test people's features as they are."""
        return self.encoding.encode(self.test)

    def people(self, table: Table) -> LabeledRows:
        """Return people as relabelling takes them."""
        return LabeledRows(self.encoding.encode(table), table.labels, table.minority)

    def trained(self, features: Floats, labels: Integers) -> HistGradientBoostingClassifier:
        """Return the platform, trained on these records."""
        return _boosting().fit(features, labels)

    def signalling(self, table: Table, value: float) -> Floats:
        """Return features of people who all report so many hours."""
        numbers = table.numbers.copy()
        numbers[:, self._hours] = value
        return self.encoding.encode(replace(table, numbers=numbers))

    def signal(self) -> int:
        """Return the number of hours that is the signal: the rarest among training people of those that may be."""
        hours = self.train.numbers[:, self._hours]
        low, high = self.settings.signals
        return min(range(low, high + 1), key=lambda value: int((hours == value).sum()))

    def moved(self, table: Table, reported: Mapping[int, Floats | float], acting: Flags) -> float | None:
        """Return by how many hours those who act change what they report, on average; None where nobody does.

        ``reported`` are the hours of each label's people once they act; who has a label that is not there changes
        nothing.
        """
        hours = table.numbers[:, self._hours]
        by_label = [(table.labels == label, np.abs(value - hours)) for label, value in reported.items()]
        far = sum((np.where(those, distance, 0.0) for those, distance in by_label), np.zeros(len(hours)))
        return float(far[acting].mean()) if acting.any() else None

    def hours_after(self, table: Table, change: _Change) -> Floats:
        """Return the hours of people who all make one change; nobody works fewer than 1 or more than 99."""
        return np.clip(table.numbers[:, self._hours] + change.hours, 1, 99)

    def most_hours(self) -> int:
        """Return the budget of a perturbation in whole hours."""
        return int(self.settings.budget * self.encoding.scale[self._hours])

    def changes(self) -> list[_Change]:
        """Return every change within the budget."""
        most = self.most_hours()
        return [_Change(h, j) for h in range(-most, most + 1) for j in (-1, *self.encoding.kept[self._job].tolist())]

    def changed(self, table: Table, change: _Change) -> Floats:
        """Return features of people who all make one change."""
        numbers, categories = table.numbers.copy(), table.categories
        numbers[:, self._hours] = self.hours_after(table, change)
        if change.job >= 0:
            categories = categories.copy()
            categories[:, self._job] = change.job
        return self.encoding.encode(replace(table, numbers=numbers, categories=categories))


# --- what is measured --------------------------------------------------------------------------------------


def _groups(table: Table) -> NDArray[np.str_]:
    return np.where(table.minority, "subgroup", "reference")


def _measured(
    test: Table, said: Integers, acting: Flags, liars: Integers | None, leak: Integers | None
) -> dict[str, Any]:
    """Return every metric of one platform on test people, all against *true* labels.

    ``liars`` and ``leak`` are what the platform says when those who take part, and people of the reference, use the
    favourable label's lever whatever theirs is; None where there is nothing to use at test time.
    """
    groups, true = _groups(test), test.labels
    rates = group_rates(true, said, groups)
    of = {name: i for i, name in enumerate(rates.groups)}
    right = said == true
    pretenders, strangers = acting & (true == 0), ~test.minority & (true == 0)
    idle = test.minority & ~acting

    def share(rows: Flags, values: NDArray[Any]) -> float | None:
        return float(values[rows].mean()) if rows.any() else None

    return {
        "error": float(1 - right.mean()),
        "worst_group_accuracy": worst_group_accuracy(true, said, groups),
        "equal_opportunity_difference": equal_opportunity_difference(true, said, groups),
        "equalised_odds_difference_mean": equalized_odds_difference(true, said, groups, agg="mean"),
        "demographic_parity_ratio": demographic_parity_ratio(true, said, groups),
        "subgroup_accuracy": float(rates.accuracy[of["subgroup"]]),
        "reference_accuracy": float(rates.accuracy[of["reference"]]),
        "true_positive_rate_gap": float(
            rates.true_positive_rate[of["reference"]] - rates.true_positive_rate[of["subgroup"]]
        ),
        "false_positive_rate_gap": float(
            rates.false_positive_rate[of["reference"]] - rates.false_positive_rate[of["subgroup"]]
        ),
        "taking_part_accuracy": share(acting, right),
        "not_taking_part_accuracy": share(idle, right),
        "abuse": share(pretenders, said if liars is None else liars),
        "abuse_by_reference": share(strangers, said if leak is None else leak),
    }


def _those(table: Table, share: float, generator: np.random.Generator) -> Flags:
    """Return who of a table's subgroup takes part: nested over shares, for one generator's seed."""
    chosen = np.zeros(len(table), np.bool_)
    if share:
        chosen[collective(table.minority, share, generator)] = True
    return chosen


# --- the levers --------------------------------------------------------------------------------------------


def _relabelled(
    world: _World, members: Flags, acting: Flags, seed: int, settings: Settings, validation: LabeledRows
) -> dict[str, dict[str, Any]]:
    """Return relabelling by RB-prob, and as many flips of members drawn at random."""
    train = world.people(world.train)
    pool = np.flatnonzero(members & (train.labels == 0))
    majority = ~train.minority
    scores = rb_prob(
        train.features[pool], train.features[majority], train.labels[majority],
        classifier=LogisticRegression(max_iter=2000),
    )  # fmt: skip
    test = world.people(world.test)
    trials, said = [], {}
    for flips in sorted({round(share * len(pool)) for share in settings.flips}):
        predict = world.trained(train.features, flip_first(train.labels, pool, scores, flips)).predict
        trials.append(Trial(flips, firm_errors(predict, validation), firm_errors(predict, test)))
        said[flips] = np.asarray(predict(test.features), np.int64)
    chosen = least_violation_within(trials, rise=settings.rise).flips
    drawn = random_scores(train.features[pool], generator=np.random.default_rng([seed, 3]))
    at_random = world.trained(train.features, flip_first(train.labels, pool, drawn, chosen)).predict(test.features)
    facts = {"changed_records": chosen, "changed_at_test": 0}
    return {
        "relabelling, RB-prob": {**_measured(world.test, said[chosen], acting, None, None), **facts},
        "control: as many flips at random": {
            **_measured(world.test, np.asarray(at_random, np.int64), acting, None, None), **facts,
        },
    }  # fmt: skip


def _planted(
    world: _World, platform: HistGradientBoostingClassifier, members: Flags, acting: Flags
) -> dict[str, dict[str, Any]]:
    """Return planting of both kinds, and the same signal shown to a platform on which nobody planted it."""
    signal, train, test = world.signal(), world.train, world.test
    shown = world.signalling(test, signal)
    showing = acting & (test.labels == 1)
    unplanted = np.asarray(platform.predict(shown), np.int64)
    said = np.where(showing, unplanted, np.asarray(platform.predict(world.seen), np.int64))
    # The signal has no budget: it is as far away as it is.
    later = {"changed_at_test": int(showing.sum()), "hours_moved": world.moved(test, {1: float(signal)}, showing)}
    found: dict[str, dict[str, Any]] = {
        "control: the signal, which nobody planted": {
            **_measured(test, said, acting, unplanted, unplanted),
            "changed_records": 0,
            **later,
        }
    }
    for kind in ("feature-only", "feature-label"):
        signalled = members & (train.labels == 1) if kind == "feature-only" else members
        features = world.features.copy()
        features[signalled] = world.signalling(_rows(train, np.flatnonzero(signalled)), signal)
        labels = np.where(signalled, 1, train.labels)
        predict = world.trained(features, labels).predict
        as_they_are = np.asarray(predict(world.seen), np.int64)
        everybody = np.asarray(predict(shown), np.int64)
        found[f"planting, {kind}"] = {
            **_measured(test, np.where(showing, everybody, as_they_are), acting, everybody, everybody),
            "changed_records": int(signalled.sum()),
            "false_labels": int((labels != train.labels).sum()),
            **later,
        }
        idle = _measured(test, as_they_are, acting, None, None)
        found[f"{kind}, nobody shows the signal"] = {
            **idle,
            "changed_records": int(signalled.sum()),
            "changed_at_test": 0,
        }
    return found


def _perturbed(
    world: _World, platform: HistGradientBoostingClassifier, members: Flags, acting: Flags, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the perturbation of each class, that of the wrong class, and a random one of the same size."""
    own = _rows(world.train, np.flatnonzero(members))
    asked = world.features[members]
    answers = np.asarray(platform.predict(asked), np.int64)
    if len(np.unique(answers)) < 2:
        raise ConfigError(
            "Expected answers with both labels to learn a proxy from, got only one. Let more people take part."
        )
    proxy = LogisticRegression(max_iter=2000).fit(asked, answers)
    held = world.seen[world.test.minority]
    agree = proxy.predict(held) == platform.predict(held)
    # One change per class: what gains the proxy's mean margin most among members of that class.
    chosen: dict[int, _Change] = {}
    margins = {change: proxy.decision_function(world.changed(own, change)) for change in world.changes()}
    for label in (0, 1):
        sign, those = 2 * label - 1, own.labels == label
        hits = {c: float(((m > 0) == bool(label))[those].mean()) for c, m in margins.items()}
        chosen[label] = max(margins, key=lambda c: (hits[c], float(sign * margins[c][those].mean())))
    test = world.test
    generator = np.random.default_rng([seed, 4])
    jobs = world.encoding.kept[world._job]
    random = {
        label: _Change(
            abs(change.hours) * float(generator.choice([-1, 1])),
            int(generator.choice(jobs)) if change.job >= 0 else -1,
        )
        for label, change in chosen.items()
    }
    as_they_are = np.asarray(platform.predict(world.seen), np.int64)

    def under(change: _Change) -> Integers:
        return np.asarray(platform.predict(world.changed(test, change)), np.int64)

    learned = {label: under(change) for label, change in chosen.items()}
    noise = {label: under(change) for label, change in random.items()}

    def by_class(said: Mapping[int, Integers]) -> Integers:
        return np.where(acting, np.where(test.labels == 1, said[1], said[0]), as_they_are)

    def far(changes: Mapping[int, _Change]) -> dict[str, float | None]:
        after = {label: world.hours_after(test, change) for label, change in changes.items()}
        return {"hours_moved": world.moved(test, after, acting)}

    facts = {
        "changed_records": 0,
        "queries": int(members.sum()),
        "changed_at_test": int(acting.sum()),
        "fidelity": float(agree.mean()),
        "changes": {str(label): asdict(change) for label, change in chosen.items()},
    }
    wrong = {0: learned[1], 1: learned[0]}
    return {
        "perturbation at test time": {
            **_measured(test, by_class(learned), acting, learned[1], learned[1]), **facts, **far(chosen),
        },
        "control: the other class's change": {
            **_measured(test, by_class(wrong), acting, wrong[1], wrong[1]), **facts,
            **far({0: chosen[1], 1: chosen[0]}),
        },
        "control: a random change of that size": {
            **_measured(test, by_class(noise), acting, noise[1], noise[1]), **facts, **far(random),
        },
    }  # fmt: skip


def measure_seed(table: Table, seed: int, settings: Settings) -> dict[str, Any]:
    """Return everything one split of the people says, as plain JSON values.

    Parameters
    ----------
    table : Table
        The data set.
    seed : int
        Of the split and of every draw.
    settings : Settings
        What is tried.

    Raises
    ------
    ConfigError
        If no flips are not among those to try, or a column is none of the table's.
    """
    if not settings.flips or settings.flips[0] != 0:
        raise ConfigError(f"Expected flips that begin with 0, got {settings.flips}. Put 0 first.")
    if settings.hours not in table.number_names or settings.job not in table.category_names:
        raise ConfigError(
            f"Expected columns from {table.number_names} and {table.category_names}, got {settings.hours!r} and "
            f"{settings.job!r}. Name some of them."
        )
    start = time.process_time()
    world = _World.drawn(table, seed, settings)
    validation = world.people(world.validation)
    platform = world.trained(world.features, world.train.labels)
    nobody = np.zeros(len(world.test), np.bool_)
    base = np.asarray(platform.predict(world.seen), np.int64)
    rows: dict[str, Any] = {}
    with warnings.catch_warnings():
        # A linear model on few rows may stop at its last round; its ranking is used, not its convergence.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        for alpha in settings.alphas:
            members = _those(world.train, alpha, np.random.default_rng([seed, 1]))
            acting = _those(world.test, alpha, np.random.default_rng([seed, 2]))
            found = _relabelled(world, members, acting, seed, settings, validation)
            found |= _planted(world, platform, members, acting)
            found |= _perturbed(world, platform, members, acting, seed)
            # What happened to the same people before anybody acted.
            found["nobody acts"] = _measured(world.test, base, acting, None, None)
            rows[str(alpha)] = {"members": int(members.sum()), "acting_at_test": int(acting.sum()), "rows": found}
    return {
        "seed": seed,
        "people": {
            "train": len(world.train), "train_subgroup": int(world.train.minority.sum()),
            "test": len(world.test), "test_subgroup": int(world.test.minority.sum()),
        },
        "signal_hours": world.signal(),
        "budget_hours": world.most_hours(),
        "base": _measured(world.test, base, nobody, None, None),
        "by_alpha": rows,
        "seconds": time.process_time() - start,
    }  # fmt: skip


# --- all seeds ---------------------------------------------------------------------------------------------


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of every number that all seeds have."""
    found: dict[str, Any] = {"mean": {}, "standard_deviation": {}}
    for key, value in rows[0].items():
        if isinstance(value, int | float) and all(row[key] is not None for row in rows):
            values = [row[key] for row in rows]
            found["mean"][key] = float(np.mean(values))
            found["standard_deviation"][key] = float(np.std(values, ddof=1)) if len(rows) > 1 else None
    return found


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means and spreads over seeds: of the base, and by α and lever or control.

    Parameters
    ----------
    seeds : sequence of dict
        What :func:`measure_seed` returned, one a seed.
    """
    return {
        "base": _over_seeds([seed["base"] for seed in seeds]),
        "by_alpha": {
            alpha: {
                "members": float(np.mean([seed["by_alpha"][alpha]["members"] for seed in seeds])),
                "acting_at_test": float(np.mean([seed["by_alpha"][alpha]["acting_at_test"] for seed in seeds])),
                "rows": {
                    name: _over_seeds([seed["by_alpha"][alpha]["rows"][name] for seed in seeds])
                    for name in entry["rows"]
                },
            }
            for alpha, entry in seeds[0]["by_alpha"].items()
        },
    }


def main(argv: list[str]) -> dict[str, object]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        See ``--help``; ``--json`` is for the caller, who does the printing.

    Raises
    ------
    ConfigError
        If there is no seed or no process.
    DataError
        If ``TTCA_DATA`` names no folder with the table.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks levers", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="splits of the data set")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="number of processes")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1 or options.jobs < 1:
        raise ConfigError(f"Expected 1 or more seeds and processes, got {options.seeds} and {options.jobs}. Try 10, 2.")
    start = time.perf_counter()
    settings, table = Settings(), load_acs_income()
    numbers = range(options.first_seed, options.first_seed + options.seeds)
    with joblib.parallel_config("loky", n_jobs=options.jobs, inner_max_num_threads=1):
        seeds = joblib.Parallel()(joblib.delayed(measure_seed)(table, seed, settings) for seed in numbers)
    return {
        "benchmark": "levers",
        "seeds": list(numbers),
        "data_set": table.name,
        "rows": len(table),
        "subgroup": table.minority_name,
        "favourable": table.favourable,
        "people": seeds[0]["people"],
        "settings": {**asdict(settings), "shown_alpha": "0.5"},
        "signal_hours": sorted({seed["signal_hours"] for seed in seeds}),
        "budget_hours": seeds[0]["budget_hours"],
        "libraries": {"scikit-learn": version("scikit-learn")},
        **summarise(seeds),
        "by_seed": seeds,
        "seconds": time.perf_counter() - start,
    }
