"""Tests of the honest row: one list of keys, in one order, as plain JSON."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.row import Row

KEYS = [
    "track",
    "regime",
    "answers",
    "queries",
    "epsilon",
    "seed",
    "queries_pool",
    "queries_baseline",
    "queries_verification",
    "queries_controls",
    "coverage",
    "composition",
    "reference_before",
    "subgroup_before",
    "gap_before",
    "subgroup_after",
    "subgroup_after_lower",
    "subgroup_after_upper",
    "gap_closed",
    "goal",
    "stopping",
    "certified",
    "parity_certified",
    "persons_verification",
    "persons_asked",
    "certificate_lower",
    "certificate_power",
    "abuse_rate",
    "noise_control",
    "proxy_class_control",
    "class_agnostic_control",
    "zero_query_control",
    "jpeg75_control",
    "resize_control",
    "reference_after",
    "zero_query_epochs",
    "paired_p",
    "paired_b",
    "paired_c",
    "fidelity_subgroup",
    "fidelity_reference",
    "worst_group_before",
    "worst_group_after",
    "equal_opportunity_gap_before",
    "equal_opportunity_gap_after",
    "demographic_parity_ratio_before",
    "demographic_parity_ratio_after",
    "threads",
    "shortened",
    "seconds_distil",
    "seconds_learn",
    "seconds",
    "peak_rss_mb",
    "intervals",
]
NUMBERS = [key for key in KEYS if key != "intervals"]


def row(**changes: Any) -> Row:
    """Return a row in which every number is 0.5."""
    values = {"str": "word", "int": 3, "bool": True, "dict[str, int]": {"subgroup": 2}, "dict[str, float]": {}}
    values |= {"dict[str, list[float] | None]": {}, "list[dict[str, str]]": [], "dict[str, list[str]]": {}}
    changes = {"overruled": "", "recipe": "", **changes}
    plain: dict[str, Any] = {f.name: values.get(str(f.type), 0.5) for f in fields(Row)}
    return Row(**{**plain, **changes})


def test_the_keys_are_the_published_list_in_its_order() -> None:
    """A row has exactly the keys that the benchmarks' protocol lists, in that order."""
    assert list(Row.keys()) == KEYS
    assert list(row().to_dict()) == KEYS


@given(st.sampled_from(NUMBERS), st.floats())
def test_any_number_becomes_strict_json(key: str, number: float) -> None:
    """Whatever number stands in a row, its dictionary is JSON without NaN or infinity, and finite ones are kept."""
    said = json.loads(json.dumps(row(**{key: number}).to_dict(), allow_nan=False))
    assert said[key] == (number if math.isfinite(number) else None)
    assert {k: v for k, v in said.items() if k != key} == {k: v for k, v in row().to_dict().items() if k != key}


def test_what_is_not_defined_is_none_and_what_is_zero_stays() -> None:
    """None, False and 0 are told apart."""
    said = row(certificate_power=None, parity_certified=False, gap_closed=0.0, coverage=float("nan")).to_dict()
    assert said["certificate_power"] is None
    assert said["coverage"] is None
    assert said["parity_certified"] is False
    assert said["gap_closed"] == 0.0


def test_a_row_cannot_be_changed_or_left_incomplete() -> None:
    """A key cannot be overwritten after the measurement, nor forgotten."""
    with pytest.raises(FrozenInstanceError):
        row().abuse_rate = 0.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="abuse_rate"):
        Row(**{k: v for k, v in vars(row()).items() if k != "abuse_rate"})


def test_the_dictionary_is_a_copy() -> None:
    """Changing what to_dict returned changes no row."""
    kept = row()
    kept.to_dict()["composition"]["subgroup"] = 99
    assert kept.composition == {"subgroup": 2}


def test_intervals_are_pairs_and_what_bounds_nothing_is_none() -> None:
    """An infinite end and a withheld interval are None; a row kept before there were intervals reads as one of none."""
    said = row(intervals={"subgroup_after": [0.5, 0.75], "gap_closed": [0.25, math.inf], "gap_before": None}).to_dict()
    found = json.loads(json.dumps(said, allow_nan=False))["intervals"]
    assert found == {"subgroup_after": [0.5, 0.75], "gap_closed": [0.25, None], "gap_before": None}
    kept = {key: value for key, value in row().to_dict().items() if key != "intervals"}
    assert Row(**kept) == row()


def test_what_a_guest_measured_stands_apart() -> None:
    """Values of guests are one key more, as strict JSON; without any, there is no such key."""
    said = row(extra={"mine": 0.25, "undefined": float("nan")}).to_dict()
    assert said.pop("extra") == {"mine": 0.25, "undefined": None}
    assert said == row().to_dict()
    assert "extra" not in Row.keys()  # noqa: SIM118 - no dict


def test_published_weights_stand_in_a_row_only_where_there_are_any() -> None:
    """A row of a proxy that began with nothing is the row that it was before there were backbones."""
    backbone = {"name": "a", "architecture": "onnx", "source": "b", "license": "MIT", "digest": "0" * 64}
    assert row(backbones=[backbone]).to_dict() == {**row().to_dict(), "backbones": [backbone]}
    assert "backbones" not in row().to_dict()
