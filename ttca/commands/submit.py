"""`ttca submit`: one photograph is sent to the member's own platform as it is and with δ, and a receipt is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ttca.commands.members import (
    AnywayOption,
    BoxOption,
    ClassOption,
    EpsilonOption,
    ForceOption,
    KeyOption,
    SetArgument,
    asks_class,
    said_of_set,
    usable_set,
)
from ttca.commands.shared import ERR, OUT, JsonOption, emit, reporter, say

if TYPE_CHECKING:
    from ttca.config import PlatformSection

__all__ = ["submit"]


def submit(
    perturbations: SetArgument,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="Your photograph.")],
    platform: Annotated[Path, typer.Option(help="Your own file with [platform], as docs/platforms.md describes it.")],
    true_class: ClassOption = None,
    out: Annotated[Path, typer.Option(help="The folder for what is submitted and its receipt.")] = Path("submit"),
    box: BoxOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking first, for scripts.")] = False,
    epsilon: EpsilonOption = None,
    key: KeyOption = None,
    force: ForceOption = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit one photograph and show both answers.

    Applies the perturbation as ttca apply does, and queries your platform twice under your own key: with the prepared
    photograph, then with what ttca apply writes. Says so first. Keeps a receipt: what was sent (by digest), both
    answers, time, service.
    """
    from ttca.config import read_platform
    from ttca.errors import ConfigError
    from ttca.members import Output, find_photos, move, with_classes
    from ttca.new_files import write_file
    from ttca.platforms.protocols.encoding import as_png
    from ttca.preparation import parse_box
    from ttca.submitting import Submission, check_fits_platform, submit_photo

    section = read_platform(platform, reporter())
    if photo.is_dir():
        raise ConfigError(f"Expected one photograph, got the folder {photo}. ttca apply takes folders.")
    with section.open() as service:
        known, found = usable_set(perturbations, key=key, platform=service.info, epsilon=epsilon, anyway=anyway)
        check_fits_platform(known, service.info)
        if (small := section.too_small(service.info.image_shape)) is not None:
            raise ConfigError(f"{small} Nothing was sent.")
        part = None if box is None else parse_box(box)
        photos, _ = find_photos([photo], true_class=true_class, box=part)
        (mine,) = with_classes(photos, known.perturbations, asks_class())
        ((place, _),) = Output(place=out).names([mine])
        moved = _moved(lambda: move(known.perturbations, mine), photo)
        for sentence in said_of_set(known, found):
            say(ERR, sentence)
        _agreed(section, service.info.name, yes)
        write_file(place, as_png(moved.after), force=force)
        what = Submission(
            known=known, doubts=found, photo=mine, moved=moved, out=place, receipt=_receipt(place),
            key_variable=section.key_variable,
        )  # fmt: skip
        receipt = submit_photo(service, what)
    lines = [f"Without the change: {_told(receipt['before'])}", f"With the change: {_told(receipt['after'])}"]
    emit(
        receipt | {"file": str(place), "receipt": str(what.receipt)},
        as_json,
        "\n".join([*lines, f"Sent {place}. The receipt is {what.receipt}: 2 queries were charged to you."]),
    )


def _moved(make: Any, photo: Path) -> Any:
    """Return what is made of a photograph; an error says of which."""
    from ttca.errors import DataError, ImageError

    try:
        return make()
    except (DataError, ImageError) as error:
        raise ImageError(f"{photo}: {error}") from None


def _agreed(section: PlatformSection, service: str, yes: bool) -> None:
    """Say what it costs and go on if the member agrees; raise otherwise, with nothing sent."""
    from ttca.errors import ConfigError

    price = "" if section.price is None else f", for {section.price.told(2)}"
    say(
        ERR,
        f"This asks {service} twice under your own key{price}: with your photograph, prepared but unchanged, then with "
        "the change. Both pictures leave this machine.",
    )
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError("Expected --yes where nobody can answer, got none. Nothing was sent.")
    if not typer.confirm("Send both?", err=True):
        say(OUT, "Nothing was sent.")
        raise typer.Exit(1)


def _receipt(place: Path) -> Path:
    """Return a new file beside what is submitted."""
    number, made = 1, place.with_name(f"{place.stem}-receipt.json")
    while made.exists():
        number += 1
        made = place.with_name(f"{place.stem}-receipt-{number}.json")
    return made


def _told(said: dict[str, Any]) -> str:
    if said["status"] == "refused":
        return "the service refused to answer."
    if said["answer"] is None:
        return "no answer that can be read came."
    best = sorted((said["scores"] or {}).items(), key=lambda pair: -pair[1])[:3]
    scores = ", ".join(f"{name} {score:.3g}" for name, score in best)
    return f"{said['answer']}{f' ({scores})' if scores else ''}, which is {'right' if said['right'] else 'wrong'}."
