"""Tests that axe-core, in a real browser, finds no serious fault in a report, by day and by night, wide and narrow."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_report import _run

pytestmark = pytest.mark.full

_CHROMIUM, _NPM = shutil.which("chromium"), shutil.which("npm")
_DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
_RUN = """<script>%s</script><script>axe.run().then(found => { document.documentElement.innerHTML = '<pre id="found">' +
btoa(unescape(encodeURIComponent(JSON.stringify(
found.violations.map(one => [one.id, one.impact, one.nodes[0].html]))))) + "</pre>"; })</script></body>"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Return what finds the faults of a page, with options of the browser."""
    if _CHROMIUM is None or _NPM is None:
        pytest.skip("needs Chromium and npm")
    home = tmp_path_factory.mktemp("axe")
    subprocess.run([_NPM, "install", "--no-save", "axe-core@4"], cwd=home, check=True, capture_output=True, timeout=300)
    axe = (home / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script")

    def find(text: str, *options: str) -> list[Any]:
        # The report allows no script; the copy that is looked at has to.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        page = home / "page.html"
        page.write_text(text.replace("</body>", _RUN.replace("%s", axe)), encoding="utf-8")
        done = subprocess.run(
            [str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home / 'profile'}",
             "--virtual-time-budget=60000", "--dump-dom", *options, page.as_uri()],
            capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        said = re.search(r'<pre id="found">([^<]*)</pre>', done.stdout)
        assert said, done.stdout[:500]
        found: list[Any] = json.loads(base64.b64decode(said[1]))
        return found

    return find


@pytest.mark.parametrize("options", [(), _DARK, ("--window-size=390,844",), (*_DARK, "--window-size=390,844")], ids=str)
@pytest.mark.parametrize("goal", ["parity", "improvement"])
def test_axe_finds_no_serious_fault(
    goal: str, options: tuple[str, ...], faults: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """In a report with pictures and names, of a certificate that passed and of one over pairs."""
    text = _run(goal=goal).write(tmp_path / "report.html")
    assert [fault for fault in faults(text, *options) if fault[1] in ("serious", "critical")] == []


def test_axe_would_find_one(faults: Callable[..., list[Any]]) -> None:
    """A picture without words and grey on grey are found."""
    words = '<h1>x</h1><img src="data:,"><p style="color:#999;background:#aaa">Grey words</p>'
    page = f'<html lang="en"><title>x</title><body><main>{words}'
    assert {"image-alt", "color-contrast"} <= {fault[0] for fault in faults(f"{page}</main></body></html>")}
