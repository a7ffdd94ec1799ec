"""The printed tables of vendors ask what the vendors' documents say, and read what they answer."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

from benchmarks._vendors import EMULATORS
from benchmarks._vendors.asking import keyed, pictures, section, variable
from benchmarks._vendors.base import Asked, Behavior, File, WrongError
from benchmarks.apis import main as apis
from tests.test_cli import Terminal
from ttca.config import read_action
from ttca.errors import ChargeState, ConfigError, TransportError, Trouble
from ttca.platforms.base import Credential
from ttca.platforms.server import background_app
from ttca.platforms.vendors import table, vendors, with_table
from ttca.templates import action_template

pytest_plugins = ("tests.test_cli",)

ADA = Credential("ada")


@pytest.fixture(params=EMULATORS)
def vendor(request: pytest.FixtureRequest) -> str:
    """Return the name of each vendor in turn."""
    name: str = request.param
    return name


@pytest.fixture
def keys(vendor: str) -> Iterator[None]:
    """Set the variable of the vendor's key."""
    with keyed(vendor):
        yield


class TestPrinted:
    """What `ttca init --platform` writes."""

    def test_every_table_has_an_emulator_and_stands_in_the_page(self) -> None:
        """The tables, the emulators and the printed page are of the same vendors; each table cites what it follows."""
        page = (Path(__file__).parents[2] / "docs" / "vendors.md").read_text(encoding="utf-8")
        assert set(vendors()) == set(EMULATORS)
        for name in vendors():
            assert f"## {name}\n\n```toml\n{table(name)}```\n" in page
            assert f"\n# {EMULATORS[name].document}\n" in table(name)
            assert f'# export {variable(name)}="' in table(name)

    def test_it_is_read_once_it_is_filled_in(self, vendor: str, tmp_path: Path) -> None:
        """The written file is an action file as it stands; its platform waits for whoever authorized it."""
        file = tmp_path / "action.toml"
        file.write_text(with_table(action_template(file), vendor), encoding="utf-8")
        found = read_action(file)
        assert found.platform.key_variable == variable(vendor)
        assert found.pool.quota == 100
        with pytest.raises(ConfigError, match="Expected authorized_by"):
            found.open_platform()

    def test_the_export_names_the_host_of_the_table(self, vendor: str) -> None:
        """The comment binds the key to the host that the table asks."""
        url = tomllib.loads(table(vendor))["platform"]["url"]
        said = re.search(rf'export {variable(vendor)}="(\S+) ', table(vendor))
        assert said is not None
        assert url.startswith(f"https://{said[1]}")

    def test_a_vendor_without_a_table_is_told_all_that_have_one(self) -> None:
        """A name that is none says where the others stand."""
        with pytest.raises(ConfigError, match=r"got 'zzz'. docs/vendors.md lists them. Or describe the API"):
            table("zzz")


