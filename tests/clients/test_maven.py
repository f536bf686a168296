"""mvn, through Waypost, from repositories on loopback.

Maven does nothing without plugins, and those of its makers come from the internet. So the tests bring a plugin of
their own: it asks Maven for the project's dependencies, and does nothing with them.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored

PLUGIN = """\
<plugin>
  <name>probe</name><groupId>test</groupId><artifactId>probe-maven-plugin</artifactId><version>1</version>
  <goalPrefix>probe</goalPrefix>
  <mojos><mojo>
    <goal>resolve</goal>
    <requiresDependencyResolution>compile</requiresDependencyResolution>
    <requiresProject>true</requiresProject>
    <implementation>probe.Resolve</implementation><language>java</language>
    <instantiationStrategy>per-lookup</instantiationStrategy><executionStrategy>once-per-session</executionStrategy>
  </mojo></mojos>
</plugin>
"""
MOJO = "package probe; public class Resolve extends org.apache.maven.plugin.AbstractMojo { public void execute() {} }"
POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
  {more}
</project>
"""
SETTINGS = """\
<settings>
  <mirrors><mirror><id>none</id><mirrorOf>central</mirrorOf><url>{tools}</url></mirror></mirrors>
</settings>
"""
MOMENT = "20261101.101112"


def jar(**files: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


SKATES = jar(skates="1.2")
NATIVE = jar(skates="1.2 for linux")
BOOTS = jar(boots="one of many builds")


def put(path: Path, content: bytes | str) -> None:
    """A file with its checksum, as repositories have them."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_name(f"{path.name}.sha1").write_text(hashlib.sha1(data).hexdigest())


def deploy(root: Path, group: str, artifact: str, version: str, content: bytes, more: str = "") -> None:
    stem = root / group.replace(".", "/") / artifact / version / f"{artifact}-{version}"
    put(Path(f"{stem}.pom"), POM.format(group=group, artifact=artifact, version=version, more=more))
    put(Path(f"{stem}.jar"), content)


def publish(root: Path) -> None:
    """skates 1.2, with a jar for one platform beside; boots 2-SNAPSHOT, built once."""
    deploy(root, "com.acme", "skates", "1.2", SKATES)
    put(root / "com/acme/skates/1.2/skates-1.2-linux-x86_64.jar", NATIVE)
    boots = root / "com/acme/boots/2-SNAPSHOT"
    built = f"2-{MOMENT}-7"
    put(boots / f"boots-{built}.pom", POM.format(group="com.acme", artifact="boots", version="2-SNAPSHOT", more=""))
    put(boots / f"boots-{built}.jar", BOOTS)
    versions = "".join(
        f"<snapshotVersion><extension>{kind}</extension><value>{built}</value><updated>20261101101112</updated></snapshotVersion>"
        for kind in ("jar", "pom")
    )
    put(
        boots / "maven-metadata.xml",
        "<metadata><groupId>com.acme</groupId><artifactId>boots</artifactId><version>2-SNAPSHOT</version><versioning>"
        f"<snapshot><timestamp>{MOMENT}</timestamp><buildNumber>7</buildNumber></snapshot>"
        f"<lastUpdated>20261101101112</lastUpdated><snapshotVersions>{versions}</snapshotVersions></versioning></metadata>",
    )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that has the plugin, and nothing else."""
    root = tmp_path_factory.mktemp("tools")
    source = root / "probe/Resolve.java"
    source.parent.mkdir()
    source.write_text(MOJO)
    library = next(Path("/usr/share/maven/lib").glob("maven-plugin-api-*.jar"))
    subprocess.run(["javac", "--release", "8", "-cp", library, source], check=True, capture_output=True, timeout=60)
    code = source.with_suffix(".class").read_bytes()
    plugin = {"META-INF/maven/plugin.xml": PLUGIN, "probe/Resolve.class": code}
    deploy(root, "test", "probe-maven-plugin", "1", jar(**plugin), "<packaging>maven-plugin</packaging>")
    # Maven gives it to every plugin that does not name its own; this one uses nothing of it.
    deploy(root, "org.codehaus.plexus", "plexus-utils", "1.1", jar())
    return root


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[Tree, Tree]]:
    publish(tmp_path / "tree")
    both = Tree(tmp_path / "tree"), Tree(tmp_path / "tree")
    yield both
    for tree in both:
        tree.close()


