"""routing/accept.py against RFC 9110 section 12.5.1."""

from __future__ import annotations

import pytest

from waypost.routing.accept import preferred

OFFERED = ("text/html", "application/x+json", "application/x+html")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "text/html"),
        ("*/*", "text/html"),
        ("application/*", "application/x+json"),
        ("application/x+json", "application/x+json"),
        ("Application/X+JSON ; Q=0.5", "application/x+json"),
        ("application/x+json, application/x+html; q=0.1, text/html; q=0.01", "application/x+json"),
        ("text/html, application/x+json;q=0.9", "text/html"),
        ("application/x+json;q=0.5, */*", "text/html"),
        ("text/html;q=0, */*;q=0.3", "application/x+json"),
        ("text/*;q=0.9, text/html;q=0.1, application/x+html;q=0.2", "application/x+html"),
        ("application/x+html, */*", "application/x+html"),
        ("image/png", None),
        ("image/png, text/html;q=0", None),
        ("text/html;q=2", None),
        ("text/html;q=0.1234", None),
        ("text/html;q=", None),
        ("text/html;level=1", "text/html"),
        (", ,", "text/html"),
        ("text/html;q=0.2, text/html;q=0.4, application/x+json;q=0.3", "text/html"),
    ],
)
def test_what_is_preferred(accept, chosen):
    assert preferred(accept, OFFERED) == chosen
