"""Tests that each step runs from its inputs alone: a value of the step before, and no action around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.answers import Answers
from ttca.asking import Known, Questions, ask_pool
from ttca.controls import Pupils, Twin, learn_controls
from ttca.distilling import distil
from ttca.images import Images
from ttca.measuring import Examination, Story, examine, row_of
from ttca.perturbations import PerturbationSet
from ttca.perturbing import perturb
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import QueryPool
from ttca.progress import silent
from ttca.sanity import Overruling
from ttca.verifying import MEMBERS_FILE, hand_out, verify
from ttca.workshop import Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    """Return what every step works with, in an empty folder."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        queries = QueryPool(Recorder(), ledger, worlds.members(), action="action")
        yield Workshop(tmp_path, worlds.settings(), queries, silent)


def overruling(shop: Workshop) -> Overruling:
    """Return that nobody goes on where answers do not fit."""
    return Overruling(shop.folder, shop.info, anyway=False)


def test_the_steps_alone_give_what_the_action_gives(shop: Workshop, tmp_path: Path) -> None:
    """Called one after the other, each with what the one before returned, the steps end with the action's own row."""
    roster, settings, shape = worlds.roster(), shop.settings, shop.info.image_shape
    questions = Questions.of(roster, settings)
    known = Known.of(roster, settings, shape, public=None, views=None)
    transfer = ask_pool(shop.queries, questions, equalized=False, overruling=overruling(shop))
    distilled = distil(shop, known, questions, transfer)
    family = perturb(shop, roster, known, questions, distilled)
    verified = verify(shop, roster.verification, family, transfer.digest)
    certified = hand_out(shop, family, verified)
    assert certified is not None
    epsilon = verified.certificate.quoted_epsilon

    def never(_images: Images, _owners: list[str]) -> Answers:
        raise AssertionError("with one training length alone nobody is asked")

    pupils = Pupils(roster.pool, known, questions, questions.selection, never)
    controls = learn_controls(Twin(shop, pupils, distilled), family, epsilon)
    exam = Examination(verified.panel.first(settings.controls_people), shop.queries, "controls", verified.epoch)
    measured = examine(shop, exam, distilled, family, epsilon, controls)
    epochs = controls.zero_query_epochs
    story = Story(known, distilled, family, verified.certificate, measured, epochs)
    row = row_of(shop, story, epsilon, track=None, began=0.0)
    with open_action(tmp_path / "whole", Recorder()) as action:
        whole, _ = action.measure()
        assert np.array_equal(action.learn()[epsilon].delta, family.sets[epsilon].delta)
    clocks = {"seconds", "seconds_distil", "seconds_learn", "peak_rss_mb"}
    assert {k: v for k, v in row.to_dict().items() if k not in clocks} == {
        k: v for k, v in whole.to_dict().items() if k not in clocks
    }
    assert PerturbationSet.load(tmp_path / MEMBERS_FILE).epsilon == epsilon


def test_a_step_asks_for_nothing_that_it_is_handed(shop: Workshop) -> None:
    """Distilling and perturbing from a transfer set at hand send no query."""
    roster, settings = worlds.roster(), shop.settings
    questions = Questions.of(roster, settings)
    known = Known.of(roster, settings, shop.info.image_shape, public=None, views=None)
    transfer = ask_pool(shop.queries, questions, equalized=False, overruling=overruling(shop))
    platform = shop.queries.platform
    assert isinstance(platform, Recorder)
    before = platform.queries
    perturb(shop, roster, known, questions, distil(shop, known, questions, transfer))
    assert platform.queries == before == 205
