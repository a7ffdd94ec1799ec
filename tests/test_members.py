"""Tests of what a member does alone: one image, one class, one lossless file, and nothing when something is wrong."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from safetensors.numpy import save

from tests import worlds
from tests.examples import examples
from ttca.errors import ImageError, PerturbationError, TTCAError
from ttca.images import Images
from ttca.members import AppliedPhoto, Output, apply_photos, find_photos, preview, with_classes
from ttca.members_set import check_usable, read_set
from ttca.perturbations import FORMAT, PerturbationSet
from ttca.preparation import Preparation
from ttca.publishing import publish_page
from ttca.signing import CollectiveKey, SignatureError, Signed, signature_file, unsigned

CLASSES = ("cat", "dog")
DELTA = np.random.default_rng(0).integers(-8, 9, (2, 5, 4, 3)).astype(np.int8)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with a perturbation file and an image."""
    chosen().save(tmp_path / "delta.safetensors")
    Image.fromarray(picture()).save(tmp_path / "me.png")
    return tmp_path


def certificate(right: int = 99, epsilon: int = 8) -> dict[str, Any]:
    """Return the certificate of an ε that was answered rightly so many times of a hundred."""
    return worlds.certified(right, epsilon=epsilon).to_dict()


def chosen(**changes: Any) -> PerturbationSet:
    """Return a certified set for two classes of 5×4 images."""
    evidence = {"certificate": certificate(), "verified": "2026-11-01T00:00:00+00:00"}
    known = PerturbationSet(
        DELTA, 8, CLASSES, "people in fog", "f" * 64, service="faces at api.example", evidence=evidence
    )
    return replace(known, **changes)


def picture(height: int = 5, width: int = 4) -> Images:
    """Return one image with values at both ends of the scale."""
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image[0], image[1] = 0, 255
    return image


def apply(home: Path, **changes: Any) -> dict[str, Any]:
    """Apply the file to the image, as the command does; ``changes`` replace what is given."""
    given_: dict[str, Any] = {"image": home / "me.png", "true_class": "dog", "out": home / "out.png", **changes}
    known = read_set(home / "delta.safetensors", key=given_.get("key"))
    check_usable(known, epsilon=given_.get("epsilon"), anyway=given_.get("anyway", False))
    photos, _ = find_photos([given_["image"]], true_class=given_["true_class"], box=given_.get("box"))
    output = Output(place=given_["out"], force=True)
    (done,) = apply_photos(known.perturbations, with_classes(photos, known.perturbations), output)
    if done.state == "refused":
        raise ImageError(f"{done.source}: {done.problem}")
    return {**done.to_dict(), "about": known.lines()[0], "signature": known.signed.told, "signed_by": known.signed.key}


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(np.uint8, (5, 4, 3)), st.sampled_from(CLASSES))
def test_the_file_is_the_clipped_sum(home: Path, image: Images, name: str) -> None:
    """The PNG holds exactly clip(x + δ of the true class), and the facts say how much that changed."""
    Image.fromarray(image).save(home / "me.png")
    facts = apply(home, true_class=name)
    written = np.asarray(Image.open(home / "out.png"))
    expected = np.clip(image.astype(int) + DELTA[CLASSES.index(name)].astype(int), 0, 255)
    assert np.array_equal(written, expected)
    left, state = facts.pop("left_by_jpeg"), facts.pop("state")
    assert left is None or -1 < left < 2
    assert state in ("applied", "kept")
    assert facts == {
        "source": str(home / "me.png"),
        "out": str(home / "out.png"),
        "preview": "",
        "about": chosen().about(),
        "signed_by": None,
        "signature": Signed(None, missing=unsigned(home / "delta.safetensors", "perturbations")).told,
        "true_class": name,
        "prepared": [],
        "renamed": "",
        "values": 60,
        "values_changed": int((expected != image).sum()),
        "largest_change": int(np.abs(expected - image).max()),
        "sha256": hashlib.sha256((home / "out.png").read_bytes()).hexdigest(),
        "problem": "",
    }
    assert json.loads(json.dumps(facts)) == facts


