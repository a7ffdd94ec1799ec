"""Tests of invitations: the member's file is the organizer's platform, whatever its values are."""

from __future__ import annotations

import subprocess
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.config import read_action, read_contribution
from ttca.inviting import Invitation, toml_value
from ttca.pooling.roll import Enrolled
from ttca.signing import CollectiveKey

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(
        TEXTS,
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.booleans(),
        st.dates(),
        st.sampled_from([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), time(1, 2, 3), date(2026, 1, 2)]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    """Any value of a TOML file is the same value in the member's file."""
    assert tomllib.loads(f"value = {toml_value(value)}\n") == {"value": value}


def enrolled(name: str = "ada", **more: Any) -> Enrolled:
    """Return a member who has done nothing yet."""
    given: dict[str, Any] = {
        "member": name, "quota": 100, "charged": 0, "rates": {}, "invited": True, "invited_at": None,
        "revoked": False, "asked": 0, "answered": 0, "judged": 0, "set_aside_at": None,
    }  # fmt: skip
    return Enrolled(**{**given, **more})


PLATFORM = """
[platform]
url = "https://eyes.example.org:8443/v2"
protocol = "template"
classes = ["caf\\u00e9", "a \\"b\\"", "c = [1]"]
authorized_by = "the owner, letter of 2 May"
key_variable = "TTCA_KEY_ORGANIZER"
key_header = "X-Api-Key"
key_scheme = ""
read_timeout = 12.5

[platform.options]
path = "classify"
image_shape = [4, 4, 3]
send = "multipart"
label = "label"
scores = "scores"
[platform.options.fields]
"a key" = "it's"
"""


@pytest.mark.parametrize("name", ["ada", "Zoë O'Neil\n[platform]", "../../etc/x", "…"])
def test_a_members_file_asks_the_same_platform(name: str, tmp_path: Path) -> None:
    """Read back, the file has the organizer's platform, the hub and its key; the key's variable is the member's own."""
    text = (
        '[action]\nname = "eyes\\u001b[2J"\n[people]\nsource = "p.csv"\n[hub]\nurl = "https://hub.example.net:8080/"\n'
    )
    (tmp_path / "action.toml").write_text(text + PLATFORM)
    action, key = read_action(tmp_path), CollectiveKey.open_or_make(tmp_path).public
    invitation = Invitation(action=action, member=enrolled(name), key=key)
    path = tmp_path / invitation.file_name
    assert path.parent == tmp_path
    path.write_text(invitation.file)
    mine = read_contribution(path)
    assert {**vars(mine.platform), "key_variable": None} == {**vars(action.platform), "key_variable": None}
    assert mine.platform.key_variable == "TTCA_KEY_MINE"
    assert "TTCA_KEY_ORGANIZER" not in invitation.file
    assert "eyes.example.org YOUR-KEY" in invitation.message("a-token", 7)
    found = mine.contribute
    assert (found.hub, found.hub_key, found.token_variable) == ("https://hub.example.net:8080", key, "TTCA_HUB_TOKEN")
    message = invitation.message("a-token", 7)
    assert all(line.isprintable() for line in message.splitlines())
    assert invitation.missing.keys() == {"install"}
    assert invitation.file in message


@pytest.mark.parametrize(
    ("ways", "example"),
    [
        ('key_in = "query"\nkey_names = ["user", "secret"]', "eyes.example.org YOUR-KEY YOUR-SECRET"),
        (
            'sign = "aws4"\nsign_region = "eu-west-1"\nsign_service = "rekognition"',
            "eyes.example.org YOUR-ACCESS-KEY YOUR-SECRET",
        ),
        (
            'token_from = { url = "https://auth.example.org/t", scope = "a", fields = { audience = "b" } }',
            "auth.example.org,eyes.example.org YOUR-ID YOUR-SECRET",
        ),
    ],
)
def test_a_member_is_told_what_their_key_looks_like(ways: str, example: str, tmp_path: Path) -> None:
    """However a key travels, the member's file says so as the organizer's does, and the message what to set."""
    platform = PLATFORM.replace('key_header = "X-Api-Key"\nkey_scheme = ""\n', f"{ways}\n")
    (tmp_path / "action.toml").write_text(f'[people]\nsource = "p.csv"\n{platform}')
    action = read_action(tmp_path)
    invitation = Invitation(action=action, member=enrolled(), key="ttca-ed25519:" + "A" * 43, url="http://127.0.0.1:2")
    (tmp_path / "ada.toml").write_text(invitation.file.replace(f'hub_key = "ttca-ed25519:{"A" * 43}"', ""))
    mine = read_contribution(tmp_path / "ada.toml").platform
    assert {**vars(mine), "key_variable": None} == {**vars(action.platform), "key_variable": None}
    message = invitation.message("tok-en_1", 7)
    for line in (f"export TTCA_KEY_MINE='{example}'", f"$env:TTCA_KEY_MINE = '{example}'"):
        assert line in message.splitlines()


def test_an_invitation_gives_the_commands_that_set_the_token(tmp_path: Path) -> None:
    """A POSIX shell that runs the line has exactly the token; PowerShell has a line of its own."""
    (tmp_path / "action.toml").write_text(f'[people]\nsource = "p.csv"\n{PLATFORM}')
    message = Invitation(action=read_action(tmp_path), member=enrolled(), key="k").message("tok-en_1", 7)
    (line,) = (line for line in message.splitlines() if line.startswith("export TTCA_HUB_TOKEN="))
    shell = subprocess.run(
        ["sh", "-c", f'{line}\nprintf %s "$TTCA_HUB_TOKEN"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == "tok-en_1"
    assert "$env:TTCA_HUB_TOKEN = 'tok-en_1'" in message.splitlines()


def test_an_invitation_names_what_is_behind_a_gateway(tmp_path: Path) -> None:
    """A member is told where their queries end, not only that a program on their own machine takes them."""
    gateway = PLATFORM.replace("https://eyes.example.org:8443/v2", "http://127.0.0.1:8080").replace(
        'key_scheme = ""', 'key_scheme = ""\nforwards_to = "https://eyes.example.org"'
    )
    (tmp_path / "action.toml").write_text(f'[people]\nsource = "p.csv"\n{gateway}')
    action = read_action(tmp_path)
    message = Invitation(action=action, member=enrolled(), key="k", url="http://127.0.0.1:2").message("t", 7)
    assert "asks https://eyes.example.org through http://127.0.0.1:8080 under your own key" in message
    assert 'forwards_to = "https://eyes.example.org"' in message
    assert not action.platform.is_loopback


def test_an_invitation_says_what_is_paid(tmp_path: Path) -> None:
    """What the member can still pay, how fast, for how many pictures, and how much of it is paid."""
    text = '[action]\nsubgroup = "people with glasses"\n[people]\nsource = "p.csv"\n'
    (tmp_path / "action.toml").write_text(text + PLATFORM)
    member = enrolled(charged=40, rates={"per_day": 20})
    invitation = Invitation(action=read_action(tmp_path), member=member, key="k", url="http://127.0.0.1:2")
    message = invitation.message("t", 7)
    for said in ("at most 60 queries more (40 are paid), and at most 20 per day", "The 7 pictures", "with glasses"):
        assert said in message
    # Before the hub has read the people nobody knows how many there are.
    assert "paid), and at most 20 per day. Pictures that their owners share" in invitation.message("t", 0)
