"""Tests of recipes: what they may choose, what a hand pins, and who is in a portfolio."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.blocks import check_block
from ttca.entering import check_left_out
from ttca.errors import ConfigError
from ttca.proxies.backbones import Backbone
from ttca.recipes import NAMED, NAMES, RECIPE_KEYS, Circumstances, Recipe, _all, completed, portfolio
from ttca.settings import Settings

AUTO = Settings(recipe="auto")
BACKBONES = tuple(
    Backbone(name=n, architecture="resnet32", source="", license="", digest=n * 64, path=f"{n}.safetensors")
    for n in "ab"
)
SIDES = st.sampled_from([8, 16, 28, 32, 48, 64, 96, 112, 128, 160, 224, 256, 299])
FOUND = st.builds(
    lambda h, w, **rest: Circumstances(shape=(h, w, 3), **rest),
    SIDES,
    SIDES,
    classes=st.integers(2, 1000),
    both_groups=st.booleans(),
    public=st.booleans(),
    backbones=st.sampled_from([(), BACKBONES[:1], BACKBONES]),
)


@given(FOUND)
def test_a_portfolio_has_eight_candidates_that_fit(found: Circumstances) -> None:
    """Whatever the platform: at least eight different candidates, one of which asks nothing, and blocks that divide."""
    recipes = portfolio(found, AUTO)
    assert len(recipes) >= 8
    assert not recipes[0].asks
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        settings = recipe.applied(AUTO)
        check_block(settings.block, found.shape)
        assert found.both_groups or not settings.equalize
        assert recipe.asks or settings.true_classes or found.public
    begun = [recipe for recipe in recipes if recipe.changes["weights"] != ("none",)]
    assert bool(begun) == bool(found.backbones)


@given(FOUND, st.booleans(), st.sampled_from([0.0, 0.1]), st.sampled_from(["margin", "cross-entropy"]))
def test_what_is_set_by_hand_holds_for_every_candidate(
    found: Circumstances, flip: bool, warp: float, loss: Any
) -> None:
    """A key that a user sets is every candidate's, with its default too; candidates that it leaves alike are one."""
    settings = Settings(recipe="auto", flip=flip, warp=warp, loss=loss, pinned=("flip", "warp", "loss"))
    applied = [(recipe.applied(settings), recipe.asks) for recipe in portfolio(found, settings)]
    assert {(a.flip, a.warp, a.loss) for a, _ in applied} == {(flip, warp, loss)}
    assert len({(asks, *(getattr(a, key) for key in RECIPE_KEYS)) for a, asks in applied}) == len(applied)


def test_words_say_what_a_hand_chose_instead() -> None:
    """One pinned network is not told as three networks together; a recipe that keeps what it chose is told as ever."""
    found = Circumstances(shape=(32, 32, 3), classes=10)
    pinned = replace(AUTO, architectures=("perceptron",))
    told = {recipe.name: (recipe.about, recipe.told(pinned)) for recipe in _all(found)}
    assert told["mixed"] == ("three networks together", "three networks together, with your own architectures")
    assert all(recipe.told(AUTO) == recipe.about for recipe in _all(found))


def test_what_is_left_out_does_not_race() -> None:
    """A recipe can be left out by its name; not all of them."""
    found = Circumstances(shape=(32, 32, 3), classes=10)
    names = [recipe.name for recipe in portfolio(found, AUTO)]
    kept = portfolio(found, Settings(recipe="auto", left_out=("small-pictures",)))
    assert [recipe.name for recipe in kept] == [name for name in names if name != "small-pictures"]
    with pytest.raises(ConfigError, match="not left out, got none"):
        portfolio(found, Settings(recipe="auto", left_out=tuple(names)))


def test_the_document_lists_every_recipe() -> None:
    """docs/recipes.md names all that race anywhere, the first ones first, and says of each what the code says."""
    found: dict[str, str] = {}
    for side in (32, 64, 224):
        for backbones in ((), BACKBONES):
            for recipe in _all(Circumstances(shape=(side, side, 3), classes=2, backbones=backbones)):
                # Each can be left out.
                check_left_out((recipe.name,), (side, side, 3))
                if recipe.name.startswith("block-"):
                    if recipe.changes["block"] > 1:
                        found["block-N"] = recipe.about.replace(str(recipe.changes["block"]), "N")
                else:
                    found[recipe.name] = recipe.about
    page = (Path(__file__).resolve().parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"(?m)^## The recipes$.*?((?:^\|.*\n)+)", page, re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?m)^\| `(.+?)` \| (.+?) \|$", table) == [(name, found[name]) for name in NAMES]
    assert found.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_recipe_is_settings(name: str) -> None:
    """Every named recipe can be applied, and what is set by hand stays."""
    applied = completed(Settings(recipe=name, epochs=7), (32, 32, 3), 500)
    assert applied.epochs == 7
    others = {k: v for k, v in NAMED[name].changes.items() if k != "epochs"}
    assert {k: getattr(applied, k) for k in others} == others
    assert applied.refine == 0


@pytest.mark.parametrize(("side", "share"), [(32, 0.0), (48, 0.2), (224, 0.2)])
def test_races_of_photographs_refine(side: int, share: float) -> None:
    """Where recipes race, δ is coarse and there are queries enough to judge it, a fifth of them refines it; what a hand
    wrote holds, and without a race there is none."""
    shape = (side, side, 3)
    assert completed(AUTO, shape, 500) == replace(AUTO, refine=share)
    assert completed(AUTO, shape, 119).refine == 0
    assert completed(replace(AUTO, refine=0.0), shape, 500).refine == 0
    assert completed(Settings(), shape, 500).refine == 0


@given(st.sampled_from(list(NAMED.values())))
def test_a_recipe_is_written_down_and_read(recipe: Recipe) -> None:
    """What a record of a race holds is the recipe again."""
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [("", {}, "small letters"), ("a b", {}, "small letters"), ("a", {"alpha": 0.1}, "to choose among")],
)
def test_a_recipe_that_chooses_what_is_not_its_own_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    """What is proved, and who is asked about what, no recipe decides."""
    with pytest.raises(ConfigError, match=said):
        Recipe(name=name, about="", changes=changes)
