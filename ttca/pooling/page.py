"""The hub's page: how far the pool is, for people, on a phone."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

from ttca.pooling.leases import Progress

__all__ = ["PAGE_POLICY", "progress_page"]

# Looks at this page again and puts in what has changed: nothing jumps, and what is read aloud goes on. Not at its whole
# URL: with a token in it, browsers refuse.
_SCRIPT = """
setInterval(async () => {
  const away = document.getElementById("away");
  try {
    const reply = await fetch(location.origin + location.pathname, { cache: "no-store" });
    if (!reply.ok) throw new Error();
    const now = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const old of document.querySelectorAll("[data-now]")) {
      const fresh = now.getElementById(old.id);
      if (fresh.textContent !== old.textContent) old.textContent = fresh.textContent;
      for (const { name, value } of fresh.attributes)
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      old.hidden = fresh.hidden;
    }
    away.hidden = true;
  } catch { away.hidden = false; }
}, 15000);
"""
#: The page's Content-Security-Policy: its own script and style, and nothing from elsewhere, nor a page around it.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; script-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# Queries paid; pictures; their answers by class; the groups.
_OWN_LINES = 4


def progress_page(name: str, p: Progress, own: Sequence[str], *, expired: str | None = None) -> str:
    """Return the page as one HTML file that loads nothing else; ``own`` is what its reader alone is told, by line.

    ``expired`` says why the set that was handed out no longer holds.
    """
    # A fixed number of places, since what is looked at again is found by its name.
    lines = "".join(
        f"<p class=quiet id=own-{i} data-now{'' if i < len(own) else ' hidden'}>"
        f"{html.escape(own[i]) if i < len(own) else ''}</p>"
        for i in range(max(_OWN_LINES, len(own)))
    )
    percent = f"{100 * p.answered / p.inputs if p.inputs else 0.0:.1f}"
    ended = "Every shared image is answered." if not p.given_up else "Nothing is left to ask."
    state = ended if p.done else f"Queries that members are asking now: {p.out:,}."
    care = (
        f"{p.quarantined} of the members gave answers that differ from everybody else's. Their answers are set aside, "
        "and those images are asked about again."
    )
    rows = "".join(
        f"<tr><th scope=row>{label}</th><td id=row-{i} data-now>{value:,}</td></tr>"
        for i, (label, value) in enumerate(
            (
                ("Shared images", p.inputs),
                ("Answered", p.answered),
                ("Given up after several members tried", p.given_up),
                ("Queries paid", p.charged),
                ("Members", p.members),
                ("Members who gave answers", p.active),
                ("Members set aside", p.quarantined),
            )
        )
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(name)}: the pool</title>
<style>
:root {{ color-scheme: light dark; --page:#f4f5f3; --paper:#fff; --ink:#1d2733; --quiet:#55616d; --line:#e1e5e9;
  --bar:#0a6a8a; --care:#7a4b00; --care-paper:#fbf3e0; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page:#12161b; --paper:#1b2128; --ink:#e8ebee; --quiet:#a9b4bf;
  --line:#343d47; --bar:#5fc0e0; --care:#edc877; --care-paper:#362b15; }} }}
* {{ box-sizing: border-box; }}
body {{ margin:0; background:var(--page); color:var(--ink); font:1rem/1.6 system-ui, "DejaVu Sans", sans-serif; }}
main {{ max-width:34rem; margin:0 auto; padding:1.5rem 1rem; }}
h1 {{ font-size:1.4rem; overflow-wrap:anywhere; margin:0 0 .2rem; }}
section {{ background:var(--paper); border:1px solid var(--line); border-radius:.75rem; }}
section {{ padding:1.2rem; margin-top:1rem; }}
.share {{ font-size:2.6rem; line-height:1.1; margin:0; }}
.bar {{ height:.8rem; border-radius:.4rem; background:var(--line); overflow:hidden; margin:.8rem 0; }}
.bar i {{ display:block; height:100%; background:var(--bar); }}
table {{ border-collapse:collapse; width:100%; }} th {{ text-align:left; font-weight:normal; color:var(--quiet); }}
td {{ text-align:right; font-variant-numeric:tabular-nums; }}
th, td {{ padding:.3rem 0; border-top:1px solid var(--line); }}
tr:first-child th, tr:first-child td {{ border-top:0; }}
.quiet {{ color:var(--quiet); margin:0; }}
.care {{ background:var(--care-paper); color:var(--care); border-radius:.4rem; padding:.6rem .8rem; margin:1rem 0 0; }}
</style></head><body><main>
<h1>{html.escape(name)}</h1><p class=quiet>The pool's queries, together</p>
<p class=care id=expired role=status data-now{"" if expired else " hidden"}>{html.escape(expired or "")}</p>
<section><p class=share><span id=share data-now>{percent}&nbsp;%</span></p>
<p class=quiet id=of data-now>of {p.inputs:,} shared images are answered</p>
<div class=bar id=bar data-now role=progressbar aria-label="Answered images"
aria-valuemin=0 aria-valuemax=100 aria-valuenow={percent}><i id=filled data-now style="width:{percent}%"></i></div>
<p class=quiet id=state role=status data-now>{state}</p>
<p class=care id=care data-now{"" if p.quarantined else " hidden"}>{care}</p>
<p class=care id=away role=status hidden>The hub does not answer now. These are its last figures.</p></section>
<section><table>{rows}</table></section>
<section>{lines}</section></main><script>{_SCRIPT}</script></body></html>"""
