"""Incoming and outgoing templates, and RFC 6570's own examples."""

from __future__ import annotations

import pytest

from waypost.routing.expression import TemplateError, expand, parse
from waypost.routing.outgoing import Outgoing
from waypost.routing.template import MOST_VARIABLES, Template

# Path, query → values; None: no match. The first is the example of the configuration's documentation.
MATCHES = [
    (
        "/files/{version}/{platform}/rocket-skates-{platform}-{version}.tar.gz",
        "/files/2.2.1/linux-amd64/rocket-skates-linux-amd64-2.2.1.tar.gz",
        None,
        {"version": "2.2.1", "platform": "linux-amd64"},
    ),
    (
        "/files/{version}/{platform}/rocket-skates-{platform}-{version}.tar.gz",
        "/files/2.2.1/linux-amd64/rocket-skates-linux-arm64-2.2.1.tar.gz",
        None,
        None,
    ),
    ("/", "/", None, {}),
    ("/", "", None, None),
    ("/", "*", None, None),
    ("/a/b", "/a/b", "x=1", {}),
    ("/a/b", "/a/b/", None, None),
    ("/{x}", "/", None, None),
    ("/{x}", "/a/b", None, None),
    ("/{x}", "/a%2Fb", None, {"x": "a%2Fb"}),
    ("/{x}/", "/a/", None, {"x": "a"}),
    ("/{x}//{y}", "/a//b", None, {"x": "a", "y": "b"}),
    ("/{+x}", "/a/b//", None, {"x": "a/b//"}),
    ("/{+x}", "/", None, None),
    ("/{+x}", "x/a", None, None),
    ("/v{x}", "/v", None, None),
    ("/v{x}.zip", "/v1.zip.zip", None, {"x": "1.zip"}),
    ("/ab{x}ba", "/aba", None, None),
    # An earlier variable takes the longest.
    ("/{a}-{b}", "/1-2-3", None, {"a": "1-2", "b": "3"}),
    ("/{a}{b}", "/xyz", None, {"a": "xy", "b": "z"}),
    ("/{a}-{b}.{c}", "/1-2.3-4.5", None, {"a": "1-2.3", "b": "4", "c": "5"}),
    ("/{+a}/{b}", "/1/2/3", None, {"a": "1/2", "b": "3"}),
    ("/{a}/{+b}", "/1/2/3", None, {"a": "1", "b": "2/3"}),
    ("/{+a}/x/{+b}", "/1/x/2/x/3", None, {"a": "1/x/2", "b": "3"}),
    ("/{a}-{+b}", "/1-2/3-4", None, {"a": "1", "b": "2/3-4"}),
    ("/{+a}-{b}", "/1-2/3-4-5", None, {"a": "1-2/3-4", "b": "5"}),
    ("/p/{+a}/y-{b}.zip", "/p/q/r/y-1.zip", None, {"a": "q/r", "b": "1"}),
    # The same variable twice.
    ("/{v}/{v}", "/1/1", None, {"v": "1"}),
    ("/{v}/{v}", "/1/2", None, None),
    ("/{a}-{b}/{b}", "/1-2-3/2-3", None, {"a": "1", "b": "2-3"}),
    ("/{a}-{b}/{b}-{a}", "/1-2-3/3-1-2", None, {"a": "1-2", "b": "3"}),
    ("/{a}-{b}/{b}-{a}", "/1-2-3/2-3-1", None, {"a": "1", "b": "2-3"}),
    ("/{v}/{+p}/x-{v}.zip", "/1/a/b/x-1.zip", None, {"v": "1", "p": "a/b"}),
    ("/{+p}/{p}", "/a/a", None, {"p": "a"}),
    ("/{+p}/{p}", "/a/b/a/b", None, None),
    # The other operators.
    ("/x{/a,b}", "/x/1/2", None, {"a": "1", "b": "2"}),
    ("{/a}", "/1", None, {"a": "1"}),
    ("/x{.a}{;m}", "/x.3;m=4", None, {"a": "3", "m": "4"}),
    ("/{a,b}", "/1,2", None, {"a": "1", "b": "2"}),
    # Literal text is compared as it came; what a URL cannot hold is encoded in the template.
    ("/é/{x}", "/%C3%A9/1", None, {"x": "1"}),
    ("/~/{x}", "/%7E/1", None, None),
    # Queries: by name, in any order, more are allowed, the first of a name.
    ("/x?v={v}&p={p}", "/x", "p=1&z=9&v=2", {"v": "2", "p": "1"}),
    ("/x{?v,p}", "/x", "p=1&v=2", {"v": "2", "p": "1"}),
    ("/x?a=1{&v}", "/x", "v=2&a=1", {"v": "2"}),
    ("/x?a=1", "/x", "a=2", None),
    ("/x?a", "/x", "a=", {}),
    ("/x{?v}", "/x", None, None),
    ("/x{?v}", "/x", "v=", None),
    ("/x{?v}", "/x", "v=1&v=2", {"v": "1"}),
    ("/x{?v}", "/x", "%76=1", {"v": "1"}),
    ("/x?v={v}", "/x", "v=a/b", None),
    ("/x?v={+v}", "/x", "v=a/b", {"v": "a/b"}),
    ("/{v}?v={v}", "/1", "v=1", {"v": "1"}),
    ("/{v}?v={v}", "/1", "v=2", None),
]


