"""Tests of platforms that others made: each says over HTTP what its package says, and is itself at whatever port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid

import numpy as np
import pytest

from benchmarks import tracks
from benchmarks._peers import node_packages, packages
from benchmarks._third_party import (
    DIGIT_RECOGNIZER,
    DIGIT_SIDE,
    FACE_API,
    FACE_SIDE,
    Packaged,
    digit_recognizer,
    face_api,
)
from benchmarks._tracks import TRACKS
from ttca.errors import TTCAError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform

_WHO = Credential("nobody")


def pictures(n: int, side: int) -> Images:
    """Return n coarse random pictures: their squares are larger than pixels, so that answers differ."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(side // 7, axis=1).repeat(side // 7, axis=2)


def test_a_package_is_the_same_platform_at_every_port() -> None:
    """What was asked yesterday at another port is known today; another version is another platform."""

    def at(port: int, package: str = "faces@1") -> Packaged:
        http = HttpPlatform(
            f"http://127.0.0.1:{port}", protocol="template", classes=("a", "b"), path="x", send="png",
            scores="scores", image_shape=(8, 8, 3),
        )  # fmt: skip
        return Packaged(http, package)

    here = at(1)
    assert here.info.fingerprint == at(2).info.fingerprint != at(1, "faces@2").info.fingerprint
    assert here.info.name == "faces@1"
    assert isinstance(here.inner, HttpPlatform)
    assert here.throttle is here.inner.throttle
    assert not hasattr(here, "resolution")
    with pytest.raises(AttributeError, match="no attribute 'password'"):
        _ = here.password


def test_the_group_with_the_fewest_right_answers_is_counted() -> None:
    """Right answers, people and bounds of each group come from its own people."""
    said, classes = np.array([1] * 9 + [0] + [1, 1, 1, -1]), np.array([1] * 12 + [0, 0])
    found = tracks.accuracies(said, classes, np.array(["much"] * 10 + ["few"] * 4))
    assert [found[name]["commonest_answer"] for name in ("much", "few")] == [0.9, 0.75]
    assert {name: (one["right"], one["people"]) for name, one in found.items()} == {"much": (9, 10), "few": (2, 4)}
    low, high = found["few"]["bounds"]
    assert low < found["few"]["accuracy"] == 0.5 < high


def test_without_node_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Node gets a sentence, before anything is installed."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(TTCAError, match="Expected the program npm on the PATH"), face_api():
        pass
    with pytest.raises(TTCAError, match="Expected the program npm on the PATH"):
        node_packages("left-pad@1.3.0")


@pytest.mark.e2e
@pytest.mark.full
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
def test_the_face_network_says_over_http_what_its_package_says() -> None:
    """Labels and probabilities are those that a plain Node program gets from the package, however many are asked."""
    faces = pictures(20, FACE_SIDE)
    program = """
      const [folder, side] = [process.argv[1], Number(process.argv[2])];
      const need = require("module").createRequire(folder + "/package.json");
      const tf = need("@tensorflow/tfjs");
      need("@tensorflow/tfjs-backend-wasm");
      const net = need("@vladmandic/face-api/dist/face-api.node-wasm.js").nets.ageGenderNet;
      (async () => {
        await tf.setBackend("wasm");
        await net.loadFromDisk(folder + "/node_modules/@vladmandic/face-api/model");
        const bytes = require("fs").readFileSync(0);
        const said = [];
        for (let at = 0; at < bytes.length; at += side * side * 3) {
          const pixels = tf.tensor3d(bytes.subarray(at, at + side * side * 3), [side, side, 3], "int32");
          const { gender, genderProbability } = await net.predictAgeAndGender(pixels);
          said.push([gender, genderProbability]);
        }
        console.log(JSON.stringify(said));
      })();
    """
    command = ["node", "-e", program, str(node_packages(*FACE_API)), str(FACE_SIDE)]
    done = subprocess.run(command, input=faces.tobytes(), capture_output=True, check=True)
    expected = json.loads(done.stdout.splitlines()[-1])
    with face_api() as platform:
        parts = [faces[:16], faces[16:17], faces[17:]]
        said = [platform.attempt(part, _WHO, request_id=uuid.uuid4().hex) for part in parts]
    labels, scores = (np.concatenate([getattr(part, name) for part in said]) for name in ("labels", "scores"))
    assert [("male", "female")[k] for k in labels] == [gender for gender, _ in expected]
    assert np.allclose(scores.max(1), [probability for _, probability in expected], atol=1e-5)
    assert np.allclose(scores.sum(1), 1, atol=1e-5)


@pytest.mark.e2e
@pytest.mark.full
def test_the_digit_recognizer_says_over_http_what_its_package_says() -> None:
    """All ten probabilities are those that a plain Python program gets from the package."""
    digits = pictures(6, DIGIT_SIDE)
    program = (
        "import sys, json, numpy as np; from digit_recognizer import predict_proba;"
        f"x = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(-1, {DIGIT_SIDE}, {DIGIT_SIDE}, 3);"
        "print(json.dumps([predict_proba(d, device='cpu') for d in x]))"
    )
    variables = {"PYTHONPATH": str(packages(DIGIT_RECOGNIZER)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=digits.tobytes(), capture_output=True, check=True, env=variables
    )
    expected = np.array(json.loads(done.stdout))
    with digit_recognizer() as platform:
        said = [platform.attempt(digit[None], _WHO, request_id=uuid.uuid4().hex) for digit in digits]
    scores = np.concatenate([part.scores for part in said])
    assert np.allclose(scores, expected, atol=1e-5)
    assert np.concatenate([part.labels for part in said]).tolist() == expected.argmax(1).tolist()


@pytest.mark.e2e
@pytest.mark.full
@pytest.mark.parametrize("name", ["fairface-faceapi", "digits-thirdparty"])
def test_the_tracks_open_them_with_each_kind_of_answers(name: str) -> None:
    """A track's platform is the package with the habits that were asked for."""
    track = TRACKS[name]
    for answers in track.answers:
        with track.open_platform(answers) as platform:
            said = platform.attempt(pictures(1, platform.info.image_shape[0]), _WHO, request_id=uuid.uuid4().hex)
            assert said.answered.all()
            assert np.isnan(said.scores).all() == (answers == "label")
