"""Stand-ins for the registries that everybody uses, on loopback.

None of them is the real one. Each behaves as `manners` has it, and all code is the same for all of them. Tags, images
and accounts are put in by tests.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clients.registries import Image, Server
from tests.support.manners import EXPIRED, REQUIRED, Manner, Refusal


@dataclass
class Repository:
    """`tags` in the order in which the registry lists them."""

    private: bool
    tags: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """`repository` is what its scope names, or "" for a token that names none."""

    user: str | None
    repository: str
    until: float


class Answer(Exception):
    """Ends the handling of a request."""

    def __init__(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        super().__init__(status)
        self.status, self.headers, self.body = status, dict(headers or {}), body


class StandIn:
    """One registry, its token endpoint and its storage.

    asked      "METHOD HOST PATH" of each request, with its Authorization scheme at the end if it had one
    quota      manifest GETs that are left; None: any number
    retry_after  of its 429; None: it says nothing of when to come back
    life       of tokens, in seconds
    """

    def __init__(self, manner: Manner) -> None:
        self.manner = manner
        self.repositories: dict[str, Repository] = {}
        self.user, self.password = manner.user, _password(manner)
        self.asked: list[str] = []
        self.quota: int | None = None
        self.retry_after: str | None = None
        self.life = 300.0
        self.tokens: dict[str, Token] = {}
        self.refresh: set[str] = set()
        self._expired: set[str] = set()
        self._signature = secrets.token_urlsafe(12)
        self._server = Server(_handler(self._registry))
        # Another host, as it is in truth: Go's clients take a token along to another port of the same one.
        self._storage = Server(_handler(self._store), "127.0.0.2")

    @property
    def connect(self) -> dict[str, str]:
        """Host → where it really is, as [[upstream]] declares it."""
        return {host: self._server.url for host in (self.manner.host, self.manner.realm_host) if host}

    @property
    def repository(self) -> str:
        """The repository that `manner.written` names."""
        written = self.manner.written
        return written.removeprefix(f"{self.manner.host}/")

    def close(self) -> None:
        self._server.close()
        self._storage.close()

    def publish(self, repository: str, image: Image, *tags: str, private: bool = False) -> None:
        held = self.repositories.setdefault(repository, Repository(private))
        held.manifests.update(image.manifests)
        held.blobs.update(image.blobs)
        held.tags.update(dict.fromkeys(tags, image.top))

    def revoke(self) -> None:
        """Every token is no longer good. Where it is the password that expires, there is another."""
        self.tokens.clear()
        if not self.manner.realm:
            self._expired.add(self.password)
            self.password = _password(self.manner)

    # The registry and its token endpoint share a server, and are told apart by Host.

    def _registry(self, request: http.server.BaseHTTPRequestHandler) -> None:
        host = request.headers["Host"]
        parts = urllib.parse.urlsplit(request.path)
        scheme = (request.headers["Authorization"] or "").partition(" ")[0]
        self.asked.append(f"{request.command} {host} {request.path} {scheme}".rstrip())
        if host not in self.connect:
            raise Answer(421, body=b"another host's registry")
        if self.manner.realm == f"https://{host}{parts.path}":
            self._grant(request, parts.query)
        if host == self.manner.host and parts.path.startswith("/artifacts-downloads/"):
            self._store(request)
        if host != self.manner.host or not parts.path.startswith("/v2"):
            raise Answer(404, body=b"no such page")
        if parts.path in ("/v2", "/v2/"):
            self._authorise(request, PING)
            raise Answer(200, body=b"{}")
        name, verb, reference = parts.path.removeprefix("/v2/").rsplit("/", 2)
        held = self._authorise(request, name)
        if held is None:
            raise self._refused(self.manner.unknown, name)
        if verb == "manifests":
            self._manifest(request, held, reference)
        if verb == "blobs":
            self._blob(held, reference)
        if (verb, reference) == ("tags", "list"):
            self._tags(name, held, dict(urllib.parse.parse_qsl(parts.query)))
        raise Answer(404, body=b"no such page")

    def _authorise(self, request: http.server.BaseHTTPRequestHandler, name: str) -> Repository | None:
        """The repository, or None if there is none. Does not return if this client may not know."""
        manner, held = self.manner, self.repositories.get(name)
        scheme, _, given = (request.headers["Authorization"] or "").partition(" ")
        if not scheme:
            if manner.open and held is not None and not held.private:
                return held
            raise self._challenge(name)
        if not manner.realm:
            user, password = _basic(given)
            if scheme != "Basic" or user != self.user:
                raise self._challenge(name)
            if password != self.password:
                raise self._refused(EXPIRED if password in self._expired else manner.wrong, name)
            return held
        token = self.tokens.get(given) if scheme == "Bearer" else None
        if token is None or token.until <= time.monotonic():
            raise self._refused(manner.stale, name) if manner.stale else self._challenge(name, "invalid_token")
        for_all = "{name}" not in manner.scope
        opens = for_all or name == PING or token.repository == name
        if not opens or (held is not None and held.private and not token.user):
            raise self._refused(manner.denied, name)
        return held

    def _challenge(self, name: str, error: str = "") -> Answer:
        manner = self.manner
        if manner.realm:
            scope = manner.scope.format(name=name)
            parameters = {"realm": manner.realm, "service": manner.service, "scope": scope, "error": error}
            line = "Bearer " + ",".join(f'{key}="{value}"' for key, value in parameters.items() if value)
        else:
            line = f'Basic realm="https://{manner.host}/",service="{manner.service}"'
        return Answer(401, {"WWW-Authenticate": line, **JSON}, _errors(REQUIRED))

    def _refused(self, refusal: Refusal, name: str) -> Answer:
        if refusal[0] == 401:
            answer = self._challenge(name, "insufficient_scope")
            return Answer(401, answer.headers, _errors(refusal))
        return Answer(refusal[0], JSON, _errors(refusal))

    def _grant(self, request: http.server.BaseHTTPRequestHandler, query: str) -> None:
        """The Distribution project's "Token authentication" (GET) and "OAuth2 token authentication" (POST)."""
        manner = self.manner
        user, password = _basic((request.headers["Authorization"] or "").partition(" ")[2])
        if request.command == "POST":
            if not manner.posts:
                raise Answer(405, body=b"only GET")
            query = request.rfile.read(int(request.headers["Content-Length"])).decode()
        asked = dict(urllib.parse.parse_qsl(query))
        if asked.get("service", manner.service) != manner.service:
            raise Answer(400, JSON, _errors((400, "UNSUPPORTED", "unknown service")))
        if request.command == "POST":
            user, password = asked.get("username", ""), asked.get("password", "")
            if asked.get("grant_type") == "refresh_token" and asked.get("refresh_token") in self.refresh:
                user, password = self.user, self.password
        if user or request.command == "POST":
            if (user, password) != (self.user, self.password):
                raise Answer(manner.wrong[0], JSON, _errors(manner.wrong))
        elif self.manner.ungranted and not self._is_public(asked.get("scope", "")):
            raise Answer(self.manner.ungranted[0], JSON, _errors(self.manner.ungranted))
        _, _, rest = asked.get("scope", "").partition(":")
        token = secrets.token_urlsafe(24)
        self.tokens[token] = Token(user or None, rest.rpartition(":")[0], time.monotonic() + self.life)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {"token": token, "access_token": token, "expires_in": int(self.life), "issued_at": now}
        body: dict[str, Any] = {name: fields[name] for name in manner.grant}
        if user and (asked.get("offline_token") == "true" or asked.get("access_type") == "offline"):
            body["refresh_token"] = secrets.token_urlsafe(24)
            self.refresh.add(body["refresh_token"])
        raise Answer(200, JSON, json.dumps(body).encode())

    def _is_public(self, scope: str) -> bool:
        """Whether anybody may have what a scope names. Without a scope there is nothing to refuse."""
        held = self.repositories.get(scope.partition(":")[2].rpartition(":")[0])
        return not scope or (held is not None and not held.private)

    def _manifest(self, request: http.server.BaseHTTPRequestHandler, held: Repository, reference: str) -> None:
        told: dict[str, str] = {}
        if self.quota is not None:
            if self.quota <= 0:
                later = {"Retry-After": self.retry_after} if self.retry_after else {}
                raise Answer(429, {**JSON, **later}, _errors(self.manner.limited))
            self.quota -= request.command == "GET"
            if self.manner.metered:
                told = {
                    "ratelimit-limit": "100;w=21600",
                    "ratelimit-remaining": f"{self.quota};w=21600",
                    "docker-ratelimit-source": "192.0.2.1",
                }
        digest = held.tags.get(reference, reference)
        if digest not in held.manifests:
            raise Answer(404, JSON, _errors((404, "MANIFEST_UNKNOWN", "manifest unknown")))
        media_type, body = held.manifests[digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        raise Answer(200, headers | told, body)

    def _blob(self, held: Repository, digest: str) -> None:
        if digest not in held.blobs:
            raise Answer(404, JSON, _errors((404, "BLOB_UNKNOWN", "blob unknown to registry")))
        if not self.manner.moved:
            headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
            raise Answer(200, headers, held.blobs[digest])
        base = "" if self.manner.at_home else self._storage.url
        path = "/artifacts-downloads" if self.manner.at_home else "/bucket"
        raise Answer(self.manner.moved, {"Location": f"{base}{path}/{digest}?signature={self._signature}"})

    def _store(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """A bucket: who has the signature may read, and a second means of authentication is an error, as for S3."""
        parts = urllib.parse.urlsplit(request.path)
        if not self.manner.at_home:
            self.asked.append(f"{request.command} storage {parts.path}")
            if request.headers["Authorization"]:
                raise Answer(400, body=b"only one auth mechanism allowed")
        if parts.query != f"signature={self._signature}":
            raise Answer(403, body=b"access denied")
        digest = parts.path.rpartition("/")[2]
        blob = next(held.blobs[digest] for held in self.repositories.values() if digest in held.blobs)
        raise Answer(200, {"Content-Type": "application/octet-stream"}, blob)

    def _tags(self, name: str, held: Repository, query: Mapping[str, str]) -> None:
        manner = self.manner
        many = int(query.get("n", manner.page))
        if many > manner.most:
            what = "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'"
            raise Answer(405, JSON, _errors((405, "UNSUPPORTED", what)))
        tags, start = list(held.tags), 0
        if last := query.get("last"):
            start = [self._cursor(tag) for tag in tags].index(last) + 1
        page = tags[start : start + many]
        headers = {"Content-Type": manner.lists_as}
        if start + many < len(tags):
            following = urllib.parse.urlencode({"last": self._cursor(page[-1]), "n": many})
            base = f"https://{manner.host}" if manner.absolute else ""
            headers["Link"] = f'<{base}/v2/{name}/tags/list?{following}>; rel="next"'
        raise Answer(200, headers, json.dumps({"name": name, "tags": page}).encode())

    def _cursor(self, tag: str) -> str:
        return hashlib.sha256(tag.encode()).hexdigest() + "+/==" if self.manner.opaque else tag


JSON = {"Content-Type": "application/json"}
# What GHCR's challenge to a question for no repository names, and what others leave out.
PING = "user/image"


def _password(manner: Manner) -> str:
    return f"password-of-{manner.user}-{secrets.token_hex(4)}"


def _errors(refusal: Refusal) -> bytes:
    _, code, message = refusal
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _basic(given: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return user, password


def _handler(answer: Any) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            try:
                answer(self)
            except Answer as given:
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(given.body)

        do_GET = do_HEAD = do_POST = _answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    return Handler
