"""Tests of the perturbation set: apply, the budget, and files that are not what they say."""

from __future__ import annotations

import json
import pickle
import stat
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save, save_file

from ttca.errors import ImageError, PerturbationError
from ttca.perturbations import FORMAT, PerturbationSet
from ttca.preparation import Preparation

SHAPE = (3, 4, 3)


def made(**changes: Any) -> PerturbationSet:
    """Return a set of two classes with ε = 8."""
    delta = np.random.default_rng(0).integers(-8, 9, (2, *SHAPE)).astype(np.int8)
    delta[0, 0, 0, 0] = 8
    facts: dict[str, Any] = {"delta": delta, "epsilon": 8, "classes": ("cat", "dog"), "subgroup": "bad camera"}
    return PerturbationSet(**{**facts, "fingerprint": "f" * 64, **changes})


def images(n: int) -> NDArray[np.uint8]:
    """Return n random images."""
    return np.random.default_rng(1).integers(0, 256, (n, *SHAPE)).astype(np.uint8)


# -- apply ------------------------------------------------------------------------------------------------------


@given(st.data())
def test_apply_is_the_formula(data: st.DataObject) -> None:
    """Every submitted level is clip(x + δ_c, 0, 255), as whole numbers of any size would give it."""
    epsilon = data.draw(st.integers(1, 127))
    n, classes = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3))
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), 3)
    delta = data.draw(hnp.arrays(np.int8, (classes, *shape), elements=st.integers(-epsilon, epsilon)))
    x = data.draw(hnp.arrays(np.uint8, (n, *shape)))
    chosen = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    before = x.copy()
    names = tuple(map(str, range(classes)))
    submitted = PerturbationSet(delta, epsilon, names, "s", "f").apply(x, chosen)
    assert submitted.dtype == np.uint8
    assert submitted.shape == x.shape
    for i, c in enumerate(chosen):
        for at in np.ndindex(shape):
            assert int(submitted[i][at]) == min(255, max(0, int(x[i][at]) + int(delta[c][at])))
    np.testing.assert_array_equal(x, before)


def test_levels_do_not_wrap_around() -> None:
    """White plus a positive δ stays white, black plus a negative one stays black."""
    delta = np.stack([np.full(SHAPE, 127, np.int8), np.full(SHAPE, -127, np.int8)])
    perturbations = made(delta=delta, epsilon=127)
    ends = np.stack([np.full(SHAPE, 255, np.uint8), np.zeros(SHAPE, np.uint8)])
    np.testing.assert_array_equal(perturbations.apply(ends, [0, 1]), ends)
    assert perturbations.apply(ends, [1, 0]).reshape(2, -1).tolist() == [[128] * 36, [127] * 36]


def test_one_class_for_all_images_will_do() -> None:
    """A single class number is used for every image."""
    np.testing.assert_array_equal(made().apply(images(3), 1), made().apply(images(3), np.array([1, 1, 1], np.uint8)))


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (2, r"class numbers in 0\.\.1, got \[2\]"),
        ([0, -1, 1], r"class numbers in 0\.\.1"),
        (2**63, r"class numbers in 0\.\.1"),
        ("owl", "one of 'cat', 'dog', got 'owl'"),
        (["cat", "owl", "cat"], "got 'owl'"),
        (["cat", "dog"], "one for each of 3 images"),
        ([0, 1], r"one for each of 3 images, got int64 of shape \(2,\)"),
        ([1], "one for each of 3 images"),
        ([[0], [1], [0]], "one for each of 3 images"),
        ([0.0, 1.7, 1.0], "whole class number"),
        (True, "whole class number"),
        ([], "one for each of 3 images"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes: Any, sentence: str) -> None:
    """A class out of range, of another type or not one per image raises; nothing is rounded or repeated."""
    with pytest.raises(PerturbationError, match=f"Expected .*{sentence}"):
        made().apply(images(3), classes)


@pytest.mark.parametrize("wrong", [images(2) / 255, images(2)[:, :2], images(2)[0, :2], images(2).astype(np.int16)])
def test_images_that_do_not_fit_are_refused(wrong: Any) -> None:
    """Images of another type or size raise."""
    with pytest.raises(ImageError):
        made().apply(wrong, 0)


