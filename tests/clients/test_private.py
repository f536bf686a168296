"""Private images: real clients log in at Waypost with the accounts that they have at the registries behind it.

Behind one domain stand a docker-registry that wants tokens, from a realm that knows passwords, and one that wants
Basic. Another domain is public, and there the operator has an account of its own.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
import urllib.parse
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.daemons import ctr, docker
from tests.clients.pulls import native_blobs, run, upstreams
from tests.clients.registries import ISSUER, SERVICE, Image, Registry, Server, Signer
from tests.support.server import WaypostServer, until

from waypost.console.client import numbers

TOKENS, BASIC = SERVICE, "basic.example"
NAME, PASSWORD = "me", "s3cret-of-me"
OTHER, OTHER_PASSWORD = "other", "s3cret-of-other"
# As `htpasswd -nB` prints it for PASSWORD; docker-registry reads bcrypt alone.
BCRYPT = "$2y$05$abcdefghijklmnopqrstuurzG3B2/0u4VHp.luupYqMdB4.OJS9L."
CONFIG = """
base_domain = "waypost.example"
owner = "acme"
[[domain]]
host = "127.0.0.1"
login = "pass-through"
login_upstream = "reg2.example"
[[package]]
type = "container"
name = "acme/secret"
domain = "127.0.0.1"
upstream = "reg2.example/team/private"
[[package]]
type = "container"
name = "acme/open"
domain = "127.0.0.1"
upstream = "reg2.example/team/public"
[[package]]
type = "container"
name = "acme/basic"
domain = "127.0.0.1"
upstream = "basic.example/vault/image"
[[package]]
type = "container"
name = "published"
domain = "public.example"
upstream = "reg2.example/team/private"
[[collection]]
pattern = "team/*"
domain = "public.example"
upstream = "reg2.example"
"""
ACCOUNT = f'username = "{NAME}"\npassword_env = "WAYPOST_TEST_PASSWORD"\n'
ORAS = """
import sys, oras.client
client = oras.client.OrasClient(hostname=sys.argv[1], insecure=True)
if len(sys.argv) > 4:
    client.login(hostname=sys.argv[1], username=sys.argv[4], password=sys.argv[5])