@pytest.fixture
def waypost(tmp_path: Path, trees: tuple[Tree, Tree]) -> Iterator[Waypost]:
    one = Waypost(tmp_path, mirrored("maven", [tree.url for tree in trees]))
    yield one
    one.server.stop()


class Project:
    """A project that depends on com.acme's artifacts, and an mvn that has never run before."""

    def __init__(self, folder: Path, waypost: Waypost, tools: Path, *dependencies: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._home = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        wanted = "".join(f"<dependency><groupId>com.acme</groupId>{one}</dependency>" for one in dependencies)
        repository = f"<repository><id>acme</id><url>http://{waypost.address}</url></repository>"
        more = f"<dependencies>{wanted}</dependencies><repositories>{repository}</repositories>"
        (folder / "pom.xml").write_text(POM.format(group="test", artifact="project", version="1", more=more))
        (folder / "settings.xml").write_text(SETTINGS.format(tools=tools.as_uri()))

    def resolve(self, *more: str) -> None:
        local = f"-Dmaven.repo.local={self._folder / 'local'}"
        mvn = ("mvn", "--batch-mode", "--settings", str(self._folder / "settings.xml"), local, *more)
        run(self._home, *mvn, "--file", str(self._folder / "pom.xml"), "test:probe-maven-plugin:1:resolve")

    def has(self, path: str) -> bytes:
        return (self._folder / "local" / path).read_bytes()


def wants(artifact: str, version: str, classifier: str = "") -> str:
    more = f"<classifier>{classifier}</classifier>" if classifier else ""
    return f"<artifactId>{artifact}</artifactId><version>{version}</version>{more}"


def test_each_jar_counts_once_and_what_is_up_to_date_does_not(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], tools: Path
) -> None:
    wanted = wants("skates", "1.2"), wants("skates", "1.2", "linux-x86_64"), wants("boots", "2-SNAPSHOT")
    project = Project(tmp_path / "project", waypost, tools, *wanted)
    project.resolve()
    assert project.has("com/acme/skates/1.2/skates-1.2.jar") == SKATES
    assert project.has("com/acme/skates/1.2/skates-1.2-linux-x86_64.jar") == NATIVE
    assert project.has("com/acme/boots/2-SNAPSHOT/boots-2-SNAPSHOT.jar") == BOOTS
    first, second = trees
    events = waypost.take(4)  # with maven-metadata.xml
    assert sorted(counted(events), key=str) == sorted(
        [
            download("com.acme:skates", "1.2", "maven", first),
            download("com.acme:skates", "1.2", "maven", first, "linux-x86_64"),
            download("com.acme:boots", "2-SNAPSHOT", "maven", first),
        ],
        key=str,
    )
    assert {event["client_version"] for event in events} == {"3.8.7"}
    # Checksums and poms went by, and are no events.
    assert first.asked_for(".jar.sha1") == 3
    assert first.asked_for(".pom") == 2
    # Nothing is asked for again, save whether there is a newer snapshot.
    project.resolve()
    project.resolve("--update-snapshots")
    (metadata,) = waypost.take(1)
    assert (metadata["kind"], metadata["counted"]) == ("index-fetch", False)
    assert not second.asked_for("")
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], tools: Path
) -> None:
    first, second = trees
    lose(waypost, first, "/com/acme/skates/1.2/skates-1.2.jar", "/com/acme/boots/2-SNAPSHOT/maven-metadata.xml")
    Project(tmp_path / "project", waypost, tools, wants("skates", "1.2"), wants("boots", "2-SNAPSHOT")).resolve()
    assert sorted(counted(waypost.take(3)), key=str) == [
        download("com.acme:boots", "2-SNAPSHOT", "maven", second),
        download("com.acme:skates", "1.2", "maven", second),
    ]
    waypost.stop()


def test_who_climbs_or_only_looks_is_not_counted(waypost: Waypost, trees: tuple[Tree, Tree]) -> None:
    for path in ("/com/../../etc/passwd", "/%2e%2e/etc/passwd", "/com/acme/skates/1.2/..%2f..%2fskates-1.2.jar"):
        assert waypost.ask(path)[0] == 404
    status, headers, _ = waypost.ask("/com/acme/skates/1.2/skates-1.2.jar", "HEAD")
    assert (status, headers["location"]) == (307, f"{trees[0].url}/com/acme/skates/1.2/skates-1.2.jar")
    waypost.stop()
