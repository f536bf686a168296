"""Certificates as files: what can be presented, to whom, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.support.certificate import Authority
from tests.unit.test_compile import compiled, host, package, problems

from waypost.artifacts.snapshot import CertificateRow, Snapshot
from waypost.tls.certificate import Certificate, CertificateError, read
from waypost.tls.contexts import PATIENCE, Contexts, make_context

FILE = package("x", 'domain = "get.example"\nroutes = [{ path = "/x" }]')


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_says_for_whom_and_how_long(authority: Authority) -> None:
    one = read(*authority.issue("get.example", "GET.example", "*.acme.example", "127.0.0.1", days=10))
    assert one.names == ("get.example", "*.acme.example", "127.0.0.1")
    assert one.issuer == "Test Authority"
    assert abs(one.not_after - time.time() - 10 * 86_400) < 60


def test_a_wildcard_stands_for_one_label(authority: Authority) -> None:
    one = read(*authority.issue("wild", "*.acme.example", "acme.example"))
    assert one.covers("acme.example")
    assert one.covers("get.acme.example")
    assert not one.covers("a.get.acme.example")
    assert not one.covers("example")
    assert not one.covers("")


def test_another_key_or_chain_has_another_fingerprint(authority: Authority) -> None:
    first = read(*authority.issue("get.example"))
    assert (
        first.fingerprint
        == read(authority.file.parent / "get.example.pem", authority.file.parent / "get.example.key").fingerprint
    )
    assert read(*authority.issue("get.example")).fingerprint != first.fingerprint


def test_what_cannot_be_presented_is_refused(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("get.example")
    other_chain, other_key = authority.issue("other.example")
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.write_bytes(b"")
    broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    upside_down = tmp_path / "upside-down.pem"
    leaf, root = chain.read_text().split("-----END CERTIFICATE-----\n")[:2]
    upside_down.write_text(f"{leaf}-----END CERTIFICATE-----\n{other_chain.read_text()}")
    for found, secret, wrong, why in (
        (tmp_path / "nowhere", key, tmp_path / "nowhere", "cannot be read"),
        (chain, tmp_path / "nowhere", tmp_path / "nowhere", "cannot be read"),
        (empty, key, empty, "no certificates"),
        (broken, key, broken, "no certificates"),
        (chain, empty, empty, "no private key"),
        (chain, chain, chain, "no private key"),
        (chain, other_key, other_key, "not the key"),
        (upside_down, key, upside_down, "out of order"),
    ):
        with pytest.raises(CertificateError, match=why) as caught:
            read(found, secret)
        assert caught.value.file == wrong
    assert root


# As it is declared


def declare(chain: Path, key: Path, domain: str = "get.example", mode: str = "files") -> str:
    one = f'{{ domain = "{domain}", certificate = "{chain}", key = "{key}" }}'
    return f'[tls]\nmode = "{mode}"\ncertificates = [{one}]\n' + FILE


def test_links_of_hosts_with_a_certificate_are_https(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("get.example")
    one = compiled(tmp_path, declare(chain, key))
    assert host(one, "get.example").policy.base_url == "http://get.example:8080"
    assert any("--listen-tls" in warning for warning in one.warnings)
    from waypost.catalog.compile import compile_file

    for port, url in ((443, "https://get.example"), (8443, "https://get.example:8443")):
        one = compile_file(tmp_path / "waypost.toml", 8080, port)
        policy = host(one, "get.example").policy
        assert (policy.base_url, policy.secure) == (url, True)
        assert host(one, "static.waypost.example").policy.base_url == "http://static.waypost.example:8080"
        assert chain in one.files
        assert one.warnings == ()
    (row,) = Snapshot(one.snapshot).policy.certificates
    assert (row.domain, row.certificate, row.key) == ("get.example", str(chain), str(key))
    assert key.read_bytes() not in one.snapshot


def test_a_host_with_a_certificate_leads_to_no_http(authority: Authority, tmp_path: Path) -> None:
    declared = declare(*authority.issue("get.example"))
    plain = declared.replace('{ path = "/x" }', '{ path = "/x", to = "http://t.example/x" }')
    (problem,) = problems(tmp_path, plain)
    assert "routes[0].to: found 'http://t.example/x'; expected https://…, since get.example is on https" in problem
    compiled(tmp_path, '[[domain]]\nhost = "get.example"\nbase_url = "http://get.example"\n' + plain)


def test_a_domain_may_keep_http(authority: Authority, tmp_path: Path) -> None:
    text = declare(*authority.issue("get.example")) + '[[domain]]\nhost = "get.example"\nhttp = "serve"\nhsts = true\n'
    compiled(tmp_path, text)
    from waypost.catalog.compile import compile_file

    one = compile_file(tmp_path / "waypost.toml", 80, 443)
    assert not host(one, "get.example").policy.secure
    assert Snapshot(one.snapshot).policy.hsts == frozenset(("get.example",))


def test_mistakes_name_their_key(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("other.example", "other.example", "*.example")
    for text, said in (
        (declare(chain, key, "sub.get.example"), "tls.certificates[0].certificate: found"),
        (declare(chain, key, "sub.get.example"), "expected a certificate for sub.get.example; this one is for other.example, *.example"),
        (declare(chain, key, "*.get.example"), "a certificate for *.get.example"),
        (declare(chain, chain), "tls.certificates[0].key: found 'other.example.pem'; expected a usable file (no private key in PEM)"),
        (declare(chain, key, mode="off"), 'expected mode = "files" beside them'),
        (declare(chain, key, "get.example/x"), "expected a host name in lower case"),
        ('[tls]\nmode = "files"\n' + FILE, "tls.certificates: found nothing"),
        ('[tls]\nmode = "acme"\n' + FILE, "tls.mode: found 'acme'; expected one of off, files"),
        ('[tls]\nemail = "x@example"\n' + FILE, "this version does not have it yet"),
    ):  # fmt: skip
        (problem,) = problems(tmp_path, text)
        assert said in problem


def test_one_that_ends_is_worth_a_warning(authority: Authority, tmp_path: Path) -> None:
    for days, said in ((-1, "expired on"), (5, "expires on")):
        text = declare(*authority.issue("get.example", days=days))
        assert any(said in warning for warning in compiled(tmp_path, text).warnings)


# In memory


def row(chain: Path, key: Path, domain: str = "get.example") -> CertificateRow:
    return CertificateRow(domain, str(chain), str(key), read(chain, key).fingerprint)


def rows(authority: Authority, *domains: str) -> list[CertificateRow]:
    return [row(*authority.issue(domain), domain) for domain in domains]


def found(contexts: Contexts, host: str) -> Certificate | None:
    one = contexts.find(host)
    return None if one is None else one.certificate


def test_what_cannot_be_used_leaves_the_one_before(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    contexts = Contexts(make_context())
    first = row(*authority.issue("get.example", stem="first"))
    contexts.take([first])
    before = found(contexts, "get.example")
    assert before is not None
    other = row(*authority.issue("other.example"))
    for replacement, why in (
        (CertificateRow("get.example", "/nowhere.pem", "/nowhere.key", "x"), "cannot be read"),
        (row(*authority.issue("get.example", days=-1, stem="expired")), "expired, and the one before it has not"),
        (other, "not for get.example"),
    ):
        contexts.take([replacement])
        assert found(contexts, "get.example") == before
        assert "the one before it stays" in caplog.messages[-1]
        assert why in caplog.messages[-1]
    second = row(*authority.issue("get.example", stem="second"))
    contexts.take([second])
    assert found(contexts, "get.example") != before
    contexts.take([])
    assert found(contexts, "get.example") is None
    assert contexts.held() == {}


def test_one_that_has_expired_is_presented_if_there_is_no_other(authority: Authority) -> None:
    contexts = Contexts(make_context())
    contexts.take([row(*authority.issue("get.example", days=-1))])
    assert found(contexts, "get.example") is not None


def test_what_is_in_hand_stays_whatever_becomes_of_its_file(authority: Authority) -> None:
    """Most are loaded before anybody asks, so this holds for names that nobody has asked for, too."""
    contexts = Contexts(make_context())
    declared = rows(authority, "a.example", "b.example")
    contexts.take(declared)
    assert contexts.held() == {}
    assert len(list(contexts.prepare())) == 2
    before = contexts.held()
    for one in declared:
        Path(one.certificate).unlink()
    contexts.take([CertificateRow(one.domain, one.certificate, one.key, "x") for one in declared])
    assert len(list(contexts.prepare())) == 2
    assert list(contexts.prepare()) == []  # once for what has been taken
    assert contexts.held() == before


def test_what_was_asked_for_longest_ago_makes_room(authority: Authority) -> None:
    contexts = Contexts(make_context(), most=2)
    contexts.take(rows(authority, "a.example", "b.example", "c.example"))
    assert len(list(contexts.prepare())) == 2
    assert list(contexts.held()) == ["a.example", "b.example"]
    kept = contexts.find("a.example")
    assert found(contexts, "c.example") is not None
    assert list(contexts.held()) == ["a.example", "c.example"]
    assert contexts.find("a.example") is kept
    assert found(contexts, "b.example") is not None
    assert list(contexts.held()) == ["a.example", "b.example"]


def test_unchanged_ones_are_not_loaded_again(authority: Authority) -> None:
    contexts = Contexts(make_context())
    declared = rows(authority, "a.example", "b.example")
    contexts.take(declared)
    kept = [contexts.find(one.domain) for one in declared]
    contexts.take([row(*authority.issue("a.example"), "a.example"), declared[1]])
    assert contexts.find("a.example") is not kept[0]
    assert contexts.find("b.example") is kept[1]


def test_preparing_ends_when_others_are_taken(authority: Authority) -> None:
    contexts = Contexts(make_context())
    contexts.take(rows(authority, "a.example", "b.example"))
    preparing = contexts.prepare()
    next(preparing)
    contexts.take(rows(authority, "c.example"))
    assert list(preparing) == []
    assert len(list(contexts.prepare())) == 1
    assert list(contexts.held()) == ["c.example"]


def test_what_failed_is_tried_again_later(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    now = [time.time()]
    contexts = Contexts(make_context(), lambda: now[0])
    (declared,) = rows(authority, "get.example")
    chain = Path(declared.certificate)
    away = chain.rename(chain.with_suffix(".away"))
    contexts.take([declared])
    for _ in range(3):
        assert contexts.find("get.example") is None
    assert len(caplog.messages) == 1
    assert "nothing is presented there" in caplog.messages[0]
    away.rename(chain)
    assert contexts.find("get.example") is None
    now[0] += PATIENCE
    assert contexts.find("get.example") is not None