@pytest.mark.parametrize(("text", "path", "query", "values"), MATCHES)
def test_match(text: str, path: str, query: str | None, values: dict[str, str] | None) -> None:
    assert Template.parse(text).match(path, query) == values


def test_precedence_counts_literal_characters_and_different_variables() -> None:
    template = Template.parse("/a/{x}/b-{x}-{y}?v={z}")
    assert template.names == ("x", "y", "z")
    assert template.variables == 3
    assert template.literal == len("/a/") + len("/b-") + len("-") + len("?v=")
    assert Template.parse("/a/{x}/b-{x}-{y}{?v}").literal == template.literal


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("x/{y}", 0),
        ("{+x}", 0),
        ("/{x", 1),
        ("/x}", 2),
        ("/{}", 2),
        ("/{a b}", 2),
        ("/{x,}", 4),
        ("/{|x}", 2),
        ("/{x:0}", 2),
        ("/a b", 2),
        ("/%zz", 1),
        ("/a\r\n", 2),
        ("/a\\b", 2),
        ("/{x:3}", 1),
        ("/{x*}", 1),
        ("/x{#y}", 2),
        ("/x#y", 2),
        ("/x{?a}{?b}", 6),
        ("/x{&a}", 2),
        ("/x?{a}=1", 0),
        ("/x?a=1{&a}", 0),
        ("/" + "-".join(["{x}"] * (MOST_VARIABLES + 1)), 0),
    ],
)
def test_an_unusable_template_is_refused_with_its_position(text: str, position: int) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert caught.value.position == position
    assert caught.value.sentence.endswith(".")


def test_a_hostile_path_ends_in_no_match() -> None:
    """What would take ages without a bound: see BUDGET."""
    path = "/" + "a-" * 4000
    assert Template.parse("/{a}-{b}-{c}/{c}-{b}-{a}").match(path + "/" + "a-" * 4000 + "b") is None
    assert Template.parse("/" + "-".join(f"{{v{i}}}" for i in range(50)) + "!").match(path) is None


