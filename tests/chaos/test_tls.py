"""https, from outside: who is presented what, and what goes on while certificates are replaced."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certificate import Authority
from tests.support.server import WaypostServer, until

CONFIG = """
base_domain = "waypost.example"
[tls]
mode = "files"
certificates = [
  {{ domain = "get.example", certificate = "{folder}/get.pem", key = "{folder}/get.key" }},
  {{ domain = "*.acme.example", certificate = "{folder}/acme.pem", key = "{folder}/acme.key" }},
]
[[domain]]
host = "get.example"
hsts = true
[[domain]]
host = "plain.acme.example"
http = "serve"
[[package]]
type = "file"
name = "skates"
domains = ["get.example", "docs.acme.example", "plain.acme.example", "other.example"]
routes = [{{ path = "/{{v}}/skates.tgz", to = "https://dl.example/{{v}}" }}]
"""


class House:
    def __init__(self, server: WaypostServer, authority: Authority, folder: Path) -> None:
        self.server = server
        self.authority = authority
        self.folder = folder

    @contextlib.contextmanager
    def connection(
        self, name: str | None, context: ssl.SSLContext | None = None, **more: object
    ) -> Iterator[ssl.SSLSocket]:
        context = context or self.context()
        context.check_hostname = name is not None and context.verify_mode == ssl.CERT_REQUIRED
        with (
            socket.create_connection(("127.0.0.1", self.server.tls_port), 10) as plain,
            context.wrap_socket(plain, server_hostname=name, **more) as wrapped,  # type: ignore[arg-type]
        ):
            yield wrapped

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    def serial(self, name: str | None) -> str:
        with self.connection(name) as one:
            return str(one.getpeercert()["serialNumber"])  # type: ignore[index]

    def curl(self, url: str, *options: str) -> str:
        host = url.split("/")[2].split(":")[0]
        resolve = [f"{host}:{port}:127.0.0.1" for port in (self.server.port, self.server.tls_port)]
        command = ["curl", "-sS", "--max-time", "10", "--cacert", str(self.authority.file), *options]
        for one in resolve:
            command += ["--resolve", one]
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout


def ask(connection: ssl.SSLSocket, host: str, path: str = "/1.2/skates.tgz") -> bytes:
    """The head of an answer, on a connection that stays."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("get.example", "get.example", "127.0.0.1", stem="get")
    authority.issue("*.acme.example", stem="acme")
    server = WaypostServer(tmp_path_factory.mktemp("waypost"), CONFIG.format(folder=folder), workers=2, tls=True)
    try:
        server.start()
        yield House(server, authority, folder)
    finally:
        server.stop()


def test_the_same_answers_by_https_and_they_are_counted(house: House) -> None:
    before = house.server.metric("waypost_stored_total")
    said = house.curl(f"https://get.example:{house.server.tls_port}/1.2/skates.tgz", "-i")
    assert "HTTP/1.1 307" in said
    assert "https://dl.example/1.2" in said
    assert "strict-transport-security: max-age=31536000" in said.lower()
    until(lambda: house.server.metric("waypost_stored_total") == before + 1, what="the download to be stored")


def test_http_leads_to_https_and_is_not_counted(house: House) -> None:
    before = house.server.metric("waypost_stored_total")
    said = house.curl(f"http://get.example:{house.server.port}/1.2/skates.tgz?a=b", "-i")
    assert "HTTP/1.1 308" in said
    assert f"https://get.example:{house.server.tls_port}/1.2/skates.tgz?a=b" in said
    assert "strict-transport-security" not in said.lower()  # RFC 6797 section 7.2
    location = house.curl(
        f"http://docs.acme.example:{house.server.port}/1.3/skates.tgz", "-o", "/dev/null", "-w", "%{redirect_url}"
    )
    followed = house.curl(location, "-o", "/dev/null", "-w", "%{redirect_url}")
    assert followed == "https://dl.example/1.3"
    until(lambda: house.server.metric("waypost_stored_total") > before, what="the download to be stored")
    assert house.server.metric("waypost_stored_total") == before + 1


@pytest.mark.parametrize("host", ["plain.acme.example", "other.example"])
def test_who_keeps_http_or_has_no_certificate_is_served_by_http(house: House, host: str) -> None:
    assert "HTTP/1.1 307" in house.curl(f"http://{host}:{house.server.port}/1.2/skates.tgz", "-i")


@pytest.mark.parametrize("name", ["get.example", "GET.example", "docs.acme.example"])
def test_each_name_gets_its_certificate_with_its_chain(house: House, name: str) -> None:
    with house.connection(name) as one:
        assert one.selected_alpn_protocol() is None
        assert b" 307 " in ask(one, name.lower())
    if hasattr(ssl.SSLSocket, "get_unverified_chain"):
        with house.connection(name) as one:
            assert len(one.get_unverified_chain()) == 2