class TestAsked:
    """What the table sends and reads, at an emulator that refuses what the document does not name."""

    def test_every_image_gets_the_models_answer(self, vendor: str, keys: None, tmp_path: Path) -> None:
        """Alone and in batches the answers are the model's, and a dark image is refused where the vendor can."""
        emulator = EMULATORS[vendor](tmp_path)
        images, labels = pictures(EMULATORS[vendor], 4, dark=int(emulator.refuses))
        with background_app(emulator.app()) as url, section(vendor, url).open() as platform:
            alone = [platform.attempt(image[None], ADA, request_id=f"r{k}") for k, image in enumerate(images)]
            most = min(platform.info.max_batch, len(images))
            assert most == min(emulator.most_images, len(images))
            together = platform.attempt(images[:most], ADA, request_id="all")
        assert [int(one.labels[0]) if one.answered[0] else -1 for one in alone] == labels
        np.testing.assert_array_equal(np.where(together.answered, together.labels, -1), labels[:most])

    def test_a_wrong_key_costs_nothing_and_is_not_shown(
        self, vendor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The vendor refuses it, nothing was looked at, and no sentence repeats it."""
        wrong = EMULATORS[vendor].secret.replace("0001", "6666")
        monkeypatch.setenv(variable(vendor), f"127.0.0.1 {wrong}")
        emulator = EMULATORS[vendor](tmp_path)
        images, _ = pictures(EMULATORS[vendor], 1)
        with (
            background_app(emulator.app()) as url,
            section(vendor, url).open() as platform,
            pytest.raises(TransportError) as caught,
        ):
            platform.attempt(images, ADA, request_id="r")
        assert not any(part in str(caught.value) for part in wrong.split())
        assert not caught.value.retryable
        assert not (tmp_path / "processed.jsonl").read_text()

    def test_too_fast_is_waited_out_and_refunded(self, vendor: str, keys: None, tmp_path: Path) -> None:
        """The vendor's own way to say it, whatever the status, is a throttle that cost nothing."""
        emulator = EMULATORS[vendor](tmp_path, Behavior(throttles=frozenset({1})))
        images, labels = pictures(EMULATORS[vendor], 1)
        with background_app(emulator.app()) as url, section(vendor, url).open() as platform:
            with pytest.raises(TransportError) as caught:
                platform.attempt(images, ADA, request_id="r")
            answer = platform.attempt(images, ADA, request_id="r")
        error = caught.value
        assert (error.charge, error.retryable, error.trouble) == (ChargeState.REFUNDED, True, Trouble.THROTTLED)
        assert answer.labels.tolist() == labels

    def test_not_ready_is_waited_out_and_refunded(self, vendor: str, keys: None, tmp_path: Path) -> None:
        """What a vendor says after a restart, where its document tells it, cost nothing and is tried again."""
        emulator = EMULATORS[vendor](tmp_path, Behavior(just_restarted=1))
        images, labels = pictures(EMULATORS[vendor], 1)
        with background_app(emulator.app()) as url, section(vendor, url).open() as platform:
            if emulator.not_ready() is not None:
                with pytest.raises(TransportError) as caught:
                    platform.attempt(images, ADA, request_id="r")
                assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, True)
            assert platform.attempt(images, ADA, request_id="r").labels.tolist() == labels


def altered(asked: Asked) -> Iterator[tuple[str, Asked]]:
    """Yield a request with one thing in it that its document does not name, or without one that it demands."""
    yield "a parameter of the query", replace(asked, query={**asked.query, "zzz": "1"})
    yield "the path", replace(asked, path=f"{asked.path.rstrip('/')}/zzz")
    yield "the media type", replace(asked, headers={**asked.headers, "content-type": "text/x-zzz"})
    for name in ("authorization", "ocp-apim-subscription-key", "prediction-key", "x-goog-api-key"):
        if name in asked.headers:
            yield f"the header {name}", replace(asked, headers={**asked.headers, name: f"{asked.headers[name]}0"})
    if asked.form:
        yield "a field", replace(asked, form={**asked.form, "zzz": "1"})
        for name in asked.form:
            yield f"no {name}", replace(asked, form={k: v for k, v in asked.form.items() if k != name})
            yield f"another kind of {name}", replace(asked, form={**asked.form, name: File("f", "text/plain", b"1")})
    elif asked.content_type.endswith(("json", "json-1.1")):
        for what, message in messages(json.loads(asked.body)):
            yield what, replace(asked, body=json.dumps(message).encode())


def messages(said: Any, where: str = "body") -> Iterator[tuple[str, Any]]:
    """Yield a JSON message with a name in one of its objects that is not there, or another type of one value."""
    if isinstance(said, dict):
        yield f"a name in {where}", {**said, "zzz": 1}
        for name, value in said.items():
            for what, inner in messages(value, f"{where}.{name}"):
                yield what, {**said, name: inner}
    elif isinstance(said, list):
        for k, value in enumerate(said):
            for what, inner in messages(value, f"{where}[{k}]"):
                yield what, [*said[:k], inner, *said[k + 1 :]]
    else:
        yield f"another type of {where}", [said]