OUTGOING = [
    ("https://h.example/{x}", {"x": "1.2.3"}, None, "https://h.example/1.2.3"),
    ("https://h.example/{x}", {"x": "a%2fb%2Bc+d"}, None, "https://h.example/a%2Fb%2Bc%2Bd"),
    ("https://h.example/{+x}", {"x": "a%2fb+c/d"}, None, "https://h.example/a%2fb+c/d"),
    ("https://h.example/{x}", {"x": "%ff%0d%0a"}, None, "https://h.example/%FF%0D%0A"),
    ("https://h.example/{+x}", {"x": "a?b#c\\d e%"}, None, "https://h.example/a%3Fb%23c%5Cd%20e%25"),
    ("https://h.example/{+x}", {"x": "/evil.example"}, None, "https://h.example//evil.example"),
    ("https://h.example:8443/{x}", {"x": "@evil"}, None, "https://h.example:8443/%40evil"),
    ("https://h.example{/x}", {"x": "1"}, None, "https://h.example/1"),
    ("https://h.example{/x}", {"x": ""}, None, "https://h.example/"),
    ("https://h.example{?x}", {"x": "1&y=2"}, None, "https://h.example?x=1%26y%3D2"),
    ("https://h.example/?x={+x}", {"x": "1&y=2#f"}, None, "https://h.example/?x=1%26y=2%23f"),
    ("https://h.example/{x:3}", {"x": "1%2E2.3"}, None, "https://h.example/1.2"),
    ("https://h.example/a{.x}{;y}", {"x": "1", "y": "2"}, None, "https://h.example/a.1;y=2"),
    ("https://h.example/a#{x}", {"x": "1"}, "q=1", "https://h.example/a?q=1#1"),
    ("https://h.example/a{#x}", {"x": "1 "}, "q=1", "https://h.example/a?q=1#1%20"),
    # Parameters of the request are carried; the template's own win; a name appears once.
    ("https://h.example/a", {}, "q=1&r=2", "https://h.example/a?q=1&r=2"),
    ("https://h.example/a", {}, "", "https://h.example/a"),
    ("https://h.example/a", {}, "q=1&q=2&&r", "https://h.example/a?q=1&r"),
    ("https://h.example/a?q=0", {}, "q=1&r=2", "https://h.example/a?q=0&r=2"),
    ("https://h.example/a?q=0", {}, "%71=1", "https://h.example/a?q=0"),
    ("https://h.example/a{?q}", {"q": "0"}, "q=1&r=a+b%20c", "https://h.example/a?q=0&r=a+b%20c"),
    ("https://h.example/a", {}, "q=\r\n é\\", "https://h.example/a?q=%0D%0A%20%C3%A9%5C"),
    # No dot segment, however it is spelt: no URL.
    *(
        ("https://h.example/base/{+x}", {"x": value}, None, None)
        for value in (
            "..",
            ".",
            "%2e%2E",
            ".%2e",
            "a/../b",
            "a/..",
            "a%2f..%2fb",
            "..%5cb",
            "a\\..\\b",
            "..;x",
            "%2F..",
        )
    ),
    *(("https://h.example/base/{x}/f", {"x": value}, None, None) for value in ("..", "%2e%2e", ".", "..%2ff", "..%3b")),
    ("https://h.example/base/{x}{y}", {"x": ".", "y": "."}, None, None),
    ("https://h.example/base/{.x}", {"x": "."}, None, None),
    ("https://h.example/base/{x}", {"x": "..."}, None, "https://h.example/base/..."),
    ("https://h.example/base/{x}", {"x": ".well-known"}, None, "https://h.example/base/.well-known"),
    ("https://h.example/base/v{x}", {"x": ".."}, None, "https://h.example/base/v.."),
    ("https://h.example/a?u={+x}", {"x": "/../b"}, None, "https://h.example/a?u=/../b"),
]


