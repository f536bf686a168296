"""`waypost move`: compare, refuse or go on, change the line, watch; and `--undo`, which goes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from waypost.artifacts.reference import ImageName, parse_upstream
from waypost.artifacts.snapshot import Snapshot
from waypost.catalog.candidate import put
from waypost.catalog.compile import compile_file
from waypost.console.client import Asked, NoNumbers, numbers
from waypost.console.question import ImageQuestion
from waypost.data import DataDirectory
from waypost.gateway.application import declared
from waypost.moving import words
from waypost.moving.asking import Progress, Registries, inquire
from waypost.moving.compare import Comparison, objections
from waypost.moving.line import Change, MoveError, moved, read, restored, show
from waypost.moving.memory import Moved, Moves
from waypost.moving.watch import Say, Watched
from waypost.stores.store import InUse
from waypost.upstream.client import Client
from waypost.upstream.upstreams import Upstreams


class Order(Struct, frozen=True):
    """What the operator asks for.

    config, data, port   the file, the data directory, the port of the public listener
    leaving   which of several upstreams is left; None: the first
    keep_old  the one that is left stays, behind the new one
    since_us  what was pulled from then on is in use
    force     go on although somebody would notice
    dry_run   only compare
    watch     seconds for which the first pulls are watched
    """

    config: Path
    data: Path
    port: int
    package: str
    since_us: int
    leaving: str | None = None
    keep_old: bool = False
    force: bool = False
    dry_run: bool = False
    watch: float = 60.0


def move(order: Order, to: str, say: Say, progress: Progress) -> None:
    """Raises MoveError, SettingsError, NoNumbers or OSError. Until it says "Changed", nothing is."""
    snapshot = compile_file(order.config, order.port).snapshot
    change = _change(order, to)
    say(f"{order.package}: from {words.image(change.old)} to {words.image(change.new)}")
    in_use, problem = _in_use(order)
    comparison = asyncio.run(_compare(snapshot, change, in_use, progress))
    if problem:
        comparison = Comparison(comparison.rows, (problem, *comparison.problems))
    for line in words.lines(comparison):
        say(line)
    if copying := list(words.commands(comparison, change.old, change.new, in_use.indexes)):
        say("\nThis copies what is missing, and makes the same what is different:\n")
        say("".join(f"    {line}\n" for line in copying))
    against = objections(comparison, order.keep_old)
    if against and not order.force:
        raise MoveError(_refusal(order, against))
    for sentence in against:
        say(f"Moving all the same: {sentence}.")
    if order.dry_run:
        say("Nothing was changed (--dry-run).")
        return
    now = _change(order, to)  # the comparison may have taken minutes, and the file is people's
    if (now.was, now.old) != (change.was, change.old):
        raise MoveError(f"upstream of {order.package} was changed while registries were asked; move again")
    moves = Moves(DataDirectory(order.data).moves)
    moves.remember(Moved(order.package, now.was, now.now, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"))
    try:
        server = _replace(order, now.text)
    except BaseException:
        moves.forget_last(order.package)
        raise
    say(f"Changed {order.config}: upstream = {show(now.now)}. To go back: waypost move {order.package} --undo")
    if order.keep_old:
        old = words.image(now.old)
        say(f"{old} stays behind it. When `waypost stats {order.package} --by upstream` shows it no more:\n")
        say(f"    waypost move {order.package} {to} --from {old}\n")
    _follow(order, server, now.new, say)


def undo(order: Order, say: Say) -> None:
    """Raises as `move` does."""
    moves = Moves(DataDirectory(order.data).moves)
    last = moves.last(order.package)
    compile_file(order.config, order.port)  # what cannot be read cannot be put back either, and this says why
    server = _replace(order, restored(_text(order.config), order.package, last.was, last.now))
    moves.forget_last(order.package)
    before = read(last.was)
    say(f"Changed {order.config} back: upstream = {show(before)}, as before {last.time}.")
    _follow(order, server, parse_upstream(before if isinstance(before, str) else before[0]), say)


def _change(order: Order, to: str) -> Change:
    return moved(_text(order.config), order.package, to, order.leaving, order.keep_old)


def _text(config: Path) -> str:
    return config.read_bytes().decode()


def _in_use(order: Order) -> tuple[InUse, str]:
    """(what people pull, why that is not known)."""
    try:
        return numbers(order.data).in_use(ImageQuestion(package=order.package, since_us=order.since_us)), ""
    except NoNumbers as error:
        return InUse([], {}), f"it is not known what is in use: {error}"


async def _compare(snapshot: bytes, change: Change, in_use: InUse, progress: Progress) -> Comparison:
    upstreams = Upstreams(Client(declared(Snapshot(snapshot).policy)))
    try:
        return await inquire(Registries(upstreams), change.old, change.new, in_use, progress)
    finally:
        await upstreams.close()


def _refusal(order: Order, against: list[str]) -> str:
    then = "it would not be moved" if order.dry_run else "it was not moved, and nothing was changed"
    lines = "".join(f"\n  {sentence}" for sentence in against)
    return f"people might notice, so {then}:{lines}\nCopy first, or say --force to move all the same"


def _replace(order: Order, text: str) -> Watched | None:
    """The new text takes its place. The server that runs meanwhile, if one does."""
    running = DataDirectory(order.data).running()
    watched = None if running is None else Watched(Asked(running), running.config)
    put(order.config, text, order.port)
    return watched


def _follow(order: Order, server: Watched | None, image: ImageName, say: Say) -> None:
    """A running server takes it up, and the first pulls go through `image`'s registry."""
    if server is None:
        say(f"No server runs on {order.data}; the next one serves it so.")
    elif not server.reads(order.config):
        say(f"The running server reads {server.config}, and knows nothing of this.")
    elif not server.taken_up():
        say("The running server has not taken it up yet; its log may say why.")
    else:
        say("The running server has taken it up.")
        if order.watch:
            pulls = server.watch(order.package, image.registry, order.watch, say)
            say(f"{pulls:,} pull{'s' * (pulls != 1)} through {image.registry}.")