@pytest.mark.parametrize("name", ["unknown.example", "a.b.acme.example", "acme.example", "x" * 60 + ".example"])
def test_an_unknown_name_gets_none(house: House, name: str) -> None:
    """The connection ends. The alert that says why is made, and uvloop closes before it has left."""
    with pytest.raises(ssl.SSLError), house.connection(name):
        pass


def test_who_names_no_host_gets_the_first(house: House) -> None:
    with house.connection(None) as one:
        assert ("DNS", "get.example") in one.getpeercert()["subjectAltName"]  # type: ignore[index,operator]


def test_who_names_an_address_gets_the_first(house: House) -> None:
    """RFC 6066 section 3 forbids it, and wrk does it. Python's own client does not."""
    address = f"127.0.0.1:{house.server.tls_port}"
    command = ["openssl", "s_client", "-connect", address, "-servername", "127.0.0.1", "-CAfile", house.authority.file]
    done = subprocess.run(
        [*command, "-verify_return_error", "-verify_hostname", "get.example"],
        input=b"",
        capture_output=True,
        timeout=20,
    )
    assert b"Verify return code: 0 (ok)" in done.stdout, done.stderr


def test_http_1_1_is_chosen_where_http_2_is_offered(house: House) -> None:
    context = house.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with house.connection("get.example", context) as one:
        assert one.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        (["-tls1_3"], True),
        (["-tls1_2"], True),
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
        (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], False),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], True),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], False),  # no authenticated encryption
        (["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], False),  # no forward secrecy
        (["-tls1_2", "-cipher", "NULL:@SECLEVEL=0"], False),
    ],
)
def test_only_what_is_sound_is_spoken(house: House, options: list[str], accepted: bool) -> None:
    address = f"127.0.0.1:{house.server.tls_port}"
    command = ["openssl", "s_client", "-connect", address, "-servername", "get.example", "-brief", *options]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20)
    assert (b"CONNECTION ESTABLISHED" in done.stderr) == accepted, done.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_one_worker_began_another_resumes(house: House, version: ssl.TLSVersion) -> None:
    """The kernel spreads connections over two workers; of twenty all must be resumed."""
    context = house.context()
    context.maximum_version = version
    with house.connection("get.example", context) as one:
        ask(one, "get.example")  # TLS 1.3 sends its tickets after the handshake
        session = one.session
    for _ in range(20):
        with house.connection("get.example", context, session=session) as one:
            ask(one, "get.example")
            assert one.session_reused


def test_a_replaced_certificate_is_presented_and_no_connection_falls(house: House) -> None:
    before = house.serial("get.example")
    with house.connection("get.example") as kept:
        ask(kept, "get.example")
        house.authority.issue("get.example", "get.example", "127.0.0.1", stem="get")
        until(lambda: {house.serial("get.example") for _ in range(6)} - {before}, what="the new certificate")
        until(lambda: before not in {house.serial("get.example") for _ in range(10)}, what="it in every worker")
        assert b" 307 " in ask(kept, "get.example")


def test_a_broken_one_is_refused_and_the_old_one_stays(house: House) -> None:
    before = house.serial("get.example")
    chain = house.folder / "get.pem"
    good = chain.read_bytes()
    try:
        # The key of another: written in place, as a careless script does.
        chain.write_bytes((house.folder / "acme.pem").read_bytes())
        until(lambda: "not the key of the first certificate" in house.server.log.read_text(), what="the complaint")
        assert {house.serial("get.example") for _ in range(6)} == {before}
        os.rename(chain, chain.with_suffix(".away"))
        until(lambda: "cannot be read: No such file" in house.server.log.read_text(), what="the complaint")
        assert {house.serial("get.example") for _ in range(6)} == {before}
    finally:
        chain.write_bytes(good)


def test_handshakes_that_never_end_are_ended(house: House) -> None:
    """Silence, and plain http on the port for https: neither keeps others from being served."""
    address = ("127.0.0.1", house.server.tls_port)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(50)]
        for one in idle[::2]:
            one.sendall(b"GET / HTTP/1.1\r\nHost: get.example\r\n\r\n")
        with house.connection("get.example") as other:
            assert b" 307 " in ask(other, "get.example")
        for one in idle[::2]:
            one.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert not one.recv(65536).startswith(b"HTTP/")
        for one in idle[1::2]:
            one.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b""


def test_without_certificates_there_is_no_https(tmp_path: Path) -> None:
    server = WaypostServer(tmp_path, 'base_domain = "waypost.example"\n', tls=True)
    with pytest.raises(AssertionError, match="--listen-tls needs certificates"):
        server.start()