def test_the_class_may_be_spelled_in_two_ways(home: Path) -> None:
    """A class name composed or decomposed, with a space behind it or not, is the same class; others are refused."""
    chosen(classes=("dog", "Zo\u00eb")).save(home / "delta.safetensors")
    images = []
    for spelling in ("Zo\u00eb", "Zoe\u0308", " Zo\u00eb "):
        apply(home, true_class=spelling)
        images.append((home / "out.png").read_bytes())
    assert images[0] == images[1] == images[2]
    with pytest.raises(PerturbationError, match="Zoe'"):
        apply(home, true_class="Zoe")
    chosen(classes=("Zoe\u0308", "Zo\u00eb")).save(home / "delta.safetensors")
    assert apply(home, true_class="Zo\u00eb")["true_class"] == "Zo\u00eb"
    with pytest.raises(PerturbationError, match="one of 'Zo"):
        apply(home, true_class="Zo\u00eb ")


def test_a_phone_s_picture_is_applied(home: Path) -> None:
    """A JPEG with a preview behind it is the photograph that every viewer shows."""
    shown = Image.fromarray(picture())
    shown.save(home / "me.jpg", "MPO", save_all=True, append_images=[shown.resize((2, 2))])
    with Image.open(home / "me.jpg") as photograph:
        assert photograph.format == "MPO"
        before = np.asarray(photograph).astype(int)
    apply(home, image=home / "me.jpg")
    assert np.array_equal(np.asarray(Image.open(home / "out.png")), np.clip(before + DELTA[1], 0, 255))


def test_a_grey_image_is_applied_in_colour(home: Path) -> None:
    """A grey image becomes RGB of the same levels before δ is added."""
    Image.fromarray(picture()[..., 0]).save(home / "me.png")
    apply(home)
    grey = np.repeat(picture()[..., :1], 3, axis=-1).astype(int)
    assert np.array_equal(np.asarray(Image.open(home / "out.png")), np.clip(grey + DELTA[1], 0, 255))


def test_folders_on_the_way_are_made(home: Path) -> None:
    """The place to write to need not exist."""
    apply(home, out=home / "a" / "b" / "OUT.PNG")
    assert (home / "a" / "b" / "OUT.PNG").is_file()


def lying(delta: np.ndarray[Any, Any], epsilon: int) -> bytes:
    """Return a perturbation file that states a budget its δ does not keep."""
    facts = {
        "epsilon": epsilon,
        "classes": CLASSES,
        "subgroup": "subgroup",
        "image_shape": delta.shape[1:],
        "fingerprint": "f",
        "created": "2026-01-01T00:00:00+00:00",
        "expires": None,
        "evidence": {},
        "signature": None,
    }
    return save({"delta": delta}, metadata={"format": FORMAT, "facts": json.dumps(facts)})


