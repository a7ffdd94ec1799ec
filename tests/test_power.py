"""Tests of what power is asked: wrong rates, designs and numbers of persons are told."""

from __future__ import annotations

import math

import pytest

from ttca.certificates import Certifying
from ttca.errors import ConfigError
from ttca.power import Assumed, Verifiers, fewest_persons, power


@pytest.mark.parametrize("wrong", [-0.1, 1.1, 8.0, math.nan])
def test_what_is_no_share_is_refused(wrong: float) -> None:
    """S and the wanted probability are shares; nobody verifying, no such design and an empty reference are told."""
    group, assumed = Verifiers(design="disjoint"), Assumed(subgroup=0.6, reference=0.9)
    with pytest.raises(ConfigError, match="Expected S from 0 to 1"):
        power(Certifying(), group, 25, assumed)(wrong)
    with pytest.raises(ConfigError, match="Expected S from 0 to 1"):
        fewest_persons(Certifying(), group, assumed, wrong)
    with pytest.raises(ConfigError, match="Expected the wanted probability"):
        fewest_persons(Certifying(), group, assumed, 0.9, wrong)
    with pytest.raises(ConfigError, match="at least one person"):
        power(Certifying(), group, -5, assumed)
    with pytest.raises(ConfigError, match="others above 0"):
        Verifiers(design="disjoint", others=-1.0)
    with pytest.raises(ConfigError, match="Expected the design"):
        Verifiers(design="alone")  # type: ignore[arg-type]
