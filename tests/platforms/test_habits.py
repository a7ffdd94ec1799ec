"""An API's habits around any platform: they act alike whatever is behind them, and hide nothing of it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from tests.platforms.test_local import ADA, CLASSES, SHAPE, images, model, say
from ttca.answers import Answers, Status
from ttca.errors import ConfigError, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential, Platform, PlatformInfo, longest_attempt_s
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import NO_HABITS, LocalPlatform
from ttca.platforms.throttle import Throttle, lane, throttle_of


class Strange:
    """A platform that is none of ours: the second image of a request is refused, the third fails."""

    def __init__(self, *, scores: bool = True) -> None:
        self.info = PlatformInfo("strange", CLASSES, SHAPE, {"url": "strange"}, max_batch=8, gives_scores=scores)
        self.throttle = Throttle("strange")
        self.key_variable = "TTCA_KEY_STRANGE"
        self.longest_attempt_s = 7.0

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer the others by the model."""
        said = Answers.from_scores(model(images))
        for row, status in ((1, Status.REFUSED), (2, Status.FAILED)):
            said.status[row : row + 1], said.labels[row : row + 1] = status, -1
            said.scores[row : row + 1] = np.nan
        return said


def plain(**options: Any) -> LocalPlatform:
    return LocalPlatform(model, classes=CLASSES, image_shape=SHAPE, **options)


@pytest.mark.parametrize(
    "habits", [{"noise": 1.0, "seed": 2}, {"top_k": 2, "decimals": 1}, {"label_only": True}, {"noise": 0.5, "top_k": 1}]
)
def test_refusals_and_failures_of_any_platform_stay_what_they_are(habits: dict[str, Any]) -> None:
    """Habits act on what is said, row by row: what a platform refused or failed at has no label and no scores."""
    said = say(WithHabits(Strange(), Habits(**habits)), images(6))
    assert said.status.tolist() == [0, Status.REFUSED, Status.FAILED, 0, 0, 0]
    assert np.isnan(said.scores[1:3]).all()
    ours = say(WithHabits(plain(), Habits(**habits)), images(6))
    kept = [0, 3, 4, 5]
    assert said.labels[kept].tolist() == ours.labels[kept].tolist()
    np.testing.assert_allclose(said.scores[kept], ours.scores[kept], atol=1e-6)


def test_a_wrapper_passes_on_what_the_pool_reads() -> None:
    """Throttle, key and longest attempt are those of the platform inside; where it has none, the defaults hold."""
    inside = Strange()
    asked = WithHabits(inside, Habits())
    assert isinstance(asked, Platform)
    assert throttle_of(asked) is inside.throttle
    assert lane(asked, ADA) == "TTCA_KEY_STRANGE"
    assert longest_attempt_s(asked) == 7.0
    bare = WithHabits(plain(), Habits())
    assert lane(bare, ADA) == ""
    assert longest_attempt_s(bare) == longest_attempt_s(plain()) == 600.0
    assert not hasattr(bare, "anything_else")


def test_habits_that_change_no_answer_leave_the_platform_who_it_is() -> None:
    """Kept answers are found again: without habits, and with those of time alone, the fingerprint is the model's."""
    assert Habits().parameters == NO_HABITS
    known = plain().info
    assert known.fingerprint == "200e28e6904487640029021bfb4be78ee2048c57a92d5b55a2c8ea610861d6e8"
    assert WithHabits(plain(), Habits(latency_s=1.0)).info == known
    assert WithHabits(Strange(), Habits()).info == Strange().info
    rounded = WithHabits(plain(), Habits(decimals=1))
    twice = WithHabits(WithHabits(plain(), Habits(decimals=2)), Habits(decimals=1))
    assert len({p.info.fingerprint for p in (plain(), rounded, twice)}) == 3


def test_habits_that_would_have_no_effect_are_refused() -> None:
    """Scores cannot be rounded, cut or disturbed where there are none."""
    for habits in (Habits(decimals=1), Habits(top_k=1), Habits(noise=0.1)):
        with pytest.raises(ConfigError, match="gives scores"):
            WithHabits(Strange(scores=False), habits)
    assert not WithHabits(Strange(scores=False), Habits(label_only=True)).info.gives_scores


def test_the_same_seed_fails_the_same_attempts_as_ever() -> None:
    """Which attempts fail is a matter of seed, images and history alone: the pattern is the one it always was."""
    asked = WithHabits(plain(), Habits(failure_rate=0.4, seed=5))
    fates = ""
    for i in range(120):
        try:
            say(asked, images(1, seed=i % 30))
            fates += "a"
        except TransportError as error:
            fates += "b" if error.status == 500 else "c"
    assert hashlib.sha256(fates.encode()).hexdigest()[:16] == "2b1f9ae19b42f7fe"


def test_it_says_in_one_line_what_it_is() -> None:
    """The platform, and the habits that are not the usual ones."""
    assert repr(WithHabits(plain(), Habits(decimals=1, seed=3))) == (
        "WithHabits(LocalPlatform('local', version '1', 4 classes, 4×5 pixels), Habits(decimals=1, seed=3))"
    )
