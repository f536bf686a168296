"""A client of https that begins a connection for every request, in a process of its own: its CPU is not what counts.

Prints how many answers came, how many of them on resumed sessions, and what was spoken.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("host", help="whose name is asked for")
    parser.add_argument("authority", type=Path)
    parser.add_argument("request", type=Path, help="a file with the request")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--resume", action="store_true", help="take up the first session again and again")
    arguments = parser.parse_args()
    request = arguments.request.read_bytes()
    context = ssl.create_default_context(cafile=str(arguments.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    session, spoken = None, set()
    answers = resumed = 0
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        plain = socket.create_connection(("127.0.0.1", arguments.port), 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname=arguments.host, session=session) as one:
            one.sendall(request)
            answer = one.recv(65536)
            while not answer.endswith(b"\n") or b"\r\n\r\n" not in answer:
                answer += one.recv(65536)
            assert answer.startswith(b"HTTP/1.1 307 "), answer
            answers += 1
            resumed += bool(one.session_reused)
            spoken.add((one.version(), one.cipher()[0]))  # type: ignore[index]
            if arguments.resume and session is None:
                session = one.session  # TLS 1.3 tells it after the handshake
            # A goodbye, as most clients say it: without waiting for the server's.
            one.setblocking(False)
            with contextlib.suppress(ssl.SSLError):
                one.unwrap()
    print(answers, resumed, *sorted(" ".join(pair) for pair in spoken), sep="|")


if __name__ == "__main__":
    main()