print(client.pull(target=f"{sys.argv[1]}/{sys.argv[2]}", outdir=sys.argv[3]))
"""


class Realm(Server):
    """A token service that knows passwords, and says of whom it was asked what.

    Nobody gets a token too, as from Docker Hub; it opens what is public.
    """

    def __init__(self, signer: Signer) -> None:
        self.asked: list[tuple[str, str, str]] = []  # method, who ("" for nobody, "?" for a wrong password), scope
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("Authorization")
                name, _, password = (
                    b64decode(shown.partition(" ")[2]).decode().partition(":") if shown else ("", "", "")
                )
                self._grant(name, password, urllib.parse.urlsplit(self.path).query)

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                read = dict(urllib.parse.parse_qsl(form))
                assert read["grant_type"] == "refresh_token"
                known = read["refresh_token"] == "r3fresh-of-me"
                self._grant(NAME if known else "?", PASSWORD if known else "", form)

            def _grant(self, name: str, password: str, query: str) -> None:
                knows = not name or {NAME: PASSWORD, OTHER: OTHER_PASSWORD}.get(name) == password
                scopes = [value for key, value in urllib.parse.parse_qsl(query) if key == "scope"]
                outer.asked.append((self.command, name if knows else "?", " ".join(scopes)))
                if not knows:
                    return self._say(401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect"}]})
                repository = scopes[0].split(":")[1] if scopes else ""
                actions = ["pull"] if repository == "team/public" or (name == NAME and repository) else []
                return self._say(200, {"token": signer.token(repository, actions), "expires_in": 300})

            def _say(self, status: int, content: dict[str, object]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)


class House:
    def __init__(self, server: WaypostServer, realm: Realm, images: dict[str, Image], basic: Registry) -> None:
        self.server = server
        self.realm = realm
        self.images = images
        self.basic = basic
        self.address = f"127.0.0.1:{server.port}"

    def counted(self, package: str) -> int:
        """Pulls so far."""
        return sum(e["counted"] for e in numbers(self.server.data.root).events(False) if e["package"] == package)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("private")
    signer = Signer()
    (folder / "root.pem").write_bytes(signer.pem())
    token = {
        "realm": f"https://{ISSUER}/token",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(folder / "root.pem"),
    }
    (folder / "htpasswd").write_text(f"{NAME}:{BCRYPT}\n")
    htpasswd = {"htpasswd": {"realm": "basic", "path": str(folder / "htpasswd")}}
    with ExitStack() as stack:
        realm = Realm(signer)
        stack.callback(realm.close)
        tokens = Registry(folder / "tokens", TOKENS, {"auth": {"token": token}}, signer)
        stack.callback(tokens.stop)
        basic = Registry(folder / "basic", BASIC, {"auth": htpasswd}, basic=f"{NAME}:{PASSWORD}")
        stack.callback(basic.stop)
        images = {name: registries.multi_arch(name) for name in ("private", "public", "vault")}
        tokens.push("team/private", "1.0", images["private"])
        tokens.push("team/hidden", "1.0", images["private"])
        tokens.push("team/public", "1.0", images["public"])
        basic.push("vault/image", "1.0", images["vault"])
        declared = upstreams({ISSUER: realm.url, BASIC: basic.url, TOKENS: tokens.url})
        os.environ["WAYPOST_TEST_PASSWORD"] = PASSWORD
        stack.callback(os.environ.pop, "WAYPOST_TEST_PASSWORD")
        server = WaypostServer(tmp_path_factory.mktemp("waypost"), CONFIG + declared + ACCOUNT)
        stack.callback(server.stop)
        server.start()
        yield House(server, realm, images, basic)
        assert server.stop() == 0
        assert_nothing_is_kept(server)


def assert_nothing_is_kept(server: WaypostServer) -> None:
    """No password, no token, in no file and no line of the log."""
    searched = 0
    for path in server.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            searched += len(content)
            for secret in (PASSWORD, OTHER_PASSWORD, "r3fresh", "waypost1.", "eyJ"):
                assert secret.encode() not in content, path
    assert searched > 10_000


def skopeo(house: House, home: Mapping[str, str], image: str, *options: str, status: int = 0) -> str:
    source = f"docker://{house.address}/{image}"
    return run(
        home, "skopeo", "copy", *options, "--src-tls-verify=false", source, f"dir:{home['HOME']}/x", status=status
    )


def assert_copied(home: Mapping[str, str], image: Image) -> None:
    folder = Path(home["HOME"]) / "x"
    assert (folder / "manifest.json").read_bytes() == image.manifests[image.native][1]
    for digest in native_blobs(image):
        assert (folder / digest.removeprefix("sha256:")).read_bytes() == image.blobs[digest]


ME = ("--src-creds", f"{NAME}:{PASSWORD}")


def test_skopeo_pulls_what_its_user_may_read(house: House, home: dict[str, str]) -> None:
    before = house.counted("acme/secret")
    house.realm.asked.clear()
    skopeo(house, home, "acme/secret:1.0", *ME)
    assert_copied(home, house.images["private"])
    assert set(house.realm.asked) == {("GET", NAME, "repository:team/private:pull")}
    until(lambda: house.counted("acme/secret") == before + 1, what="the pull to be counted")
    # A second time from what is kept, and asked for upstream all the same.
    skopeo(house, home, "acme/secret:1.0", *ME)
    until(lambda: house.counted("acme/secret") == before + 2, what="the pull to be counted")


def test_what_one_user_pulled_is_not_anothers(house: House, home: dict[str, str]) -> None:
    before = house.counted("acme/secret") + 1
    skopeo(house, home, "acme/secret:1.0", *ME)
    until(lambda: house.counted("acme/secret") == before, what="the pull to be counted")
    for creds in (("--src-creds", f"{OTHER}:{OTHER_PASSWORD}"), ("--src-creds", f"{NAME}:wrong"), ()):
        assert "unauthorized" in skopeo(house, home, "acme/secret:1.0", *creds, status=1)
    digest = house.images["private"].top
    assert "unauthorized" in skopeo(house, home, f"acme/secret@{digest}", status=1)
    assert house.counted("acme/secret") == before


def test_whoever_has_no_login_reads_what_everybody_may(house: House, home: dict[str, str]) -> None:
    skopeo(house, home, "acme/open:1.0")
    assert_copied(home, house.images["public"])
    skopeo(house, home, "acme/open:1.0", *ME)
    assert "manifest unknown" in skopeo(house, home, "acme/open:9.9", *ME, status=1)
    assert "No image called acme/nobody-knows" in skopeo(house, home, "acme/nobody-knows:1", *ME, status=1)


def test_skopeo_pulls_from_the_registry_that_wants_basic(house: House, home: dict[str, str]) -> None:
    house.realm.asked.clear()
    skopeo(house, home, "acme/basic:1.0", *ME)
    assert_copied(home, house.images["vault"])
    assert "unauthorized" in skopeo(house, home, "acme/basic:1.0", "--src-creds", f"{NAME}:wrong", status=1)
    assert "unauthorized" in skopeo(house, home, "acme/basic:1.0", status=1)
    # The other registry behind the domain heard nothing of it.
    assert house.realm.asked == []


def test_skopeo_logs_in_and_lists_tags(house: House, home: dict[str, str]) -> None:
    auth = ("--authfile", f"{home['HOME']}/auth.json")
    wrong = run(
        home, "skopeo", "login", "--tls-verify=false", *auth, "-u", NAME, "-p", "wrong", house.address, status=1
    )
    assert "invalid username/password" in wrong
    run(home, "skopeo", "login", "--tls-verify=false", *auth, "-u", NAME, "-p", PASSWORD, house.address)
    listed = run(home, "skopeo", "list-tags", "--tls-verify=false", *auth, f"docker://{house.address}/acme/secret")
    assert json.loads(listed)["Tags"] == ["1.0"]


def storage(home: Mapping[str, str], command: str) -> tuple[str, ...]:
    folder = home["HOME"]
    return (command, "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")


def test_podman_logs_in_and_pulls(house: House, home: dict[str, str]) -> None:
    podman = storage(home, "podman")
    image = f"{house.address}/acme/secret:1.0"
    assert "unauthorized" in run(home, *podman, "pull", "-q", "--tls-verify=false", image, status=125)
    run(home, *podman, "login", "--tls-verify=false", "-u", NAME, "-p", PASSWORD, house.address)
    run(home, *podman, "pull", "-q", "--tls-verify=false", image)
    assert run(home, *podman, "image", "inspect", "--format", "{{.Digest}}", image).strip() in (
        house.images["private"].top,
        house.images["private"].native,
    )
    run(home, *podman, "logout", house.address)


def test_buildah_pulls_with_credentials(house: House, home: dict[str, str]) -> None:
    buildah = storage(home, "buildah")
    image = f"{house.address}/acme/secret:1.0"
    assert "unauthorized" in run(home, *buildah, "pull", "-q", "--tls-verify=false", image, status=125)
    run(home, *buildah, "pull", "-q", "--tls-verify=false", "--creds", f"{NAME}:{PASSWORD}", image)


def test_containerd_pulls_with_credentials(house: House, home: dict[str, str], containerd: str) -> None:
    """It posts the password as a form."""
    image = f"{house.address}/acme/secret:1.0"
    pull = ("ctr", "--address", containerd, "images", "pull", "--plain-http", "--snapshotter", "native")
    assert "nauthorized" in run(home, *pull, image, status=1)
    assert "nauthorized" in run(home, *pull, "--user", f"{NAME}:wrong", image, status=1)
    ctr(home, containerd, *pull[3:], "--user", f"{NAME}:{PASSWORD}", image)
    (line,) = (line.split() for line in ctr(home, containerd, "images", "ls").splitlines() if line.startswith(image))
    assert line[2] == house.images["private"].top


def test_docker_logs_in_and_pulls(house: House, home: dict[str, str], docker_host: str) -> None:
    image = f"{house.address}/acme/secret:1.0"
    command = ("/usr/bin/docker", "--host", docker_host)
    assert "unauthorized" in run(home, *command, "pull", "--quiet", image, status=1)
    login = ("login", "-u", NAME, "-p")
    assert "unauthorized" in run(home, *command, *login, "wrong", house.address, status=1)
    docker(home, docker_host, *login, PASSWORD, house.address)
    docker(home, docker_host, "pull", "--quiet", image)
    (inspected,) = json.loads(docker(home, docker_host, "image", "inspect", image))
    assert inspected["RepoDigests"] == [f"{house.address}/acme/secret@{house.images['private'].top}"]
    # The same login serves the other registry behind the domain.
    docker(home, docker_host, "pull", "--quiet", f"{house.address}/acme/basic:1.0")


def test_docker_is_told_that_it_cannot_push(house: House, home: dict[str, str], docker_host: str) -> None:
    docker(home, docker_host, "login", "-u", NAME, "-p", PASSWORD, house.address)
    image = f"{house.address}/acme/secret:1.0"
    docker(home, docker_host, "pull", "--quiet", image)
    said = run(home, "/usr/bin/docker", "--host", docker_host, "push", image, status=1)
    assert "can be pulled from this address, not pushed" in said


def ask(
    house: House, host: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    lines = {"Accept": f"{registries.INDEX}, {registries.MANIFEST}", **headers}
    status, _, content = house.server.get(host, path, method, lines, body)
    return status, content


def test_a_refresh_token_is_exchanged_at_its_registry(house: House) -> None:
    """Docker's credential helpers keep one instead of a password; here a script stands in for them."""
    form = "grant_type=refresh_token&service=x&client_id=docker&scope=repository:acme/secret:pull&refresh_token="
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    status, body = ask(house, house.address, "/token", "POST", f"{form}r3fresh-of-me".encode(), **kind)
    assert status == 200
    assert house.realm.asked[-1] == ("POST", NAME, "repository:team/private:pull")
    shown = {"Authorization": f"Bearer {json.loads(body)['token']}"}
    assert ask(house, house.address, "/v2/acme/secret/manifests/1.0", **shown)[0] == 200
    assert ask(house, house.address, "/v2/acme/basic/manifests/1.0", **shown)[0] == 401
    assert ask(house, house.address, "/token", "POST", f"{form}wrong".encode(), **kind)[0] == 401