@pytest.mark.parametrize(("text", "values", "query", "location"), OUTGOING)
def test_location(text: str, values: dict[str, str], query: str | None, location: str | None) -> None:
    assert Outgoing.parse(text, values).location(values, query) == location


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://{x}/", "variables"),
        ("https://h.{x}.example/", "extend the host"),
        ("https://h.example:{x}/", "variables"),
        ("{x}://h.example/", "https://"),
        ("{x}", "https://"),
        ("", "https://"),
        ("/relative", "https://"),
        ("//h.example/", "https://"),
        ("ftp://h.example/", "https://"),
        ("javascript://h.example/%0aalert(1)", "https://"),
        ("https:///x", "no host"),
        ("https://user:pw@h.example/", "user name"),
        ("https://h.example{+x}", "extend the host"),
        ("https://h.example{x}", "extend the host"),
        ("https://h.example{.x}", "extend the host"),
        ("https://h.example{&x}", "extend the host"),
        ("https://h.example{;x}", "extend the host"),
        ("https://h.example:80{x}", "extend the host"),
        ("https://h.example:0/", "port"),
        ("https://h.example:65536/", "port"),
        ("https://bücher.example/", "ASCII"),
        ("https://h%2eexample/", "ASCII"),
        ("https://h.example/{y}", "binds no variable"),
        ("https://h.example/\r\n", "percent-encoded"),
        ("https://h.example\\@evil.example/", "percent-encoded"),
        ("https://h.example/../{x}", "'.' and '..'"),
        ("https://h.example/%2e%2e/{x}", "'.' and '..'"),
        ("https://h.example/a/..{/x}", "'.' and '..'"),
    ],
)
def test_an_unsafe_outgoing_template_is_refused(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Outgoing.parse(text, ("x",))
    assert says in caught.value.sentence


def test_scheme_and_authority_of_an_outgoing_template() -> None:
    outgoing = Outgoing.parse("HTTPS://H.Example:8443/{x}", ("x",))
    assert (outgoing.scheme, outgoing.authority) == ("https", "h.example:8443")
    assert Outgoing.parse("http://[::1]:80/", ()).authority == "[::1]:80"


# RFC 6570 section 3.2: the values of its examples.
VALUES = {
    "count": ["one", "two", "three"],
    "dom": ["example", "com"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "keys": {"semi": ";", "dot": ".", "comma": ","},
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_keys": {},
    "undef": None,
}

# Its examples, section by section.
EXAMPLES = {
    "3.2.1": """
        {count} one,two,three
        {count*} one,two,three
        {/count} /one,two,three
        {/count*} /one/two/three
        {;count} ;count=one,two,three
        {;count*} ;count=one;count=two;count=three
        {?count} ?count=one,two,three
        {?count*} ?count=one&count=two&count=three
        {&count*} &count=one&count=two&count=three
    """,
    "3.2.2": """
        {var} value
        {hello} Hello%20World%21
        {half} 50%25
        O{empty}X OX
        O{undef}X OX
        {x,y} 1024,768
        {x,hello,y} 1024,Hello%20World%21,768
        ?{x,empty} ?1024,
        ?{x,undef} ?1024
        ?{undef,y} ?768
        {var:3} val
        {var:30} value
        {list} red,green,blue
        {list*} red,green,blue
        {keys} semi,%3B,dot,.,comma,%2C
        {keys*} semi=%3B,dot=.,comma=%2C
    """,
    "3.2.3": """
        {+var} value
        {+hello} Hello%20World!
        {+half} 50%25
        {base}index http%3A%2F%2Fexample.com%2Fhome%2Findex
        {+base}index http://example.com/home/index
        O{+empty}X OX
        O{+undef}X OX
        {+path}/here /foo/bar/here
        here?ref={+path} here?ref=/foo/bar
        up{+path}{var}/here up/foo/barvalue/here
        {+x,hello,y} 1024,Hello%20World!,768
        {+path,x}/here /foo/bar,1024/here
        {+path:6}/here /foo/b/here
        {+list} red,green,blue
        {+list*} red,green,blue
        {+keys} semi,;,dot,.,comma,,
        {+keys*} semi=;,dot=.,comma=,
    """,
    "3.2.4": """
        {#var} #value
        {#hello} #Hello%20World!
        {#half} #50%25
        foo{#empty} foo#
        foo{#undef} foo
        {#x,hello,y} #1024,Hello%20World!,768
        {#path,x}/here #/foo/bar,1024/here
        {#path:6}/here #/foo/b/here
        {#list} #red,green,blue
        {#list*} #red,green,blue
        {#keys} #semi,;,dot,.,comma,,
        {#keys*} #semi=;,dot=.,comma=,
    """,
    "3.2.5": """
        {.who} .fred
        {.who,who} .fred.fred
        {.half,who} .50%25.fred
        www{.dom*} www.example.com
        X{.var} X.value
        X{.empty} X.
        X{.undef} X
        X{.var:3} X.val
        X{.list} X.red,green,blue
        X{.list*} X.red.green.blue
        X{.keys} X.semi,%3B,dot,.,comma,%2C
        X{.keys*} X.semi=%3B.dot=..comma=%2C
        X{.empty_keys} X
        X{.empty_keys*} X
    """,
    "3.2.6": """
        {/who} /fred
        {/who,who} /fred/fred
        {/half,who} /50%25/fred
        {/who,dub} /fred/me%2Ftoo
        {/var} /value
        {/var,empty} /value/
        {/var,undef} /value
        {/var,x}/here /value/1024/here
        {/var:1,var} /v/value
        {/list} /red,green,blue
        {/list*} /red/green/blue
        {/list*,path:4} /red/green/blue/%2Ffoo
        {/keys} /semi,%3B,dot,.,comma,%2C
        {/keys*} /semi=%3B/dot=./comma=%2C
    """,
    "3.2.7": """
        {;who} ;who=fred
        {;half} ;half=50%25
        {;empty} ;empty
        {;v,empty,who} ;v=6;empty;who=fred
        {;v,bar,who} ;v=6;who=fred
        {;x,y} ;x=1024;y=768
        {;x,y,empty} ;x=1024;y=768;empty
        {;x,y,undef} ;x=1024;y=768
        {;hello:5} ;hello=Hello
        {;list} ;list=red,green,blue
        {;list*} ;list=red;list=green;list=blue
        {;keys} ;keys=semi,%3B,dot,.,comma,%2C
        {;keys*} ;semi=%3B;dot=.;comma=%2C
    """,
    "3.2.8": """
        {?who} ?who=fred
        {?half} ?half=50%25
        {?x,y} ?x=1024&y=768
        {?x,y,empty} ?x=1024&y=768&empty=
        {?x,y,undef} ?x=1024&y=768
        {?var:3} ?var=val
        {?list} ?list=red,green,blue
        {?list*} ?list=red&list=green&list=blue
        {?keys} ?keys=semi,%3B,dot,.,comma,%2C
        {?keys*} ?semi=%3B&dot=.&comma=%2C
    """,
    "3.2.9": """
        {&who} &who=fred
        {&half} &half=50%25
        ?fixed=yes{&x} ?fixed=yes&x=1024
        {&x,y,empty} &x=1024&y=768&empty=
        {&x,y,undef} &x=1024&y=768
        {&var:3} &var=val
        {&list} &list=red,green,blue
        {&list*} &list=red&list=green&list=blue
        {&keys} &keys=semi,%3B,dot,.,comma,%2C
        {&keys*} &semi=%3B&dot=.&comma=%2C
    """,
}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [tuple(line.split()) for lines in EXAMPLES.values() for line in lines.strip().splitlines()],
)
def test_rfc_6570_examples(text: str, expanded: str) -> None:
    assert expand(parse(text), VALUES) == expanded


def test_a_prefix_is_for_text_only() -> None:
    """RFC 6570 section 2.4.1."""
    with pytest.raises(ValueError, match="prefix"):
        expand(parse("{keys:1}"), VALUES)


def test_an_incoming_template_expands_to_a_path_that_it_matches() -> None:
    template = Template.parse("/files/{version}/{+path}{?q}")
    values = {"version": "1.2", "path": "a/b", "q": "c"}
    path, _, query = template.expand(values).partition("?")
    assert template.match(path, query) == values
