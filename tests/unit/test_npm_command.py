"""The lines that people type to install an npm package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.npm_command import NpmCommandError, is_command, parse_command

NPM = "https://npm.example"


@pytest.mark.parametrize(
    ("line", "name", "registry"),
    [
        ("npm install @acme/skates --registry https://npm.example/", "@acme/skates", "https://npm.example"),
        ("npm i skates --registry https://npm.example", "skates", NPM),
        ("npm install -g --save-dev skates@^1.2 --registry https://npm.example", "skates", NPM),
        ("npm install --registry=https://npm.example/a/ skates@latest", "skates", "https://npm.example/a"),
        ("sudo npm install 'skates@>=1 <2' --registry https://npm.example", "skates", NPM),
        ("npm install --@acme:registry=https://a.example @acme/skates@1", "@acme/skates", "https://a.example"),
        (
            "npm install --@b:registry https://b.example @acme/skates --registry https://npm.example",
            "@acme/skates",
            NPM,
        ),
        ("npm install mine@npm:@acme/skates@1 --registry https://npm.example", "@acme/skates", NPM),
        ("yarn add --dev skates --registry https://npm.example", "skates", NPM),
        ("yarn global add skates --registry https://npm.example", "skates", NPM),
        ("pnpm add -D skates --registry https://npm.example", "skates", "https://npm.example"),
        ("pnpm -x", None, None),
        ("npm run build", None, None),
        ("yarn", None, None),
    ],
)
def test_a_line_names_a_package_and_its_registry(line: str, name: str | None, registry: str | None) -> None:
    assert is_command(line) is (name is not None)
    if name is not None:
        assert parse_command(line) == (name, registry)


@pytest.mark.parametrize(
    "line",
    [
        "npm install",
        "npm install skates boots",
        "npm install skates",
        "npm install @acme/skates --@b:registry https://b.example",
        "npm install ./skates",
        "npm install git+https://github.com/acme/skates.git",
        "npm install https://acme.example/skates.tgz",
        "npm install acme/skates",
        "npm install 'skates",
        "npm ci",
    ],
)
def test_what_is_none_says_so(line: str) -> None:
    with pytest.raises(NpmCommandError, match=r"found .*"):
        parse_command(line)


@given(st.text(max_size=30))
def test_any_text_is_read(text: str) -> None:
    try:
        parse_command(f"npm install {text}")
    except NpmCommandError:
        pass
