"""Tests of the language of the pages that users read: short sentences, American spelling, and not too many words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
MEAN, LONGEST = 20, 45
#: Parts of the site whose pages are for users.
PARTS = ("Tutorial", "How-to", "Reference", "Explanation")
#: Files at the top of the repository by their pages in the menu.
TOP = {
    f"{name.lower().replace('_', '-')}.md": f"{name}.md"
    for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "RESPONSIBLE_USE", "SECURITY")
}
BRITISH = re.compile(
    r"\b(?:\w*(?:organis|authoris|recognis|normalis|equalis|minimis|maximis|summaris|randomis|labell|modell|travell)\w*"
    r"|(?:colour|behaviour|favour|neighbour|honour)\w*|centre|centred|defence|licence|grey|programme|catalogue|whilst)\b",
    re.IGNORECASE,
)


def user_pages(among: tuple[str, ...] = PARTS) -> list[Path]:
    """Return the README and the pages of these parts of the site's menu; what the code writes is apart."""
    menu = re.split(r"(?m)^  - (.+?):$", (HOME / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2])
    parts = dict(zip(menu[1::2], menu[2::2], strict=True))
    names = [name for part in among for name in re.findall(r": ([\w./-]+\.md)$", parts[part], re.MULTILINE)]
    places = [HOME / TOP[name] if name in TOP else HOME / "docs" / name for name in names if name != "documents.md"]
    return [HOME / "README.md", *(place for place in places if place.is_file())]


def sentences(text: str) -> list[str]:
    """Return the sentences of a page: no code, tables, headings or figures; an item of a list is one or more."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$|<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "\n\n", text)
    text = re.sub(r"(?m)^#.*$|^\|.*$", "\n", text)
    text = re.sub(r"(?m)^ *(?:[-*]|\d+\.) ", "\n", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    # What stands in code is one word.
    text = re.sub(r"`[^`]*`", "Code", text)
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        found += re.split(r"(?<=[.!?:])[)*”\"]*\s+(?=[^a-z])", " ".join(paragraph.split()))
    return [sentence for sentence in found if len(sentence.split()) > 2]


@pytest.mark.parametrize("page", user_pages(), ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    """A page's sentences have 20 words on average."""
    lengths = [len(sentence.split()) for sentence in sentences(page.read_text(encoding="utf-8"))]
    assert sum(lengths) / len(lengths) <= MEAN


@pytest.mark.parametrize("page", user_pages((*PARTS, "Results")), ids=lambda page: page.name)
def test_no_sentence_is_long(page: Path) -> None:
    """No sentence of any page has more than 45 words."""
    said = sentences(page.read_text(encoding="utf-8"))
    assert {s: len(s.split()) for s in said if len(s.split()) > LONGEST} == {}


def test_sentences_are_found() -> None:
    """Code, tables and headings are no sentences, and a list is not one."""
    text = (
        "# A title\n\nOne two three. Four `x. y` five\nsix.\n\n- Seven eight nine.\n- Ten eleven twelve.\n\n| a b |\n"
    )
    found = ["One two three.", "Four Code five six.", "Seven eight nine.", "Ten eleven twelve."]
    assert sentences(text) == found


@pytest.mark.parametrize("page", user_pages(), ids=lambda page: page.name)
def test_spelling_is_american(page: Path) -> None:
    """Prose has organize, color and labeled; what stands in code may be an old name."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```$|^\|[^\n]*$|`[^`]*`|\]\([^)]*\)", " ", page.read_text(encoding="utf-8"))
    assert BRITISH.findall(prose) == []


@pytest.mark.parametrize("page", user_pages((*PARTS, "Results")), ids=lambda page: page.name)
def test_no_statement_begins_with_who(page: Path) -> None:
    """In English *who* alone begins a question; a statement says *anyone who* or *whoever*."""
    said = sentences(page.read_text(encoding="utf-8"))
    assert [s for s in said if re.match(r"(?:\*\*)?Who [a-z]", s) and not s.endswith(("?", "?**", ":"))] == []


def prose(text: str) -> int:
    """Return how many words of a page are read one after the other: code, tables and their marks are looked up."""
    return len(re.sub(r"(?ms)^ *```.*?^ *```$|<!--.*?-->|^\|[^\n]*$", " ", text).split())


#: Who reads everything reads a short book.
MOST_WORDS = 25_000


def test_the_documents_together_do_not_grow() -> None:
    """What somebody would read who read everything is counted, the generated reference and tables apart."""
    pages = [HOME / "docs" / "README.md", *user_pages((*PARTS, "Results"))]
    assert {*(HOME / "docs").glob("*.md"), *HOME.glob("*.md")} == set(pages)
    assert sum(prose(page.read_text(encoding="utf-8")) for page in pages) <= MOST_WORDS


def test_only_prose_is_counted() -> None:
    """A table, a block and a mark of the writer of tables have no words; a list has."""
    assert prose("One two.\n\n| a | b |\n\n```sh\nttca run x\n```\n<!-- mark -->\n- three\n") == 4


def said_in(node: ast.expr) -> str:
    """Return the words of a text in code; what is filled in is one word."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(said_in(v) if isinstance(v, ast.Constant) else "X" for v in getattr(node, "values", ()))


def errors() -> list[tuple[str, str]]:
    """Return every sentence that the library raises, and where."""
    found = []
    for path in sorted((HOME / "ttca").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = " ".join(said_in(node.exc.args[0]).split())
                place = f"{path.name}:{node.lineno}"
                found += [(place, sentence) for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if sentence]
    return found


def test_errors_are_short_and_english() -> None:
    """A sentence of an error has 32 words at most and 12 on average, and none in another language's grammar."""
    said = errors()
    assert len(said) > 1000
    assert [(place, s) for place, s in said if len(s.split()) > 32] == []
    assert sum(len(s.split()) for _, s in said) / len(said) <= 12
    foreign = re.compile(r"^Who [a-z][^?]*$|\b(?:that are none|goes on where it was|Killed, it)\b")
    assert [(place, s) for place, s in said if foreign.search(s) or BRITISH.search(s)] == []