def test_private_manifests_are_not_served_while_their_registry_is_down(house: House, home: dict[str, str]) -> None:
    skopeo(house, home, "acme/basic:1.0", *ME)
    credentials = "Basic " + b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
    _, body = ask(house, house.address, "/token?scope=repository:acme/basic:pull", Authorization=credentials)
    shown = {"Authorization": f"Bearer {json.loads(body)['token']}"}
    path = "/v2/acme/basic/manifests/" + house.images["vault"].top
    assert ask(house, house.address, path, **shown)[0] == 200
    house.basic.stop()
    assert ask(house, house.address, path, **shown)[0] == 502


# The operator's own account, on a domain where nobody logs in


def test_what_is_published_by_name_is_read_with_the_operators_account(house: House) -> None:
    house.realm.asked.clear()
    status, body = ask(house, "public.example", "/v2/published/manifests/1.0")
    assert (status, registries.digest_of(body)) == (200, house.images["private"].top)
    assert house.realm.asked[-1] == ("GET", NAME, "repository:team/private:pull")


def test_a_collection_publishes_nothing_that_is_private(house: House) -> None:
    for _ in range(2):
        for reference in ("1.0", house.images["private"].top):
            assert ask(house, "public.example", f"/v2/team/hidden/manifests/{reference}")[0] == 401
        (layer, *_) = house.images["private"].blobs
        assert ask(house, "public.example", f"/v2/team/hidden/blobs/{layer}")[0] == 401
    assert ask(house, "public.example", "/v2/team/public/manifests/1.0")[0] == 200


@pytest.mark.parametrize("login", [False, True])
def test_oras_pulls_an_artifact(house: House, home: dict[str, str], login: bool) -> None:
    arguments = (house.address, "acme/secret:1.0", f"{home['HOME']}/out", *((NAME, PASSWORD) if login else ()))
    said = run(home, sys.executable, "-c", ORAS, *arguments, status=0 if login else 1)
    assert login or "nauthorized" in said
