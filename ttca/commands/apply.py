"""`ttca apply`: a member's photographs, prepared and with the change of their class, ready to be submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from ttca.commands.shared import ERR, JsonOption, emit, reporter, say

__all__ = ["apply"]


def apply(
    perturbations: SetArgument,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PHOTO...",
            help="Photographs and folders of them, of any kind and size where SET says how they are prepared; else of "
            "the platform's size.",
        ),
    ] = None,
    true_class: ClassOption = None,
    out: Annotated[
        Path, typer.Option(help="The folder for what you submit; for one photograph, also a name ending in .png.")
    ] = Path("submit"),
    table: Annotated[
        Path | None,
        typer.Option(help="A table with the columns file and class (and perhaps box), beside your photographs."),
    ] = None,
    box: BoxOption = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write a picture of before, difference × 10 and after.")
    ] = False,
    platform: Annotated[
        Path | None,
        typer.Option(help="Your file with [platform]: refuse a set that was made for another. Sends no picture."),
    ] = None,
    epsilon: EpsilonOption = None,
    key: KeyOption = None,
    force: ForceOption = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Apply a perturbation to your own photographs.

    Prepares each as the collective's were, adds the perturbation of its true class, and writes a PNG without metadata.
    Runs on your own machine, sends nothing, and does not need torch. Says whom the set is for, what was proved, and who
    signed it. Refuses one that was changed since (docs/members.md).
    """
    from ttca.config import platform_info
    from ttca.errors import ImageError
    from ttca.members import Output, apply_photos, find_photos, with_classes
    from ttca.preparation import parse_box

    part = None if box is None else parse_box(box)
    info = None if platform is None else platform_info(platform, reporter())
    known, found = usable_set(perturbations, key=key, platform=info, epsilon=epsilon, anyway=anyway)
    output = Output(place=out, preview=preview, force=force)
    output.check_outside(photos or [])
    chosen, others = find_photos(photos or [], table=table, true_class=true_class, box=part)
    chosen = with_classes(chosen, known.perturbations, asks_class())
    done = apply_photos(known.perturbations, chosen, output, reporter=reporter())
    refused = [one for one in done if one.state == "refused"]
    if refused and len(done) == 1:
        raise ImageError(f"{refused[0].source}: {refused[0].problem}")
    good = [one for one in done if one.state != "refused"]
    lines = [*said_of_set(known, found), *(one.told() for one in good)]
    left = [one.left_by_jpeg for one in good if one.left_by_jpeg is not None]
    if left:
        share = f"{100 * sum(left) / len(left):.0f} %"
        lines.append(f"A JPEG file of quality 75 would keep {share} of the change in what was written here.")
    lines.append(
        f"Ready: {len(good)} of {len(done)}. Place, camera, time and all other metadata are gone. "
        "Submit them as they are: PNG, not JPEG."
        if good
        else f"Nothing was written: all {len(done)} photographs were refused. Correct what is said of each, and run it "
        "again."
    )
    said = {
        "set": known.to_dict(),
        "doubts": [doubt.to_dict() for doubt in found],
        "photos": [one.to_dict() for one in done],
        "left_out": others,
        "ready": len(good),
        "refused": len(refused),
    }
    emit(said, as_json, "\n".join(lines))
    if others:
        say(ERR, f"Left out, by how their names end: {', '.join(others)}. If one is a photograph, name it itself.")
    for one in refused:
        say(ERR, one.told())
    if refused:
        raise typer.Exit(1)
