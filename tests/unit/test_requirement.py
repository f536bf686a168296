from __future__ import annotations

import pytest

from waypost.artifacts.requirement import RequirementError, parse_command, parse_index

U = "https://pypi.acme.example/simple/"


@pytest.mark.parametrize(
    ("line", "project", "index"),
    [
        (f"pip install skates --extra-index-url {U}", "skates", U),
        (f"pip install --index-url={U} My.Skates", "My.Skates", U),
        ("pip install -i https://pypi.acme.example/simple skates", "skates", U),
        (f"pip3 install -i{U} skates", "skates", U),
        (f"python3 -m pip install --user -U 'skates[fast] >=1.0, <2' --extra-index-url '{U}'", "skates", U),
        (f"pip install --index-url https://pypi.example/simple --extra-index-url {U} skates==1.0", "skates", U),
        (f"pip install --trusted-host pypi.acme.example --pre skates -i {U}", "skates", U),
        (f"uv pip install skates --default-index {U}", "skates", U),
        (f"uv add skates --index {U}", "skates", U),
        (f"pip download skates --no-deps -i {U}", "skates", U),
        (f"sudo pip install skates~=1.0 -i {U}", "skates", U),
    ],
)
def test_lines_that_users_type(line, project, index):
    assert parse_command(line) == (project, index)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pip install", "no project"),
        ("pip install skates", "add --index-url with the address that has skates"),
        ("pip install skates boots", "skates, boots"),
        ("pip install -r requirements.txt", "no project"),
        ("pip install ./skates", "name of one project"),
        ("pip install git+https://dl.example/x", "name of one project"),
        ("pip install 'skates", "no shell"),
        ("pip list", "expected a line such as"),
        ("pipx install skates", "expected a line such as"),
        (f"pip install skates --extra-index-url {U} --extra-index-url https://b.example/", "2 indexes"),
        ("pip install skates -i https://me:secret@pypi.acme.example/simple/", "without password"),
        ("pip install skates -i file:///srv/simple", "URL of a simple index"),
        ("pip install skates -i", "URL of a simple index"),
    ],
)
def test_lines_that_cannot_be_taken_say_why(line, says):
    with pytest.raises(RequirementError, match=says):
        parse_command(line)


@pytest.mark.parametrize(
    "url",
    ["", "pypi.acme.example/simple/", "https://", "https://x/?y", "https://x/#y", "https://x/{y}", "https://x/ y",
     "https://x/é", "https://[::1/", "https://x:99999/", "ftp://x/", "https://x/../y", "https://x/%2e%2e/y"],
)  # fmt: skip
def test_what_is_no_index(url):
    with pytest.raises(RequirementError):
        parse_index(url)
