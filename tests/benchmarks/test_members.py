"""The benchmark of a member's minute measures what members do, and the floor that documents state holds with room."""

from __future__ import annotations

import sys

import pytest

from benchmarks import members
from benchmarks._pages.members import tables
from ttca.errors import ConfigError


@pytest.mark.full
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


def test_the_page_shows_what_was_measured() -> None:
    """Each number of a result file stands in the table, and those of an install only where there was one."""
    kept = {
        "apply_per_s": 4321.0, "apply_one_per_s": 987.6, "photograph_s": 0.256,
        "peak_mb": {"grey.jpg": 301.4, "color.jpg": 402.6, "bomb.png": 99.9},
    }  # fmt: skip
    (shown,) = tables([("members.json", kept)]).values()
    for number in ("4,321 a second", "988 a second", "0.26 s", "301 MB", "403 MB", "100 MB"):
        assert number in shown
    assert "install" not in shown
    (both,) = tables([("members.json", {**kept, "install_mb": {"with_bytecode": 150.2, "on_disk": 161.7}})]).values()
    assert "150 MB" in both
    assert "162 MB" in both