def spoil(home: Path, how: str) -> dict[str, Any]:
    """Spoil one thing and return what else to give."""
    path, image = home / "delta.safetensors", home / "me.png"
    if how == "another epsilon":
        return {"epsilon": 4}
    if how == "own budget exceeded":
        path.write_bytes(lying(DELTA, 4))
    elif how == "expired":
        chosen(expires=(datetime.now(UTC) - timedelta(days=1)).isoformat()).save(path)
    elif how == "not certified":
        chosen(evidence={}).save(path)
    elif how == "failed":
        chosen(evidence={"certificate": certificate(right=50)}).save(path)
    elif how == "certified at another epsilon":
        chosen(evidence={"certificate": certificate(epsilon=16)}).save(path)
    elif how == "certificate contradicts itself":
        lie = certificate(right=50)
        chosen(evidence={"certificate": {**lie, "epsilon": 8, "parity_certified": True}}).save(path)
    elif how == "no perturbations":
        path.unlink()
    elif how == "damaged perturbations":
        path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    elif how == "unknown class":
        return {"true_class": "bird"}
    elif how == "jpeg out":
        return {"out": home / "out.jpg"}
    elif how == "no image":
        image.unlink()
    elif how == "image is a folder":
        (home / "empty").mkdir()
        return {"image": home / "empty"}
    elif how == "image is text":
        image.write_text("not an image")
    elif how == "half an image":
        image.write_bytes(image.read_bytes()[:40])
    elif how == "wrong size":
        Image.fromarray(picture(4, 5)).save(image)
    elif how == "transparent":
        Image.fromarray(np.dstack([picture(), picture()[..., 0]])).save(image)
    elif how == "out in a file":
        return {"out": image / "out.png"}
    return {}


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("another epsilon", PerturbationError, "ε = 4, got one with ε = 8"),
        ("own budget exceeded", PerturbationError, "≤ ε = 4 levels, got 8"),
        ("expired", PerturbationError, "expired on"),
        ("not certified", PerturbationError, "without a certificate"),
        ("failed", PerturbationError, "whose certificate failed"),
        ("certified at another epsilon", PerturbationError, "a certificate for ε = 16"),
        ("certificate contradicts itself", PerturbationError, "contradicts itself"),
        ("no perturbations", PerturbationError, "delta.safetensors"),
        ("damaged perturbations", PerturbationError, "delta.safetensors"),
        ("unknown class", PerturbationError, "'cat', 'dog', got 'bird'"),
        ("jpeg out", ImageError, "ending in .png"),
        ("no image", ImageError, "me.png"),
        ("image is a folder", TTCAError, "Expected photographs in"),
        ("image is text", ImageError, "me.png"),
        ("half an image", ImageError, "me.png"),
        ("wrong size", ImageError, "5×4 pixels (height×width), got 4×5"),
        ("transparent", ImageError, "transparency"),
        ("out in a file", ImageError, "out.png"),
    ],
)
def test_whatever_is_wrong_is_a_sentence_and_nothing_is_written(
    home: Path, how: str, error: type[TTCAError], sentence: str
) -> None:
    """A file, class, image or place that does not fit is named in a sentence, and no file appears or changes."""
    more = spoil(home, how)
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with pytest.raises(error) as caught:
        apply(home, **more)
    assert sentence in str(caught.value)
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("how", ["not certified", "failed", "certified at another epsilon", "expired"])
def test_who_insists_gets_what_was_not_certified(home: Path, how: str) -> None:
    """With `anyway` a set that is not certified or has expired is applied, and what it lacks is said."""
    spoil(home, how)
    said = apply(home, anyway=True)["about"]
    assert (home / "out.png").is_file()
    assert ("Not certified" in said) == (how != "expired")


def test_whose_file_it_is_is_said_and_held(home: Path) -> None:
    """With the collective's key only its file is applied; without one the signature is told, for what it is."""
    path = home / "delta.safetensors"
    collective, stranger = (CollectiveKey.open_or_make(home / name) for name in ("collective", "stranger"))
    with pytest.raises(SignatureError, match="got none"):
        apply(home, key=collective.public)
    stranger.sign(path, "perturbations")
    with pytest.raises(SignatureError, match="Another collective wrote it"):
        apply(home, key=collective.public)
    assert not (home / "out.png").exists()
    assert "another key than the collective's" in apply(home, key=collective.public, anyway=True)["signature"]
    collective.sign(path, "perturbations")
    assert apply(home)["signature"] == Signed(collective.public).told
    facts = apply(home, key=collective.public)
    assert facts["signed_by"] == collective.public
    assert facts["signature"] == f"Signed with the collective's key, {collective.public}."
    with pytest.raises(SignatureError, match="public key"):
        apply(home, key="ttca-ed25519:mine", anyway=True)