def test_one_image_and_names_will_do() -> None:
    """One image comes back as one, and names count as their numbers, for one image and for many."""
    perturbations = made()
    every = perturbations.apply(images(3), [0, 1, 1])
    np.testing.assert_array_equal(perturbations.apply(images(3), ["cat", "DOG", "dog "]), every)
    np.testing.assert_array_equal(perturbations.apply(images(3)[1], "dog"), every[1])
    np.testing.assert_array_equal(perturbations.apply(images(3)[2], 1), every[2])
    with pytest.raises(PerturbationError, match="one class for one image, got 1 of them"):
        perturbations.apply(images(3)[0], ["cat"])


@given(st.data())
def test_any_image_goes_the_sets_way_and_stays_within_epsilon(data: st.DataObject) -> None:
    """Of any size, class and preparation, what is submitted is within ε of the prepared original, and within 0..255."""
    way = Preparation(size=SHAPE[:2], fit=data.draw(st.sampled_from(["crop", "pad", "squash"])))
    epsilon = data.draw(st.sampled_from([1, 8, 127]))
    delta = data.draw(hnp.arrays(np.int8, (2, *SHAPE), elements=st.integers(-epsilon, epsilon)))
    perturbations = made(delta=delta, epsilon=epsilon, preparation=way)
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3))
    pictures = [data.draw(hnp.arrays(np.uint8, (h, w, 3))) for h, w in sizes]
    names = [data.draw(st.sampled_from(perturbations.classes)) for _ in pictures]
    submitted = perturbations.apply(pictures, names)
    assert submitted.dtype == np.uint8
    for picture, name, got in zip(pictures, names, submitted, strict=True):
        moved = got.astype(int) - way.of(picture)
        assert np.abs(moved).max() <= epsilon
        np.testing.assert_array_equal(
            got, np.clip(way.of(picture).astype(int) + delta[perturbations.class_index(name)], 0, 255)
        )
        np.testing.assert_array_equal(perturbations.apply(picture, name), got)


def test_a_batch_of_another_size_needs_a_preparation() -> None:
    """With a preparation a whole array of larger images goes its way; without one it is refused, as a box is."""
    large = np.random.default_rng(2).integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    way = Preparation(size=SHAPE[:2])
    submitted = made(preparation=way).apply(large, 1)
    np.testing.assert_array_equal(submitted, made().apply(np.stack([way.of(one) for one in large]), 1))
    np.testing.assert_array_equal(made(preparation=way).apply(images(2), 1), made().apply(images(2), 1))
    with pytest.raises(ImageError, match="3×4 pixels"):
        made().apply(large, 1)
    with pytest.raises(ImageError, match="Expected no box"):
        made().prepared(images(1)[0], (0, 0, 1, 1))


def test_classes_that_a_set_leaves_as_they_are_are_named() -> None:
    """Whose δ is zero everywhere is told at the end, at most eight by name; nothing where all are alike."""
    assert made().about().endswith("No expiry date.")
    assert made(delta=np.zeros((2, *SHAPE), np.int8)).about().endswith("No expiry date.")
    one = made()
    one.delta[1] = 0
    assert one.about().endswith("No expiry date. It leaves this class as it is: dog.")
    many = np.zeros((11, *SHAPE), np.int8)
    many[0] = 1
    told = made(delta=many, classes=tuple("abcdefghijk")).about()
    assert told.endswith("It leaves these classes as they are: b, c, d, e, f, g, h, i and 2 more.")


def test_a_class_is_found_by_its_name() -> None:
    """class_index gives the number of a name, and names those there are when it does not know one."""
    assert made().class_index("dog") == 1
    with pytest.raises(PerturbationError, match="one of 'cat', 'dog', got 'owl'"):
        made().class_index("owl")


def test_the_budget_holds_even_when_the_array_was_written_to() -> None:
    """A δ changed after the checks moves no level by more than ε."""
    perturbations = made()
    perturbations.delta[...] = -128
    grey = np.full((1, *SHAPE), 200, np.uint8)
    assert np.unique(perturbations.apply(grey, 0)).tolist() == [192]


