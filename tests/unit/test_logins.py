"""Who logs in where, as it is declared: from waypost.toml to the policy of a host."""

from __future__ import annotations

import pytest
from tests.unit.test_compile import compiled, host, problems

from waypost.artifacts.snapshot import Snapshot, UpstreamRow

IMAGE = '[[package]]\ntype = "container"\nname = "{name}"\ndomain = "d.example"\nupstream = {upstream}\n'
DOMAIN = '[[domain]]\nhost = "d.example"\nlogin = "pass-through"\n'


def images(*upstreams):
    return "".join(IMAGE.format(name=f"x{number}", upstream=one) for number, one in enumerate(upstreams))


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        (images('"ghcr.io/a/x"') + DOMAIN, "ghcr.io"),
        (images('"a/x"') + DOMAIN + 'login_upstream = "docker.io"\n', "registry-1.docker.io"),
        (images('"ghcr.io/a/x"', '"quay.io/a/x"') + DOMAIN + 'login_upstream = "quay.io"\n', "quay.io"),
        (images('["ghcr.io/a/x", "quay.io/a/x"]') + DOMAIN + 'login_upstream = "quay.io"\n', "quay.io"),
        ('[[collection]]\npattern = "a/*"\ndomain = "d.example"\nupstream = "ghcr.io"\n' + DOMAIN, "ghcr.io"),
    ],
)
def test_logins_are_checked_at_one_registry_of_the_domain(tmp_path, text, registry):
    policy = host(compiled(tmp_path, text), "d.example").policy
    assert (policy.login, policy.login_upstream) == ("pass-through", registry)


def test_without_a_word_nobody_logs_in(tmp_path):
    policy = host(compiled(tmp_path, images('"ghcr.io/a/x"') + '[[domain]]\nhost = "d.example"\n'), "d.example").policy
    assert (policy.login, policy.login_upstream) == ("none", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            images('"ghcr.io/a/x"', '"quay.io/a/x"') + DOMAIN,
            "waypost.toml:12: domain[0].login_upstream: found nothing; expected the registry that checks logins which "
            "name no image: one of ghcr.io, quay.io",
        ),
        (
            images('"ghcr.io/a/x"') + DOMAIN + 'login_upstream = "ghrc.io"\n',
            "waypost.toml:10: domain[0].login_upstream: found 'ghrc.io'; expected the registry that checks logins which "
            "name no image: one of ghcr.io",
        ),
        (
            images('"ghcr.io/a/x"') + DOMAIN + 'login_upstream = "not a host"\n',
            "waypost.toml:10: domain[0].login_upstream: found 'not a host'; expected the registry that checks logins "
            "which name no image: one of ghcr.io",
        ),
        (
            DOMAIN,
            "waypost.toml:4: domain[0].login: found 'pass-through'; expected an image or a collection on this domain, "
            "whose registry can check a login",
        ),
    ],
)
def test_what_cannot_work_is_told(tmp_path, text, problem):
    assert problems(tmp_path, text) == [problem]


def test_one_login_for_several_registries_is_worth_a_warning(tmp_path):
    two = images('"ghcr.io/a/x"', '"quay.io/a/x"') + DOMAIN + 'login_upstream = "quay.io"\n'
    (warning,) = compiled(tmp_path, two).warnings
    assert "each of ghcr.io, quay.io" in warning
    assert compiled(tmp_path, images('"ghcr.io/a/x"', '"ghcr.io/b/x"') + DOMAIN).warnings == ()


def test_the_snapshot_knows_where_a_password_is_and_not_what(tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_TEST_PASSWORD", "s3cret")
    (tmp_path / "secret").write_text("s3cret\n")
    one = compiled(
        tmp_path,
        images('"ghcr.io/a/x"')
        + '[[upstream]]\nhost = "docker.io"\nusername = "acme"\npassword_env = "WAYPOST_TEST_PASSWORD"\n'
        + '[[upstream]]\nhost = "ghcr.io"\nusername = "acme"\npassword_file = "secret"\n',
    )
    assert one.warnings == ()
    assert b"s3cret" not in one.snapshot
    assert Snapshot(one.snapshot).policy.upstreams == (
        UpstreamRow("registry-1.docker.io", None, "acme", "WAYPOST_TEST_PASSWORD"),
        UpstreamRow("ghcr.io", None, "acme", None, str(tmp_path / "secret")),
    )


def test_a_password_that_is_not_there_is_a_warning(tmp_path):
    one = compiled(
        tmp_path,
        '[[upstream]]\nhost = "ghcr.io"\nusername = "acme"\npassword_env = "WAYPOST_TEST_NOT_THERE"\n'
        '[[upstream]]\nhost = "quay.io"\nusername = "acme"\npassword_file = "nowhere"\n',
    )
    assert one.warnings == (
        "upstream ghcr.io: the environment has no WAYPOST_TEST_NOT_THERE; it is asked as nobody",
        f"upstream quay.io: {tmp_path / 'nowhere'} cannot be read; it is asked as nobody",
    )