@pytest.mark.parametrize(
    ("name", "beside", "said"),
    [
        ("delta.safetensors", None, "Get both files from the collective."),
        ("delta (1).safetensors", "delta.safetensors.sig", "and is its signature: rename that to"),
        ("delta.safetensors", "delta.safetensors (1).sig", "and is its signature: rename that to"),
        ("delta.safetensors", "delta.safetensors.sig.txt", "and is its signature: rename that to"),
        ("delta.safetensors", "other.safetensors.sig", "and does not fit: it is another file's"),
    ],
)
def test_where_no_signature_lies_it_is_said_which_was_looked_for(
    tmp_path: Path, name: str, beside: str | None, said: str
) -> None:
    """The file looked for is named, and one that fits under another name, which is not taken by itself."""
    key = CollectiveKey.open_or_make(tmp_path / "collective")
    chosen().save(tmp_path / name)
    if beside is not None:
        signed = tmp_path / "collective" / "signed.safetensors"
        replace(chosen(), subgroup="others" if "other" in beside else chosen().subgroup).save(signed)
        if "other" not in beside:
            # A set says when it was made.
            signed.write_bytes((tmp_path / name).read_bytes())
        key.sign(signed, "perturbations").rename(tmp_path / beside)
    known = read_set(tmp_path / name)
    assert known.signed.key is None
    assert f"Looked for {name}.sig beside it." in known.signed.told
    assert said in known.signed.told
    assert (repr(beside) in known.signed.told) == (beside is not None)
    with pytest.raises(SignatureError, match=r"written the file\. Looked for") as refused:
        check_usable(read_set(tmp_path / name, key=key.public))
    assert said in str(refused.value)
    with pytest.raises(SignatureError, match="Looked for"):
        publish_page(tmp_path / name, tmp_path / "page.html")


@pytest.mark.parametrize("spoilt", ["the file", "the signature", "the file, as a good set"])
def test_a_changed_file_is_never_applied(home: Path, spoilt: str) -> None:
    """What is not what was signed is refused, whoever insists, and nothing is written."""
    path = home / "delta.safetensors"
    key = CollectiveKey.open_or_make(home / "collective")
    key.sign(path, "perturbations")
    if spoilt == "the file":
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    elif spoilt == "the signature":
        said = signature_file(path).read_text()
        signature_file(path).write_text(said.replace("Ed25519", "Ed448"))
    else:
        chosen(subgroup="people who were not asked").save(path)
    for more in ({}, {"anyway": True}, {"anyway": True, "key": key.public}):
        with pytest.raises(SignatureError, match="Get both files again"):
            apply(home, **more)
    assert not (home / "out.png").exists()


def test_one_sentence_says_for_whom_on_what_and_what_was_proved(home: Path) -> None:
    """Applying says in plain words whom the set is for, the service, what was shown on which day, and until when."""
    chosen(expires="2099-02-03T00:00:00+00:00").save(home / "delta.safetensors")
    answers = certificate()["tests"][0]["answers"]
    right, asked = answers.count("1"), len(answers)
    assert apply(home)["about"] == (
        "Made for people in fog, on faces at api.example. Certified on 2026-11-01: with it, their answers are right at "
        "least as often as those of the people they are compared with "
        f"({right} of the {asked} people asked got a right answer). Valid until 2099-02-03."
    )
    assert "does not name" in chosen(service="").about()
    assert "No expiry date." in chosen().about()


def test_the_right_epsilon_is_accepted(home: Path) -> None:
    """Saying the ε that the file has changes nothing."""
    assert {**apply(home, epsilon=8), "state": "kept"} == apply(home)


