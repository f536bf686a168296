"""A request as the decision core sees it: parsed, bounded, and without its sender's address."""

from __future__ import annotations

from collections.abc import Iterable


class Request:
    """One HTTP request.

    method   upper case, as sent.
    scheme   "http" or "https": how the client reached us.
    host     lower case, without port and trailing dot; IPv6 literals keep their brackets.
    path     as it came: percent-encoded ASCII, starts with "/". Absolute-form targets are already reduced.
    query    as it came, without "?"; None when the target has no "?".
    headers  (name, value) in the order of arrival; names lower case, values decoded as latin-1.
             Repeated lines stay repeated: several Accept lines mean something to registries.
    body     the whole body, already within the limit.

    The client's address is not here on purpose: no decision may depend on it, and nothing can leak it.
    """

    __slots__ = ("body", "headers", "host", "method", "path", "query", "scheme")

    def __init__(
        self,
        method: str,
        host: str,
        path: str,
        query: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        scheme: str = "http",
    ) -> None:
        self.method = method
        self.host = host
        self.path = path
        self.query = query
        self.headers = headers if isinstance(headers, list) else list(headers)
        self.body = body
        self.scheme = scheme

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_all(self, name: str) -> list[str]:
        """Every line of a header, in order; `name` in lower case."""
        return [value for key, value in self.headers if key == name]

    @property
    def target(self) -> str:
        return self.path if self.query is None else f"{self.path}?{self.query}"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.scheme}://{self.host}{self.target}>"
