"""The benchmark of a member's minute measures what members do, and the floor that documents state holds with room."""

from __future__ import annotations

import sys

import pytest

from benchmarks import members
from ttca.errors import ConfigError


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as Linux says it")
def test_every_number_is_there_and_says_how() -> None:
    """A slice measures times and peaks, each explained; the bomb costs less than a photograph that is applied."""
    result = members.main(["--images", "2", "--repeats", "1"])
    assert set(result["how"]) - {"install_mb"} <= set(result)
    assert min(result["apply_per_s"], result["apply_one_per_s"], result["photograph_s"]) > 0
    peaks = result["peak_mb"]
    assert 0 < peaks["bomb.png"] < peaks["grey.jpg"]


@pytest.mark.parametrize("option", ["--images 0", "--repeats 0"])
def test_nothing_to_measure_is_a_sentence(option: str) -> None:
    """Without images or repeats there is nothing to time."""
    with pytest.raises(ConfigError, match="at least one image"):
        members.main(option.split())