def test_the_members_own_picture_is_never_overwritten(home: Path) -> None:
    """Naming the input as the output is refused, and the picture stays as it was."""
    before = (home / "me.png").read_bytes()
    with pytest.raises(ImageError, match="Expected an output file other than the input"):
        apply(home, out=home / "me.png")
    assert (home / "me.png").read_bytes() == before


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_photograph_of_any_size_goes_the_way_of_those_who_were_asked(home: Path, fit: Any) -> None:
    """A turned JPEG with metadata becomes exactly what the action sent, moved by δ, and what was done is told."""
    way = Preparation(size=(5, 4), fit=fit)
    chosen(preparation=way).save(home / "delta.safetensors")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    Image.fromarray(picture(300, 200)).save(home / "me.jpg", exif=exif)
    with Image.open(home / "me.jpg") as stored:
        upright = np.rot90(np.asarray(stored), -1)
    facts = apply(home, image=home / "me.jpg", true_class="DOG")
    with Image.open(home / "out.png") as made:
        assert not made.info
        written = np.asarray(made)
    expected = np.clip(way.of(upright).astype(np.int16) + DELTA[1], 0, 255)
    np.testing.assert_array_equal(written, expected)
    assert facts["prepared"] == ["turned (EXIF 6)", f"{fit} to 4×5"]
    box = (3, 4, 50, 60)
    apply(home, image=home / "me.jpg", box=box)
    expected = np.clip(way.of(upright, box).astype(np.int16) + DELTA[1], 0, 255)
    with Image.open(home / "out.png") as made:
        np.testing.assert_array_equal(np.asarray(made), expected)
    with pytest.raises(ImageError, match=r"me\.jpg: Expected a box"):
        apply(home, image=home / "me.jpg", out=home / "new.png", box=(900, 0, 5, 5))
    assert not (home / "new.png").exists()


def test_a_box_needs_a_preparation(home: Path) -> None:
    """A set that says nothing of photographs cuts nothing."""
    with pytest.raises(ImageError, match="Expected no box, got one"):
        apply(home, out=home / "new.png", box=(0, 0, 5, 5))


# -- many photographs -------------------------------------------------------------------------------------------


def album(home: Path) -> Path:
    """Write a set with a preparation, and a folder of photographs with odd names; return the folder."""
    chosen(preparation=Preparation(size=(5, 4))).save(home / "delta.safetensors")
    folder = home / "album"
    names = ("a.jpg", "A.PNG", "sub/CON.jpg", "sub/12:30?.webp", "b .bmp", "b..bmp")
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(30 + number, 20)).save(folder / name)
    (folder / "notes.txt").write_text("no photograph")
    return folder


def run(home: Path, *places: Path, output: Output, **how: Any) -> list[AppliedPhoto]:
    """Apply the set to photographs, whose class is ``dog`` where nothing else says."""
    known = PerturbationSet.load(home / "delta.safetensors")
    photos, _ = find_photos(places, **{"true_class": "dog", **how})
    return apply_photos(known, with_classes(photos, known), output)


def test_a_folder_gets_a_file_each_under_names_that_every_system_holds(home: Path) -> None:
    """Every photograph of a folder gets one PNG, none twice, with names Windows can hold, and what changed is told."""
    folder = album(home)
    done = run(home, folder, folder / "a.jpg", output=Output(place=home / "out"))
    assert [one.state for one in done] == ["applied"] * 6
    made = sorted(path.relative_to(home / "out").as_posix() for path in (home / "out").rglob("*.png"))
    assert made == ["A.png", "a.jpg.png", "b .bmp.png", "b..bmp.png", "sub/12_30_.png", "sub/_CON.png"]
    assert {Path(one.source).name: one.renamed for one in done if one.renamed} == {
        "CON.jpg": "_CON.png",
        "12:30?.webp": "12_30_.png",
        "b .bmp": "b .bmp.png",
        "b..bmp": "b..bmp.png",
    }
    assert all("named " in one.told() for one in done if one.renamed)
    _, others = find_photos([folder])
    assert others == [(folder / "notes.txt").as_posix()]
    assert [one.state for one in run(home, folder, output=Output(place=home / "out"))] == ["kept"] * 6


