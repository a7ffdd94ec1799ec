"""A platform that is sent JPEG files: its model sees what they leave, and the row says how much of δ that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.conditions import CONTROLS, HONEST_ROW, with_encoding
from ttca.lossy import jpeg
from ttca.platforms.base import Credential
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform


def test_in_process_the_model_sees_the_decoded_file() -> None:
    """What is answered is what the model says of the image as it comes back from a file of that quality."""
    asked, _ = worlds.draw(6, strength=4.0, seed=3)
    plain = LocalPlatform(worlds.model, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny")
    encoded = WithHabits(plain, Habits(jpeg_quality=40))
    said = encoded.attempt(asked, Credential("ada"), request_id="r")
    np.testing.assert_allclose(said.scores, worlds.model(jpeg(asked, quality=40)), atol=1e-6)
    assert encoded.info.jpeg_quality == 40
    assert encoded.info.fingerprint != plain.info.fingerprint
    assert WithHabits(plain, Habits(jpeg_quality=41)).info.fingerprint != encoded.info.fingerprint


def test_the_row_carries_what_the_platforms_own_encoding_does(tmp_path: Path) -> None:
    """Its quality is a control of its own, paid like the others, beside the share of δ that such a file leaves."""
    platform = Recorder(jpeg_quality=60)
    with open_action(tmp_path, platform) as action:
        row, measured = action.measure()
        paid = action.ledger.paid(action=action.settings.name)
        assert action.report().is_file()
        handed = action.handed_out()
    left, twice = row.extra["jpeg60_delta_left"], row.extra["jpeg60"]
    assert handed is not None
    assert (handed.evidence["jpeg_quality"], handed.evidence["jpeg_delta_left"]) == (60, left)
    assert 0.2 < left < 1.5
    assert twice == measured.rate("jpeg60")
    assert "jpeg60" in measured.outcomes
    assert row.queries_controls == paid["controls"]


def test_a_platform_that_gets_images_as_they_are_is_measured_as_before() -> None:
    """Nothing is added where nothing is encoded, or where our own control has that quality already."""
    assert with_encoding(HONEST_ROW, None) is HONEST_ROW
    assert with_encoding(HONEST_ROW, 75) is HONEST_ROW
    (added,) = set(with_encoding(HONEST_ROW, 90).all_controls()) - set(CONTROLS)
    assert (added.name, added.key) == ("jpeg90", None)
