"""Letters: one that asks a platform's owner for authorization, and a complaint with what was found filled in."""

from __future__ import annotations

from ttca.certificates import Certificate
from ttca.heads import Head
from ttca.report.plain import PlainWords, Provenance
from ttca.row import Row

__all__ = ["AUTHORIZATION", "complaint"]

#: Goes beside a new action file. Blanks are in [SQUARE BRACKETS].
AUTHORIZATION = """\
[YOUR ORGANIZATION]
[ADDRESS, EMAIL, TELEPHONE]

[DATE]

To [OWNER OF THE SERVICE], [PERSON OR OFFICE, SUCH AS THE DATA PROTECTION OFFICER]

Subject: Request for authorization to test [NAME AND ADDRESS OF THE SERVICE]

Dear [NAME],

We work with [WHO THE PEOPLE ARE]. They tell us that [SERVICE] answers them wrongly more often than others. We ask for
your written permission to measure this.

What we would do:
- Send about [NUMBER] pictures to [SERVICE], between [FIRST DAY] and [LAST DAY], no faster than [NUMBER] a minute.
- The pictures are of people who agreed to it in writing. Each query is paid by a member under a key of their own.
- Send the same pictures again with small changes. From your answers we learn which change lets the service recognize
  people as what they are. We keep a small copy of the service to learn this. We never publish or sell that copy.
- Test the result on people who had no other part.

What we would not do: read anything but the answers to our own pictures, get around a limit, or change what the service
says about others.

What you get: our report before we publish it, at least [NUMBER] days ahead, and a bundle of evidence that you can check
yourselves without our software.

Please answer in writing, and say:
1. that you own the service, or may allow this for whoever does,
2. which addresses and keys we may use, and how fast,
3. from when to when,
4. whom we call if something goes wrong.

Yours sincerely,

[NAME, SIGNATURE]


When this letter is needed: ttca sends nothing off this machine until the action file says who authorized it
(authorized_by under [platform]). Write there who allowed it, when, and where the answer is kept. You need no letter for
a service of your own. This is no legal advice: ask somebody who knows the law where you are, above all where terms of
use forbid tests.
"""


def complaint(row: Row, certificate: Certificate, around: Provenance, *, url: str, head: Head) -> str:
    """Return a letter of complaint with the numbers of an action; what only its writer knows is in brackets."""
    words = PlainWords.of(row, certificate, around)
    service, subgroup = around.service or "the service", around.people
    gap = f"answers {subgroup} wrongly more often than others" if words.gap else f"was asked about {subgroup}"
    wish = "We ask you to look into it and to answer this letter by [DATE]."
    note = "" if words.gap else "\n[NO GAP WAS SHOWN. ASK YOURSELF WHETHER A COMPLAINT IS THE RIGHT LETTER.]\n"
    allowed = around.authorized_by or "[WHO AUTHORIZED THE TEST, WHEN, AND WHERE THAT IS WRITTEN]"
    return f"""\
# Complaint about {service}

[YOUR NAME OR ORGANIZATION]
[ADDRESS, EMAIL, TELEPHONE]

[DATE]

To [OWNER OF THE SERVICE, OR THE AUTHORITY THAT SUPERVISES IT]

## What this is about

{service}{"" if url == service else f" ({url})"} {gap}. {wish}
{note}
[WHO IS HARMED BY THIS, AND HOW. ONE OR TWO EXAMPLES THAT THE PEOPLE CONCERNED AGREED TO TELL.]

## What we found

{words.found}

## What we proved

{words.proved}

## What this does not show

{words.limits_as_list}

## How to check it

This letter comes with a bundle of evidence, signed with the public key

    {head.key}

Run `python check.py` in it. It needs Python and nothing else. It recomputes the numbers from the record of
queries: compare them with those above. The head of that record was {head.head} on {head.at}.

When the service was asked: {around.when}. Authorized by: {allowed}.

## What we ask for

1. Measure accuracy for each group, on pictures like those that {subgroup} really send, and publish it.
2. Correct the service until the difference is gone, and say by when.
3. Give people a way to contest an answer.
4. [WHAT ELSE YOU ASK FOR. WHICH LAW IT RESTS ON: ASK SOMEBODY WHO KNOWS THE LAW WHERE YOU ARE.]

[NAME, SIGNATURE]
"""