def test_a_file_keeps_its_name_when_the_album_grows(home: Path) -> None:
    """What was written for a photograph is found again under its name, whatever photographs of like names come later;
    only what was alone with its name may have to give it to a PNG."""
    folder = album(home)
    output = Output(place=home / "out")
    before = {one.source: one.out for one in run(home, folder, output=output)}
    for number, name in enumerate(("a.webp", "A.jfif", "b.png", "C.jpg")):
        Image.fromarray(picture(60 + number, 20)).save(folder / name, format="PNG")
    done = {one.source: one for one in run(home, folder, output=output)}
    assert {source: done[source].out for source in before} == before
    assert {done[source].state for source in before} == {"kept"}
    assert {Path(one.source).name: Path(one.out).name for one in done.values() if one.source not in before} == {
        "a.webp": "a.webp.png", "A.jfif": "A.jfif.png", "b.png": "b.png", "C.jpg": "C.png",
    }  # fmt: skip


def test_nothing_is_overwritten_unasked(home: Path) -> None:
    """A file that holds something else stays, and its photograph is refused, until it is forced."""
    folder = album(home)
    (home / "out").mkdir()
    (home / "out" / "A.png").write_text("mine")
    done = {one.source: one for one in run(home, folder, output=Output(place=home / "out"))}
    refused = done[str(folder / "A.PNG")]
    assert (refused.state, refused.out) == ("refused", "")
    assert "overwrite it with --force" in refused.told()
    assert (home / "out" / "A.png").read_text() == "mine"
    assert sum(one.state == "applied" for one in done.values()) == 5
    done = {one.source: one for one in run(home, folder, output=Output(place=home / "out", force=True))}
    assert done[str(folder / "A.PNG")].state == "applied"


def test_no_photograph_is_ever_written_over(home: Path) -> None:
    """Not even with force does a new file, or a preview, take the place of a photograph that is applied."""
    photo = home / "me-preview.png"
    photo.write_bytes((home / "me.png").read_bytes())
    before = {path: path.read_bytes() for path in (home / "me.png", photo)}
    for places, place in (([photo, home / "me.png"], home), ([photo], home)):
        with pytest.raises(ImageError, match="The input would be lost"):
            run(home, *places, output=Output(place=place, preview=True, force=True))
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(TTCAError, match="Expected --out outside"):
        Output(place=home / "out").check_outside([home])