# -- what a set must be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilon": 7}, "≤ ε = 7 levels, got 8"),
        ({"epsilon": 127, "delta": np.full((2, *SHAPE), -128, np.int8)}, "≤ ε = 127 levels, got 128"),
        ({"epsilon": 0}, "got 0"),
        ({"epsilon": 128}, "got 128"),
        ({"epsilon": 8.0}, r"got 8\.0"),
        ({"epsilon": True}, "got True"),
        ({"epsilon": "8"}, "got '8'"),
        ({"delta": np.zeros((2, *SHAPE), np.int16)}, "got int16"),
        ({"delta": np.zeros((2, *SHAPE), np.float32)}, "got float32"),
        ({"delta": np.zeros((2, 3, 4, 1), np.int8)}, r"got int8 \(2, 3, 4, 1\)"),
        ({"delta": np.zeros(SHAPE, np.int8)}, "got int8"),
        ({"classes": ("cat",)}, "one δ per class name"),
        ({"classes": ("cat", "cat")}, "each name once"),
        ({"classes": ("cat", 1)}, "names as strings"),
        ({"expires": "soon"}, "ISO 8601, got 'soon'"),
        ({"expires": 2026}, "ISO 8601, got 2026"),
    ],
)
def test_a_set_that_breaks_its_own_word_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """A δ beyond ε (−128 has no absolute value in int8), a wrong type, shape, name or date raises."""
    with pytest.raises(PerturbationError, match=f"Expected .*{sentence}"):
        made(**changes)


def test_a_set_for_another_platform_or_budget_does_not_fit() -> None:
    """check_fits passes what was expected, and names both sides where it was not."""
    made().check_fits()
    made().check_fits(epsilon=8, fingerprint="f" * 64)
    with pytest.raises(PerturbationError, match="ε = 4, got one with ε = 8"):
        made().check_fits(epsilon=4)
    with pytest.raises(PerturbationError, match="platform gggggggggggg…, got one for ffffffffffff…"):
        made().check_fits(fingerprint="g" * 64)


@pytest.mark.parametrize("zone", [UTC, None])
def test_an_expired_set_does_not_fit(zone: Any) -> None:
    """A date in the past refuses and one in the future passes; a date without a zone is UTC."""
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    made(expires=(now + hour).replace(tzinfo=zone).isoformat()).check_fits()
    with pytest.raises(PerturbationError, match="expired on"):
        made(expires=(now - hour).replace(tzinfo=zone).isoformat()).check_fits()
    made(expires="9999-12-31").check_fits()
    known = made(expires=now.replace(tzinfo=zone).isoformat())
    assert f"Valid until {now:%Y-%m-%d}." in known.about(now)
    assert f"Expired on {now:%Y-%m-%d}." in known.about(now + hour)


# -- files ------------------------------------------------------------------------------------------------------


def test_a_file_brings_everything_back(tmp_path: Path) -> None:
    """Saving and loading gives every field again, and leaves nothing but the file, which others may read."""
    evidence = {"fidelity": 0.9, "certificate": {"lower": 0.7, "bounds": [1, 2]}, "name": "ünï"}
    saved = made(evidence=evidence, expires="2030-01-01", classes=("кошка", "dog"))
    saved.save(tmp_path / "set.v1.safetensors")
    loaded = PerturbationSet.load(str(tmp_path / "set.v1.safetensors"))
    np.testing.assert_array_equal(loaded.delta, saved.delta)
    for field in fields(PerturbationSet)[1:]:
        assert getattr(loaded, field.name) == getattr(saved, field.name)
    assert [p.name for p in tmp_path.iterdir()] == ["set.v1.safetensors"]
    assert stat.S_IMODE((tmp_path / "set.v1.safetensors").stat().st_mode) != 0o600


@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(-127, 127)))
def test_every_level_survives_the_file(tmp_path_factory: pytest.TempPathFactory, levels: NDArray[np.int8]) -> None:
    """δ comes back exactly, whatever its levels, shape and order in memory."""
    delta = np.asfortranarray(np.repeat(levels[..., None], 3, axis=3))
    path = tmp_path_factory.getbasetemp() / "levels.safetensors"
    PerturbationSet(delta, 127, tuple(map(str, range(len(delta)))), "s", "f").save(path)
    np.testing.assert_array_equal(PerturbationSet.load(path).delta, delta)


def test_saving_replaces_the_old_file_whole(tmp_path: Path) -> None:
    """A second save replaces the first one; one that fails leaves it as it was."""
    path = tmp_path / "set.safetensors"
    made().save(path)
    made(subgroup="other").save(path)
    with pytest.raises(PerturbationError, match="plain JSON values"):
        made(evidence={"abuse": np.float32(0.5)}).save(path)
    assert PerturbationSet.load(path).subgroup == "other"
    with pytest.raises(PerturbationError, match="Expected to write"):
        made().save(path / "below" / "a file")


