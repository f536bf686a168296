"""The commands. Each reads its arguments, calls one function below, and says plainly what went wrong."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from waypost import __version__, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from waypost.catalog.compile import Compiled
    from waypost.routing.decision import Fact, Fetch, Redirect
    from waypost.routing.request import Request

app = typer.Typer(
    name="waypost",
    help="One address for ever for everything your project ships. Waypost redirects each download to where the "
    "file is hosted today, proxies where a client cannot follow, and counts on the way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[
    Path, typer.Option("--config", envvar="WAYPOST_CONFIG", help="The configuration file.", metavar="FILE")
]
Data = Annotated[
    Path,
    typer.Option("--data", envvar="WAYPOST_DATA", help="The folder that Waypost keeps its data in.", metavar="DIR"),
]
CONFIG = Path("waypost.toml")
DATA = Path("waypost-data")
PORT = 8080  # of the public listener, as far as commands know that do not ask the server


def fail(message: object, status: int = 2) -> NoReturn:
    """Says on stderr what happened and what to do; 2 is the operator's to mend, 1 is ours or the machine's."""
    typer.echo(f"waypost: {message}", err=True)
    raise typer.Exit(status)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"waypost {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    config: Config = CONFIG,
    data: Data = DATA,
    listen: Annotated[
        str, typer.Option(envvar="WAYPOST_LISTEN", help="Where clients reach us.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    listen_tls: Annotated[
        str | None,
        typer.Option(envvar="WAYPOST_LISTEN_TLS", help="Where clients reach us by https.", metavar="HOST:PORT"),
    ] = None,
    console: Annotated[
        str,
        typer.Option(
            envvar="WAYPOST_CONSOLE", help="Where health, metrics and numbers are answered.", metavar="HOST:PORT"
        ),
    ] = "127.0.0.1:8081",
    workers: Annotated[
        int, typer.Option(envvar="WAYPOST_WORKERS", min=0, max=256, help="Gateway processes; 0 is one for each core.")
    ] = 0,
) -> None:
    """Serve everything that the configuration declares, until stopped.

    Edits of the configuration are taken up within a second, without a restart. A mistake in it is reported
    here, and what was served before goes on being served.
    """
    from waypost import supervisor
    from waypost.catalog.compile import compile_file
    from waypost.data import DataDirectory, DataInUse
    from waypost.settings import SettingsError

    log.configure("supervisor")
    count = workers or len(os.sched_getaffinity(0))
    try:
        public_address, console_address = supervisor.Address.parse(listen), supervisor.Address.parse(console)
        tls_address = None if listen_tls is None else supervisor.Address.parse(listen_tls)
    except ValueError as error:
        fail(error)
    directory = DataDirectory(data)
    try:
        # Before anything is opened: a bad configuration changes nothing.
        compiled = compile_file(config, public_address.port, tls_address.port if tls_address else None)
        if tls_address is not None and not compiled.certificates:
            fail('--listen-tls needs certificates: declare them as tls.certificates, with tls.mode = "files"')
        directory.create()
        directory.own()
        public = supervisor.listen(public_address, count)
        encrypted = supervisor.listen(tls_address, count) if tls_address else None
        private = supervisor.listen(console_address, 1)
        if public[1] != public_address or (encrypted and encrypted[1] != tls_address):
            # Port 0: only now is it known what links are made of.
            compiled = compile_file(config, public[1].port, encrypted[1].port if encrypted else None)
        boss = supervisor.Supervisor(config, directory, public, encrypted, private, compiled)
    except SettingsError as error:
        fail(f"the configuration cannot be used:\n{error}")
    except DataInUse as error:
        fail(error)
    except supervisor.ListenError as error:
        fail(f"cannot listen on {error}; choose another --listen, --listen-tls or --console")
    except OSError as error:
        fail(f"cannot use the data directory {data}: {error.strerror} ({error.filename})")
    for warning in compiled.warnings:
        typer.echo(f"waypost: {warning}", err=True)
    tls = f" and https://{boss.tls_address}" if boss.tls_address else ""
    where = f"at http://{boss.address}{tls}; console at {boss.console_address.url}"
    typer.echo(f"waypost {__version__}: {compiled.summary}, {where}", err=True)
    boss.run()


@app.command()
def check(config: Config = CONFIG) -> None:
    """Check the configuration and its manifests.

    Exit status 2, and every mistake with its line, if they cannot be used.
    """
    compiled = _compile(config)
    for warning in compiled.warnings:
        typer.echo(f"waypost: {warning}", err=True)
    typer.echo(f"{config}: {compiled.summary}; all is well")


@app.command()
def add(
    pasted: Annotated[
        str,
        typer.Argument(
            help="What users type or open today: a `docker pull` line, an image name, a `deb` line or a URL.",
            metavar="PASTED",
        ),
    ],
    domain: Annotated[
        str | None, typer.Option(help="The host that users will use from now on.", metavar="HOST")
    ] = None,
    config: Config = CONFIG,
) -> None:
    """Write a package into the configuration.

    Paste the command that users type today; what they type from now on is printed. Comments and order of the
    file are kept. A file that does not exist is made.
    """
    from waypost.catalog.add import AddError
    from waypost.catalog.add import add as write
    from waypost.settings import SettingsError

    try:
        added = write(config, pasted, domain, _port())
    except AddError as error:
        fail(error)
    except SettingsError as error:
        fail(f"nothing was written, since {config} could not be used then:\n{error}")
    except UnicodeDecodeError:
        fail(f"{config}: found bytes that are not UTF-8; expected UTF-8 text")
    except OSError as error:
        fail(f"{config} cannot be written: {error.strerror}")
    entry = added.entry
    typer.echo(f"{'Made' if added.made else 'Added to'} {config}: {entry.name}")
    if entry.note:
        typer.echo(f"Note: {entry.note}.")
    use = entry.use.format(base=added.base_url, host=urlsplit(added.base_url).netloc)
    typer.echo(f"From now on users type:\n\n    {use}\n")


@app.command()
def move(
    package: Annotated[str, typer.Argument(help="The image, as users pull it.", metavar="PACKAGE")],
    upstream: Annotated[
        str | None, typer.Argument(help="Where it is from now on: quay.io/acme/rocket-skates.", metavar="UPSTREAM")
    ] = None,
    leaving: Annotated[
        str | None,
        typer.Option("--from", help="Which of several upstreams it leaves. [the first]", metavar="UPSTREAM"),
    ] = None,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Leave the old one in the list, as second.")] = False,
    since: Annotated[
        str, typer.Option(help="What was pulled since then is in use: 30d, 12h, 2026-11-01 or all.", metavar="SPAN")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare; the status says what would be.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Move although people would notice.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last move of PACKAGE back.")] = False,
    watch: Annotated[
        float, typer.Option(min=0, help="For how long the first pulls are watched; 0 not at all.", metavar="SECONDS")
    ] = 60,
    config: Config = CONFIG,
    data: Data = DATA,
) -> None:
    """Move an image to another registry, without anyone noticing.

    Compares what people pull, and every other tag, on both registries; refuses if something in use is not the same
    there, and prints the commands that copy it. Then the one line is changed, and the first pulls are watched.
    """
    from waypost.console import client, report
    from waypost.moving import move as moving
    from waypost.moving.line import MoveError
    from waypost.moving.words import Counter
    from waypost.settings import SettingsError

    if (upstream is None) != undo:
        fail("expected UPSTREAM, where the image goes, or --undo; " + ("found both" if undo else "found neither"))
    if undo and (leaving or keep_old or force or dry_run):
        fail("--undo goes back as it was; of the other options it takes --watch alone")
    try:
        since_us = report.question(package, since, None, True).since_us
        order = moving.Order(
            config, data, _port(), package, since_us, leaving, keep_old, force=force, dry_run=dry_run, watch=watch
        )
        if upstream is None:
            moving.undo(order, typer.echo)
        else:
            moving.move(order, upstream, typer.echo, Counter(sys.stderr))
    except (ValueError, MoveError) as error:
        fail(error)
    except SettingsError as error:
        fail(f"the configuration cannot be used:\n{error}")
    except client.NoNumbers as error:
        fail(error, 1)
    except OSError as error:
        fail(f"{error.filename or config} cannot be written: {error.strerror}", 1)


@app.command()
def explain(
    url: Annotated[
        str,
        typer.Argument(
            help="What a client would ask for, such as http://get.acme.example/1.2/skates.tgz", metavar="URL"
        ),
    ],
    method: Annotated[str, typer.Option("-X", "--method", help="The method.", metavar="METHOD")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="A header; repeat it for more.", metavar="'K: V'")
    ] = None,
    config: Config = CONFIG,
    data: Data = DATA,
) -> None:
    """Say which rule answers a request, and why.

    Also why the others do not, what would be counted, and, while a server runs on the data directory, whether the
    upstreams are up, as its workers have found. Nobody is asked.
    """
    from waypost.catalog.explain import explain_request

    try:
        lines = explain_request(
            _compile(config).snapshot, method, url, header or [], _left_out, _health(data), _steer(data)
        )
    except ValueError as error:
        fail(error)
    for line in lines:
        typer.echo(line)


@app.command()
def stats(
    package: Annotated[str | None, typer.Argument(help="Only this package.", metavar="PACKAGE")] = None,
    since: Annotated[str, typer.Option(help="How far back: 30d, 12h, 2026-11-01 or all.", metavar="SPAN")] = "30d",
    by: Annotated[
        str | None,
        typer.Option(
            help="Split by version, tag, platform, country, client, day, package, domain … [package; for one: version]",
            metavar="FIELD",
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="table, json or csv.", metavar="FORMAT")] = "table",  # noqa: A002  the flag's name
    everything: Annotated[bool, typer.Option("--all", help="Count CI systems, mirrors and bots too.")] = False,
    config: Config = CONFIG,
    data: Data = DATA,
) -> None:
    """Show what was downloaded. Asks the running server, or opens the store if there is none."""
    from waypost.console import client, report

    if format not in report.FORMATS:
        fail(f"--format: found {format!r}; expected one of {', '.join(report.FORMATS)}")
    try:
        question = report.question(package, since, by or ("version" if package else "package"), everything)
        answer = client.numbers(data).stats(question)
    except ValueError as error:
        fail(error)
    except client.NoNumbers as error:
        fail(error, 1)
    typer.echo(report.render(answer, question, format), nl=False)


@app.command()
def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print events as they are stored, from now on.")
    ] = False,
    format: Annotated[str, typer.Option(help="ndjson or csv.", metavar="FORMAT")] = "ndjson",  # noqa: A002  the flag's name
    config: Config = CONFIG,
    data: Data = DATA,
) -> None:
    """Print stored events, oldest first, one a line."""
    from waypost.console import client, report

    if format not in ("ndjson", "csv"):
        fail(f"--format: found {format!r}; expected ndjson or csv")
    try:
        for text in report.event_lines(client.numbers(data).events(follow), format):
            sys.stdout.write(text)
            sys.stdout.flush()
    except client.NoNumbers as error:
        fail(error, 1)
    except BrokenPipeError:
        sys.stderr.close()


def _left_out(request: Request, fact: Fact, status: int) -> str | None:
    """Asks the law about one fact, as the gateway would record it and as if its source had done nothing before."""
    from waypost.counting.law import left_out
    from waypost.events.event import Event
    from waypost.gateway.record import is_partial

    event = Event(
        id=bytes(16),
        time=0,
        kind=fact.kind,
        package=fact.package,
        domain=request.host,
        method=request.method,
        path=request.path,
        status=status,
        partial=is_partial(request.header("range")),
        artifact=fact.artifact,
    )
    return left_out(event)


def _health(data: Path) -> Callable[[str], str] | None:
    """What the workers of a running server say of an upstream; None if none runs."""
    from waypost.data import DataDirectory
    from waypost.events.standings import said, told
    from waypost.upstream.outage import read

    directory = DataDirectory(data)
    if directory.running() is None:
        return None
    standings = told(directory.health)
    left = {outage.host for outage in read(directory.outages) or [] if outage.left}

    def health(host: str) -> str:
        now = said(host, standings, time.time())
        return f"{now}; it was down for long, and what is pinned comes from it last" if host in left else now

    return health


def _steer(data: Path) -> Callable[[Redirect | Fetch], Redirect | Fetch] | None:
    """Where a running server sends clients now; None if none runs."""
    from waypost.data import DataDirectory
    from waypost.gateway.choice import choose, pinned
    from waypost.gateway.pins import Pins
    from waypost.routing.decision import Redirect
    from waypost.upstream.health import Health
    from waypost.upstream.outage import read

    directory = DataDirectory(data)
    if directory.running() is None:
        return None
    pins = Pins(time.monotonic)
    pins.take(read(directory.outages) or [])

    def steer(decision: Redirect | Fetch) -> Redirect | Fetch:
        if isinstance(decision, Redirect):
            return choose(decision, Health(time.monotonic), pins)
        return decision if decision.pin is None else pinned(decision, pins)

    return steer


def _port() -> int:
    """Of the public listener, as far as a command can know: links are made of it."""
    port = os.environ.get("WAYPOST_LISTEN", "").rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() else PORT


def _tls_port() -> int | None:
    """Of the listener for https, likewise."""
    port = os.environ.get("WAYPOST_LISTEN_TLS", "").rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() else None


def _compile(config: Path) -> Compiled:
    from waypost.catalog.compile import compile_file
    from waypost.settings import SettingsError

    try:
        return compile_file(config, _port(), _tls_port())
    except SettingsError as error:
        fail(f"the configuration cannot be used:\n{error}")


def main() -> None:
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
