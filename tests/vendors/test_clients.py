"""Each emulator is first asked by its vendor's own client from PyPI, and satisfies it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._peers import environment
from benchmarks._vendors import EMULATORS
from benchmarks._vendors.asking import pictures
from benchmarks._vendors.base import model_says
from tests.vendors import clients
from ttca.platforms.server import background_app

pytestmark = [pytest.mark.e2e, pytest.mark.full]

_ASKED = 3
#: What a client rounds, and a JPEG that it makes of the image changes.
_TOLERANCE = {"nyckel": 0.1, "roboflow": 1e-4}
#: Offline, Hugging Face's client asks not even this machine.
_NOT_HANDED_ON = ("PYTHONPATH", "VIRTUAL_ENV", "HF_HUB_OFFLINE")


@pytest.mark.parametrize("vendor", clients.NEEDS)
def test_the_vendors_own_client_reads_the_models_answers(vendor: str, tmp_path: Path) -> None:
    """The client gets the model's labels and scores; of a dark image nothing, or the vendor's refusal as its error."""
    emulator = EMULATORS[vendor](tmp_path)
    images, labels = pictures(EMULATORS[vendor], _ASKED, dark=int(emulator.refuses))
    files = [tmp_path / f"{k}.png" for k in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    python = environment(*clients.NEEDS[vendor])
    with background_app(emulator.app()) as url:
        done = subprocess.run(
            [python, "-W", "ignore", clients.__file__, vendor, url, *files],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k not in _NOT_HANDED_ON},
        )
    assert done.returncode == 0, done.stderr
    said: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    for answer, label, expected in zip(said, labels, model_says(images, len(emulator.words)), strict=True):
        if label < 0:
            assert answer == [] or "refused" in answer or dict(answer).get("Negative") == 1.0
            continue
        ours = [(word, score) for word, score in answer if word in emulator.words]
        assert ours[0][0] == emulator.words[label], answer
        assert expected.scores is not None
        for word, score in ours:
            if score is not None:
                np.testing.assert_allclose(
                    score, expected.scores[emulator.words.index(word)], atol=_TOLERANCE.get(vendor, 1e-6)
                )