def test_a_table_says_classes_and_boxes(home: Path) -> None:
    """Each file gets the δ of its line's class, cut to its box; a table of other files leaves the class open."""
    folder = album(home)
    (folder / "mine.csv").write_text("File;Class;Box\na.jpg;CAT;1,2,10,10\nsub/CON.jpg;dog;\n", encoding="utf-8-sig")
    done = run(home, output=Output(place=home / "out"), table=folder / "mine.csv", true_class=None)
    assert [(one.true_class, one.prepared) for one in done] == [
        ("cat", ("box 1,2,10,10", "crop to 4×5")),
        ("dog", ("crop to 4×5",)),
    ]
    known = PerturbationSet.load(home / "delta.safetensors")
    with Image.open(folder / "a.jpg") as photo, Image.open(home / "out" / "a.png") as made:
        want = known.apply(known.prepared(np.asarray(photo), (1, 2, 10, 10)), "cat")
        np.testing.assert_array_equal(np.asarray(made), want)
    (folder / "open.csv").write_text("file,class\na.jpg,\nsub/CON.jpg,Dog\n")
    photos, _ = find_photos([], table=folder / "open.csv", true_class="dog")
    assert [photo.true_class for photo in photos] == ["dog", "Dog"]
    photos, _ = find_photos([folder], table=folder / "mine.csv")
    assert [photo.true_class for photo in photos].count(None) == 4
    with pytest.raises(TTCAError, match=r"Give it with --class \(cat, dog\)"):
        with_classes(photos, known)
    asked: list[str] = []

    def ask(name: str, classes: Any) -> str:
        asked.append(name)
        return str(classes[0])

    assert {photo.true_class for photo in with_classes(photos, known, ask)} == {"cat", "dog"}
    assert len(asked) == 4
    (folder / "mine.csv").write_text("file,class\nb .bmp,owl\n")
    with pytest.raises(PerturbationError, match="got 'owl'"):
        run(home, output=Output(place=home / "new"), table=folder / "mine.csv", true_class=None)
    (folder / "mine.csv").write_text("file,class,box\na.jpg,cat,1,2\n../me.png,cat,\na.jpg,cat,\na.jpg,dog,\n")
    with pytest.raises(TTCAError, match="3 problems"):
        run(home, output=Output(place=home / "new"), table=folder / "mine.csv")
    assert not (home / "new").exists()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"true_class": "dog"}, "Expected one class for .*a.jpg, got 'cat' in .*mine.csv and 'dog' from --class"),
        ({"box": (0, 0, 9, 9)}, "Expected one box for .*a.jpg, got '1,2,10,10' in .*mine.csv and '0,0,9,9' from --box"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_table_and_an_option_that_contradict_each_other_are_refused(
    home: Path, how: dict[str, Any], sentence: str, named: bool
) -> None:
    """Neither wins in silence, whether the photograph is named or only listed; what agrees is taken."""
    folder = album(home)
    (folder / "mine.csv").write_text('file,class,box\na.jpg,cat,"1,2,10,10"\n')
    places = [folder / "a.jpg"] if named else []
    with pytest.raises(TTCAError, match=sentence):
        find_photos(places, table=folder / "mine.csv", **how)
    (one,), _ = find_photos(places, table=folder / "mine.csv", true_class="CAT", box=(1, 2, 10, 10))
    assert (one.true_class, one.box) == ("cat", (1, 2, 10, 10))


def test_a_photograph_that_is_gone_does_not_keep_the_others(home: Path) -> None:
    """What a table lists and is not there is refused with its line, as what cannot be read is; so is it alone."""
    folder = album(home)
    (folder / "mine.csv").write_text("file,class\na.jpg,cat\ngone.jpg,dog\nsub/CON.jpg,dog\n")
    done = run(home, output=Output(place=home / "out"), table=folder / "mine.csv", true_class=None)
    assert [one.state for one in done] == ["applied", "refused", "applied"]
    assert "Line 3 of mine.csv: Expected a file, got no such file: 'gone.jpg'" in done[1].told()
    assert sorted(path.name for path in (home / "out").rglob("*.png")) == ["_CON.png", "a.png"]
    with pytest.raises(TTCAError, match=r"Expected a table at .*none\.csv, got nothing there"):
        find_photos([], table=folder / "none.csv")


def test_the_preview_shows_before_difference_and_after(home: Path) -> None:
    """One picture holds the prepared original, the difference × 10 around grey, and what is submitted, enlarged."""
    album(home)
    (one,) = run(home, home / "album" / "a.jpg", output=Output(place=home / "one.png", preview=True))
    assert one.preview == str(home / "one-preview.png")
    with Image.open(one.preview) as shown, Image.open(one.out) as sent, Image.open(home / "album" / "a.jpg") as photo:
        seen, after = np.asarray(shown), np.asarray(sent)
        before = Preparation(size=(5, 4)).of(np.asarray(photo))
    assert seen.shape == (160, 3 * 128 + 16, 3)
    np.testing.assert_array_equal(seen[::32, :128:32], before)
    np.testing.assert_array_equal(seen[::32, -128::32], after)
    np.testing.assert_array_equal(seen[::32, 136:264:32], np.clip(128 + 10 * (after.astype(int) - before), 0, 255))
    large = np.zeros((300, 2, 3), np.uint8)
    assert preview(large, large).shape == (300, 22, 3)


@pytest.mark.parametrize("place", ["out.jpg", "out.png"])
def test_several_photographs_need_a_folder(home: Path, place: str) -> None:
    """A file name for several photographs, or another format for one, is refused before anything is written."""
    folder = album(home)
    with pytest.raises(ImageError, match="Expected --out as a folder for 6 photographs"):
        run(home, folder, output=Output(place=home / place))
    assert not (home / place).exists()