def tampered(path: Path, *, delta: NDArray[Any] | None = None, **facts: Any) -> None:
    """Write a good file and then change what it holds, keeping it a sound safetensors file."""
    made().save(path)
    with safe_open(path, framework="numpy") as file:
        metadata, tensor = file.metadata(), file.get_tensor("delta")
    said = {**json.loads(metadata["facts"]), **facts}
    save_file({"delta": tensor if delta is None else delta}, path, metadata={**metadata, "facts": json.dumps(said)})


def _truncated(path: Path) -> None:
    made().save(path)
    path.write_bytes(path.read_bytes()[:-5])


def _header_only(path: Path) -> None:
    made().save(path)
    path.write_bytes(path.read_bytes()[:50])


def _without(fact: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made().save(path)
        with safe_open(path, framework="numpy") as file:
            metadata, delta = file.metadata(), file.get_tensor("delta")
        facts = json.loads(metadata["facts"])
        del facts[fact]
        save_file({"delta": delta}, path, metadata={**metadata, "facts": json.dumps(facts)})

    return write


def _facts(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        delta = made().delta
        save_file({"delta": delta}, path, metadata={"format": "ttca-perturbations-1", "facts": text})

    return write


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda p: tampered(p, delta=np.full((2, *SHAPE), 9, np.int8)), "≤ ε = 8 levels, got 9"),
        (lambda p: tampered(p, delta=np.full((2, *SHAPE), -128, np.int8)), "≤ ε = 8 levels, got 128"),
        (lambda p: tampered(p, epsilon=4), "≤ ε = 4 levels, got 8"),
        (lambda p: tampered(p, epsilon=8.0), r"got 8\.0"),
        (lambda p: tampered(p, epsilon=None), "got None"),
        (lambda p: tampered(p, delta=np.zeros((2, *SHAPE), np.float32)), "got float32"),
        (lambda p: tampered(p, delta=np.zeros((2, *SHAPE), np.uint8)), "got uint8"),
        (lambda p: tampered(p, delta=np.zeros((2, 4, 3, 3), np.int8)), r"stated shape \[3, 4, 3\]"),
        (lambda p: tampered(p, delta=np.zeros((3, *SHAPE), np.int8)), "one δ per class name"),
        (lambda p: tampered(p, image_shape=[9, 9, 3]), r"stated shape \[9, 9, 3\]"),
        (lambda p: tampered(p, classes="ab"), "list of class names"),
        (lambda p: tampered(p, classes=["a", 1]), "names as strings"),
        (lambda p: tampered(p, classes=[["a"], ["b"]]), "names as strings"),
        (lambda p: tampered(p, classes=None), "list of class names"),
        (lambda p: tampered(p, expires="whenever"), "ISO 8601"),
        (lambda p: tampered(p, evidence=5), "cannot be read"),
        (_without("epsilon"), "cannot be read"),
        (_without("image_shape"), "cannot be read"),
        (_without("evidence"), "cannot be read"),
        (_truncated, "cannot be read"),
        (_header_only, "cannot be read"),
        (_facts('{"epsilon": 8'), "cannot be read"),
        (_facts("[]"), "cannot be read"),
        (_facts("null"), "cannot be read"),
        (_facts("[" * 100_000), "cannot be read"),
        (lambda p: save_file({"delta": made().delta}, p), "format ttca-perturbations-1, got None"),
        (
            lambda p: save_file({"delta": made().delta}, p, metadata={"format": "ttca-perturbations-2"}),
            "or another version",
        ),
        (lambda p: save_file({"d": made().delta}, p, metadata={"format": "ttca-perturbations-1"}), "in the format"),
        (lambda p: save_file({"delta": made().delta}, p, metadata={"format": "ttca-perturbations-1"}), "be read"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: p.write_text("<html>Not found</html>"), "cannot be read"),
        (lambda p: p.mkdir(), "got no file"),
        (lambda p: None, "got no file"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_a_sentence(
    write: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    """A tampered, truncated, foreign or missing file raises a PerturbationError that says what is wrong with it."""
    path = tmp_path / "set.safetensors"
    write(path)
    with pytest.raises(PerturbationError, match=f"Expected .*{sentence}"):
        PerturbationSet.load(path)


class _Bomb:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle under the file's name is an error, and what it would run is not run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "set.safetensors"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(PerturbationError, match="cannot be read"):
        PerturbationSet.load(path)
    assert not Path("exploded").exists()


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_damage_gets_past_the_loader(tmp_path_factory: pytest.TempPathFactory, garbage: bytes, where: int) -> None:
    """Whatever bytes are written over a file, it loads within its budget or raises the one error."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    made().save(path)
    content = path.read_bytes()
    path.write_bytes(content[:where] + garbage + content[where + len(garbage) :])
    try:
        loaded = PerturbationSet.load(path)
    except PerturbationError:
        return
    assert int(np.abs(loaded.delta.astype(int)).max()) <= loaded.epsilon
    assert replace(loaded).apply(np.zeros((1, *loaded.image_shape), np.uint8), 0).max() <= loaded.epsilon


# -- two sets on one input ----------------------------------------------------------------------------------------


def pair(data: st.DataObject) -> tuple[PerturbationSet, PerturbationSet, Any]:
    """Draw two sets of one platform, and a way to combine them."""
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), 3)
    classes = data.draw(st.integers(1, 3))
    sets = []
    for name in ("bad camera", "slanted hand"):
        epsilon = data.draw(st.integers(1, 127))
        delta = data.draw(hnp.arrays(np.int8, (classes, *shape), elements=st.integers(-epsilon, epsilon)))
        sets.append(PerturbationSet(delta, epsilon, tuple(map(str, range(classes))), name, "f"))
    return sets[0], sets[1], data.draw(st.sampled_from(["sum", "scaled", "larger"]))


@given(st.data())
def test_a_combination_never_exceeds_the_joint_budget(data: st.DataObject) -> None:
    """Whatever is combined, in whatever way, no level exceeds the joint ε, which is the larger one if none is given."""
    one, other, how = pair(data)
    joint = data.draw(st.none() | st.integers(1, 127))
    both = one.combine(other, epsilon=joint, how=how)
    assert both.epsilon == (max(one.epsilon, other.epsilon) if joint is None else joint)
    assert np.abs(both.delta.astype(int)).max() <= both.epsilon


@given(st.data())
def test_the_order_of_two_sets_is_nothing(data: st.DataObject) -> None:
    """A with B is B with A: δ, budget, names and evidence."""
    one, other, how = pair(data)
    there, back = one.combine(other, how=how), other.combine(one, how=how)
    np.testing.assert_array_equal(there.delta, back.delta)
    for name in ("epsilon", "classes", "subgroup", "fingerprint", "expires", "evidence"):
        assert getattr(there, name) == getattr(back, name)


@given(st.data())
def test_nothing_adds_nothing(data: st.DataObject) -> None:
    """A set combined with one of zeros keeps its δ, as far as the joint ε allows."""
    one, other, how = pair(data)
    zero = replace(other, delta=np.zeros_like(one.delta))
    np.testing.assert_array_equal(one.combine(zero, how=how).delta, one.delta)
    joint = data.draw(st.integers(1, 127))
    for way in ("sum", "larger"):
        kept = one.combine(zero, epsilon=joint, how=way).delta
        np.testing.assert_array_equal(kept, np.clip(one.delta, -joint, joint))


@given(st.data())
def test_turned_round_a_combination_turns_round(data: st.DataObject) -> None:
    """−A with −B is −(A with B): no way to combine, and no rounding, favours a sign."""
    one, other, how = pair(data)
    turned = replace(one, delta=-one.delta).combine(replace(other, delta=-other.delta), how=how)
    np.testing.assert_array_equal(turned.delta, -one.combine(other, how=how).delta)


def test_the_three_ways_are_what_they_say() -> None:
    """Each way gives the levels of its definition, worked out by hand."""
    row = np.array([[8, 8, 8, -8, 3, 2, 0]])

    def of(levels: list[int]) -> PerturbationSet:
        delta = np.array(levels, np.int8).reshape(1, 7, 1, 1).repeat(3, axis=3)
        return PerturbationSet(delta, 8, ("a",), "s", "f")

    one, other = of(row[0].tolist()), of([8, -8, 1, -2, 2, 2, -5])
    ways: dict[Any, list[int]] = {
        "sum": [8, 0, 8, -8, 5, 4, -5],
        # 16, 0, 9, −10, 5, 4, −5 halved; 4.5 and ±2.5 go to the even level.
        "scaled": [8, 0, 4, -5, 2, 2, -2],
        "larger": [8, 0, 8, -8, 3, 2, -5],
    }
    for how, levels in ways.items():
        assert one.combine(other, how=how).delta[0, :, 0, 0].tolist() == levels


def test_a_combination_is_certified_by_nobody() -> None:
    """What was measured about either part is left behind; both are named."""
    proved = {"certificate": {"quoted_epsilon": 8}, "abuse_rate": 0.1}
    one = made(evidence=proved)
    other = made(subgroup="slanted hand", epsilon=12, evidence=proved)
    both = one.combine(other)
    assert both.evidence["combined"] == "larger"
    assert [(p["subgroup"], p["epsilon"]) for p in both.evidence["parts"]] == [("bad camera", 8), ("slanted hand", 12)]
    assert "certificate" not in json.dumps(both.evidence)
    assert both.subgroup == "bad camera and slanted hand"
    assert one.combine(one).subgroup == "bad camera"


def test_a_combination_ends_with_the_first_of_its_parts(tmp_path: Path) -> None:
    """The earlier date holds, compared as moments and not as text; a part without one sets none. Files keep it."""
    soon, late = "2031-01-01T00:00:00+02:00", "2030-12-31T23:00:00+00:00"
    assert made(expires=late).combine(made(expires=soon)).expires == soon
    assert made().combine(made(expires=late)).expires == late
    assert made().combine(made()).expires is None
    both = made(expires=late).combine(made(subgroup="other"), how="scaled")
    both.save(tmp_path / "both.safetensors")
    again = PerturbationSet.load(tmp_path / "both.safetensors")
    np.testing.assert_array_equal(again.delta, both.delta)
    assert (again.evidence, again.expires) == (both.evidence, late)


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"fingerprint": "e" * 64}, {}, "for one platform"),
        ({"classes": ("dog", "cat")}, {}, "same classes in the same order"),
        ({"delta": np.zeros((2, 5, 4, 3), np.int8)}, {}, "images of the same size"),
        ({}, {"epsilon": 0}, r"joint ε as a whole number of levels in 1\.\.127, got 0"),
        ({}, {"epsilon": 128}, "joint ε"),
        ({}, {"epsilon": True}, "joint ε"),
        ({}, {"epsilon": 8.0}, "joint ε"),
        ({}, {"how": "mean"}, "way to combine to be one of"),
    ],
)
def test_sets_that_do_not_fit_are_not_combined(changes: Any, options: Any, sentence: str) -> None:
    """Another platform, class order or size, a budget out of range and an unknown way are sentences."""
    with pytest.raises(PerturbationError, match=f"Expected .*{sentence}"):
        made().combine(made(**changes), **options)


def test_a_preparation_is_kept_in_the_file_and_fits_it(tmp_path: Path) -> None:
    """It is read back; one to another size, or that nobody knows, is a sentence; a file without one says no word."""
    way = Preparation(size=SHAPE[:2], fit="pad")
    known = made(preparation=way)
    known.save(tmp_path / "p.safetensors")
    assert PerturbationSet.load(tmp_path / "p.safetensors") == known
    with pytest.raises(PerturbationError, match="Expected a preparation to the size of δ"):
        made(preparation=Preparation(size=9))
    with pytest.raises(PerturbationError, match="prepared alike"):
        known.combine(made())
    assert known.combine(known).preparation == way
    facts = json.loads(load_metadata(tmp_path / "p.safetensors")["facts"])
    facts["preparation"]["filter"] = "bicubic"
    content = save({"delta": known.delta}, metadata={"format": FORMAT, "facts": json.dumps(facts)})
    (tmp_path / "q.safetensors").write_bytes(content)
    with pytest.raises(PerturbationError, match="Expected filter of a preparation to be one of 'area-lanczos'"):
        PerturbationSet.load(tmp_path / "q.safetensors")
    made().save(tmp_path / "old.safetensors")
    assert "preparation" not in load_metadata(tmp_path / "old.safetensors")["facts"]


def load_metadata(path: Path) -> dict[str, str]:
    """Return the words of a file."""
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


def test_a_class_that_differs_by_case_alone_is_that_class() -> None:
    """`CAT` is cat; where two classes differ by case alone, only the exact name will do."""
    assert made().class_index("CAT") == 0
    twin = made(classes=("a", "A"))
    assert (twin.class_index("a"), twin.class_index("A ")) == (0, 1)
    with pytest.raises(PerturbationError, match="Expected the class to be one of"):
        made().class_index("ca")
