"""JSON that clients post as event data: objects one after another, and their fields as variables."""

from __future__ import annotations

import json
from typing import Any

_decoder = json.JSONDecoder()
# Characters of names and values that one object may become. Names repeat their parents', so that a small body
# could otherwise grow a thousandfold.
LARGEST = 64 * 1024


def objects(body: bytes, limit: int) -> list[dict[str, Any]]:
    """The JSON objects that follow one another in a body, up to `limit`.

    Other values between them are passed over. Reading ends without complaint where the JSON does: senders
    count characters for bytes, so what arrives may be cut short, and its beginning is still worth having.
    """
    text = body.decode("utf-8", "replace")
    found: list[dict[str, Any]] = []
    position = 0
    while len(found) < limit:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if position == len(text):
            break
        try:
            value, position = _decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        if isinstance(value, dict):
            found.append(value)
    return found


def flatten(value: dict[str, Any]) -> dict[str, str]:
    """Nested objects flattened with dots, values as text: {"a": {"b": 1}} → {"a.b": "1"}. Lists stay JSON.

    What goes beyond LARGEST is left out.
    """
    flat: dict[str, str] = {}
    size = 0
    # Depth first and in the order of the text, without recursion: bodies may be as deep as they are long.
    stack = [("", iter(value.items()))]
    while stack:
        prefix, fields = stack[-1]
        for name, inner in fields:
            key = f"{prefix}{name}"
            if isinstance(inner, dict):
                stack.append((f"{key}.", iter(inner.items())))
                break
            said = _said(inner)
            size += len(key) + len(said)
            if size > LARGEST:
                return flat
            flat[encodable(key)] = encodable(said)
        else:
            stack.pop()
    return flat


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


def encodable(text: str) -> str:
    """JSON and broken percent-encoding can spell lone surrogates, which no event can hold: they become "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