def test_an_emulator_refuses_whatever_its_document_does_not_name(
    vendor: str, keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing that a table sends, altered alone, is refused before any image is looked at."""
    emulator = EMULATORS[vendor](tmp_path)
    images, _ = pictures(EMULATORS[vendor], 1)
    came: list[Asked] = []
    answer = emulator.answer

    def answering(asked: Asked) -> Response:
        came.append(asked)
        return answer(asked)

    monkeypatch.setattr(emulator, "answer", answering)
    with background_app(emulator.app()) as url, section(vendor, url).open() as platform:
        platform.attempt(images, ADA, request_id="r")
    looked = (tmp_path / "processed.jsonl").read_text()
    taken = []
    for asked in (one for one in came if one.method == "POST"):
        for what, other in altered(asked):
            with contextlib.suppress(WrongError):
                answer(other)
                taken.append(what)
    assert taken == []
    assert (tmp_path / "processed.jsonl").read_text() == looked


@pytest.mark.parametrize("vendor", [name for name, one in EMULATORS.items() if not one.refuses])
def test_who_cannot_refuse_says_of_a_dark_image_that_all_is_alike(vendor: str, keys: None, tmp_path: Path) -> None:
    """Where an API has no way to say that an image shows nothing, its emulator answers with equal scores."""
    emulator = EMULATORS[vendor](tmp_path)
    images, _ = pictures(EMULATORS[vendor], 0, dark=1)
    with background_app(emulator.app()) as url, section(vendor, url).open() as platform:
        answer = platform.attempt(images, ADA, request_id="r")
    np.testing.assert_allclose(answer.scores, 1 / len(emulator.words), atol=1e-4)


def test_a_signature_of_another_region_is_refused(tmp_path: Path) -> None:
    """AWS's emulator checks who signed what for where, by botocore's own signer."""
    emulator = EMULATORS["aws-rekognition"](tmp_path)
    images, _ = pictures(EMULATORS["aws-rekognition"], 1)
    with keyed("aws-rekognition"), background_app(emulator.app()) as url:
        for changes in ({"sign_region": "us-east-1"}, {"sign_service": "s3"}):
            with (
                section("aws-rekognition", url, **changes).open() as platform,
                pytest.raises(TransportError, match="UnrecognizedClientException"),
            ):
                platform.attempt(images, ADA, request_id="r")


def test_a_used_up_quota_ends_the_asking_with_its_words(tmp_path: Path) -> None:
    """OpenAI says it with the status of a throttle: nobody waits for money, and the body is shown."""
    emulator = EMULATORS["openai-chat"](tmp_path, Behavior(throttles=frozenset({1})))
    emulator.too_fast = emulator.used_up  # type: ignore[attr-defined, method-assign]
    images, _ = pictures(EMULATORS["openai-chat"], 1)
    with (
        keyed("openai-chat"),
        background_app(emulator.app()) as url,
        section("openai-chat", url).open() as platform,
        pytest.raises(TransportError) as caught,
    ):
        platform.attempt(images, ADA, request_id="r")
    assert (caught.value.trouble, caught.value.retryable) == (Trouble.USED_UP, False)
    assert "You exceeded your current quota" in str(caught.value)


def test_init_writes_the_table_of_a_vendor(ttca: Terminal, tmp_path: Path) -> None:
    """`ttca init --platform` writes it, says what to fill in, and writes nothing for a vendor that it does not know."""
    done = ttca("init", tmp_path / "action.toml", "--platform", "azure-vision")
    assert "Fill in authorized_by" in done.err
    assert table("azure-vision") in (tmp_path / "action.toml").read_text(encoding="utf-8")
    refused = ttca("init", tmp_path / "other.toml", "--platform", "azure-visoin").sentence
    assert refused.startswith("Did you mean 'azure-vision'?")
    assert not (tmp_path / "other.toml").exists()


@pytest.mark.full
def test_every_vendor_is_spoken_to_through_limits_and_a_restart() -> None:
    """All eighteen."""
    found = apis([])
    counts = ("vendors", "speaks", "mislabeled", "lost", "charged_beyond_processed")
    assert [found[key] for key in counts] == [18, 18, 0, 0, 0], found["each"]
    assert found["most_unknown_at_one_restart"] <= found["concurrency"]
