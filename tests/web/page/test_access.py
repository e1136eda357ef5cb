"""Who may read, and who may give orders."""

import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from support.durable import until
from support.pages import EVERYWHERE, HERE, TOKEN, of, visited

from scheduler.config.web import WebSettings, parse_page
from scheduler.errors import InvalidSettings, Refused
from scheduler.web.hosts import Hosts
from scheduler.web.page.access import LIFE, Access, Visitor

OTHER = "fedcba9876543210fedcba98"
PROXY: dict[str, Any] = {"user_header": "X-Remote-User", "trusted_proxies": ("10.0.0.0/8", "::1")}
LOCAL = {"host": "localhost:8080"}


def access(at: Any = HERE, clock: Any = time.time, **settings: Any) -> Access:
    return Access(WebSettings(**settings), at, Hosts(["scheduler.example"]), clock)


def visitor(judge: Access, client: str = "127.0.0.1", cookie: str = "", **headers: str) -> Any:
    named = {"host": "localhost:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return judge.visitor(Headers(named), {judge.cookie: cookie} if judge.cookie else {}, client)


# Reading.


def test_on_this_machine_everybody_may_read() -> None:
    """As long as nobody else can reach it."""
    assert visitor(access()) is not None
    assert not access(token=TOKEN).may_order(visitor(access()))


@pytest.mark.parametrize("login", [{"token": TOKEN}, PROXY], ids=str)
def test_where_there_is_a_login_everybody_needs_it(login: dict[str, Any]) -> None:
    """A proxy on this machine may pass on the requests of the world, and mark none of them."""
    assert visitor(access(**login)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "scheduler.example"},
        {"host": "10.0.0.7"},
        {"x_forwarded_for": "6.6.6.6"},
        {"forwarded": "for=6.6.6.6"},
        {"via": "1.1 proxy"},
    ],
    ids=str,
)
def test_what_a_proxy_passes_on_is_not_of_this_machine(headers: dict[str, str]) -> None:
    """Although it comes from here."""
    assert visitor(access(), **headers) is None


def test_elsewhere_a_token_is_needed() -> None:
    """The whole of it, and no other."""
    judge = access(EVERYWHERE, token=TOKEN)
    assert visitor(judge) is None
    for wrong in ("", TOKEN[:-1], TOKEN + "x", OTHER, "ü" * 24):
        assert visitor(judge, authorization=f"Bearer {wrong}") is None
    assert visitor(judge, authorization=f"Bearer {TOKEN}").known
    assert visitor(judge, authorization=f"bearer {TOKEN}").known
    assert visitor(judge, authorization=f"Basic {TOKEN}") is None


def test_a_session_stands_for_the_token_and_ends() -> None:
    """After its time, or with the token; a restart does not end it."""
    now = [1_000.0]
    judge = access(EVERYWHERE, lambda: now[0], token=TOKEN)
    assert judge.log_in(OTHER, "") is None
    cookie = judge.log_in(TOKEN, "  ann\x1b[31m ")
    assert cookie is not None
    restarted = access(EVERYWHERE, lambda: now[0], token=TOKEN)
    found = visitor(restarted, cookie=cookie)
    assert found.known
    assert not found.vouched
    assert "\x1b" not in found.user
    assert visitor(access(EVERYWHERE, lambda: now[0], token=OTHER), cookie=cookie) is None
    now[0] += LIFE
    assert visitor(restarted, cookie=cookie) is None


@given(st.text(max_size=200), st.integers(0, 200))
def test_a_forged_cookie_opens_nothing(text: str, place: int) -> None:
    """Neither another text, nor a real one with a letter changed, nor one that nobody signed."""
    judge = access(EVERYWHERE, token=TOKEN)
    assert visitor(judge, cookie=text) is None
    cookie = judge.log_in(TOKEN, "ann") or ""
    body, _, signature = cookie.partition(".")
    at = place % len(body)
    changed = body[:at] + ("A" if body[at] != "A" else "B") + body[at + 1 :]
    assert visitor(judge, cookie=f"{changed}.{signature}") is None
    assert visitor(judge, cookie=f"{body}.") is None


def test_while_a_token_is_replaced_both_are_good(tmp_path: Any) -> None:
    """The file has one on each line."""
    file = tmp_path / "token"
    file.write_text(f"{OTHER}\n{TOKEN}\n")
    judge = access(EVERYWHERE, token_file=file)
    for token in (TOKEN, OTHER):
        assert visitor(judge, authorization=f"Bearer {token}") is not None
        assert visitor(judge, cookie=judge.log_in(token, "") or "") is not None


def test_a_header_counts_from_a_trusted_proxy_only() -> None:
    """Once; another one could have been added before it."""
    judge = access(EVERYWHERE, **PROXY)
    found = visitor(judge, "10.1.2.3", x_remote_user="ann")
    assert (found.user, found.vouched, found.known) == ("ann", True, True)
    assert visitor(judge, "::ffff:10.1.2.3", x_remote_user="ann") is not None
    assert visitor(judge, "11.1.2.3", x_remote_user="ann") is None
    assert visitor(judge, "10.1.2.3", x_remote_user=" ") is None
    twice = Headers(raw=[(b"host", b"x"), (b"x-remote-user", b"eve"), (b"x-remote-user", b"ann")])
    assert judge.visitor(twice, {}, "10.1.2.3") is None


# Orders.


def test_a_proxy_tells_names_in_utf_8() -> None:
    """As they are, and not letter by letter; and what is none is told as it came."""
    judge = access(**PROXY)
    for sent in ("J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg \u0141", "ann"):
        value = sent.encode().decode("latin-1")
        assert visitor(judge, "10.1.2.3", x_remote_user=value).user == sent
    assert visitor(judge, "10.1.2.3", x_remote_user="J\xf6rg").user == "J\xf6rg"


def order(judge: Access, who: Any, client: str = "127.0.0.1", **headers: str) -> None:
    named = {"host": "localhost:8080", "origin": "http://localhost:8080"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    judge.check_order(who, Headers({name: value for name, value in named.items() if value}), client)


def test_an_order_of_a_browser_proves_that_it_is_of_this_page() -> None:
    """By its origin, and by what the page was given."""
    judge = access(token=TOKEN, orders=True)
    who = visitor(judge, cookie=judge.log_in(TOKEN, "ann") or "")
    right = judge.csrf(who)
    order(judge, who, x_scheduler_csrf=right)
    order(judge, who, x_scheduler_csrf=right, origin="https://scheduler.example")
    other = visitor(judge, cookie=judge.log_in(TOKEN, "ann") or "")
    for headers in (
        {"x_scheduler_csrf": ""},
        {"x_scheduler_csrf": "0" * 64},
        {"x_scheduler_csrf": judge.csrf(other)},
        {"x_scheduler_csrf": right, "origin": ""},
        {"x_scheduler_csrf": right, "origin": "null"},
        {"x_scheduler_csrf": right, "origin": "http://evil.example"},
        {"x_scheduler_csrf": right, "origin": "http://localhost:9090"},
        {"x_scheduler_csrf": right, "origin": "http://6.6.6.6"},
        {"x_scheduler_csrf": right, "origin": "https://scheduler.example:9090"},
        {"x_scheduler_csrf": right, "sec_fetch_site": "cross-site"},
    ):
        with pytest.raises(Refused) as refused:
            order(judge, who, **headers)
        assert refused.value.code == "forbidden"


def test_a_program_with_the_token_needs_no_more() -> None:
    """No browser sends that by itself; but one that says where it comes from has to come from here."""
    judge = access(token=TOKEN, orders=True)
    who = visitor(judge, authorization=f"Bearer {TOKEN}")
    assert judge.csrf(who) == ""
    order(judge, who, origin="")
    with pytest.raises(Refused):
        order(judge, who, origin="http://evil.example")


def test_a_proxy_may_ask_by_another_name() -> None:
    """If it says which name the browser used; from others that is ignored."""
    judge = access(EVERYWHERE, orders=True, **PROXY)
    who = visitor(judge, "10.1.2.3", x_remote_user="ann")
    told = {"x_scheduler_csrf": judge.csrf(who), "origin": "https://ci.corp"}
    order(judge, who, "10.1.2.3", x_forwarded_host="ci.corp", **told)
    with pytest.raises(Refused):
        order(judge, who, "10.1.2.3", **told)
    with pytest.raises(Refused):
        order(judge, who, "11.1.2.3", x_forwarded_host="ci.corp", **told)


def test_without_the_flag_there_are_no_orders() -> None:
    """Whoever asks."""
    judge = access(token=TOKEN)
    with pytest.raises(Refused, match="--web-orders"):
        order(judge, visitor(judge, authorization=f"Bearer {TOKEN}"))


def test_whoever_is_just_here_gives_no_orders() -> None:
    """Reading may be free on this machine; orders are not."""
    judge = access(token=TOKEN, orders=True)
    with pytest.raises(Refused, match="log in"):
        order(judge, Visitor())


# Settings.


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"web": EVERYWHERE}, "can be reached from other machines"),
        ({"orders": True}, "--web-orders"),
        ({"token": "short"}, "anyone could guess it"),
        ({"token": TOKEN, "token_file": "/nothing"}, "choose one"),
        ({"prefix": "/a/"}, "--web-prefix"),
        ({"prefix": "a"}, "--web-prefix"),
        ({"prefix": "/a b"}, "--web-prefix"),
        ({"user_header": "X-User"}, "needed together"),
        ({"trusted_proxies": ("10.0.0.1",)}, "needed together"),
        ({"user_header": "Cookie", "trusted_proxies": ("10.0.0.1",)}, "says something else"),
        ({"user_header": "X-User", "trusted_proxies": ("10.0.0.1/8",)}, "no IP address or network"),
        ({"user_header": "X-User", "trusted_proxies": ("proxy",)}, "no IP address or network"),
    ],
    ids=str,
)
def test_settings_that_would_leave_it_open_are_refused(settings: dict[str, Any], text: str) -> None:
    """In one line, which never has the token."""
    with pytest.raises(InvalidSettings, match=text) as error:
        WebSettings(**settings).tokens()
    assert "\n" not in str(error.value)
    assert "short" not in str(error.value)


def test_a_token_is_shown_nowhere() -> None:
    """Settings are logged and printed."""
    assert TOKEN not in repr(WebSettings(token=TOKEN))


def test_the_page_can_be_switched_off() -> None:
    """It is on where there is an embedded broker, at a free port of this machine."""
    assert str(WebSettings().address(embedded=True)) == "127.0.0.1:0"
    assert WebSettings().address(embedded=False) is None
    assert WebSettings(web=parse_page("off")).address(embedded=True) is None
    assert str(WebSettings(web=parse_page("8080")).address(embedded=False)) == "127.0.0.1:8080"


# Over HTTP.


async def test_who_has_no_token_reads_nothing() -> None:
    """JSON says so; a page leads to the login, and back after it."""
    async with visited(at=EVERYWHERE, page={"token": TOKEN}) as page:
        for path in ("/api/builds", "/api/session", of("b1"), of("b1", "stream"), "/api/stream"):
            found = await page.client.get(path)
            assert (found.status_code, found.json()["error"]) == (401, "login")
        sent = await page.client.get("/builds/b1/graph?x=1")
        assert sent.status_code == 303
        assert sent.headers["location"] == "/login?next=builds%2Fb1%2Fgraph"
        assert (await page.client.get("/login")).status_code == 200
        assert (await page.client.get("/static/app.css")).status_code == 200
        by_token = await page.client.get("/api/builds", headers={"authorization": f"Bearer {TOKEN}"})
        assert by_token.status_code == 200


async def test_one_logs_in_and_out() -> None:
    """The cookie is for this page alone, and for no script."""
    async with visited(at=EVERYWHERE, page={"token": TOKEN, "prefix": "/s"}) as page:
        here = {"origin": str(page.client.base_url).rstrip("/")}
        wrong = await page.client.post("/s/login", data={"token": OTHER}, headers=here)
        assert wrong.status_code == 403
        assert OTHER not in wrong.text
        assert (await page.client.post("/s/login", data={"token": TOKEN})).status_code == 403
        form = {"token": TOKEN, "name": "ann", "next": "builds/b1/graph"}
        right = await page.client.post("/s/login", data=form, headers=here)
        assert (right.status_code, right.headers["location"]) == (303, "/s/builds/b1/graph")
        cookie = right.headers["set-cookie"]
        for word in ("HttpOnly", "SameSite=Strict", "Path=/s/", "Max-Age="):
            assert word in cookie
        assert TOKEN not in cookie
        session = await page.read("/s/api/session")
        assert (session["user"], session["vouched"], session["orders"]) == ("ann", False, False)
        await page.client.post("/s/logout", headers=here)
        assert (await page.client.get("/s/api/session")).status_code == 401


async def test_those_who_guess_keep_nobody_out() -> None:
    """Each guess that failed waits; the token is taken at once, and a guess too many is told so."""
    async with visited(page={"token": TOKEN}) as page, trio.open_nursery() as nursery:
        here = {"origin": str(page.client.base_url).rstrip("/")}
        found = []

        async def guess() -> None:
            answer = await page.client.post("/login", data={"token": OTHER}, headers=here)
            found.append(answer.status_code)

        for _ in range(30):
            nursery.start_soon(guess)
        await until(lambda: 429 in found)
        assert (await page.client.post("/login", data={"token": TOKEN}, headers=here)).status_code == 303
        assert found.count(403) < 8


async def test_nobody_has_a_large_body_read_before_they_may() -> None:
    """Neither as an order nor as a login."""
    settings = {"token": TOKEN, "orders": True}
    async with visited(page=settings) as page:
        here = {"origin": str(page.client.base_url).rstrip("/")}
        head = f"POST {of('b1', 'orders')} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n"
        async with await trio.open_tcp_stream(page.address.host, page.address.port) as asking:
            # The answer comes although nothing of the body does.
            await asking.send_all(head.encode())
            assert (await asking.receive_some()).startswith(b"HTTP/1.1 401")
        login = await page.client.post("/login", content=b"x" * 20_000, headers=here)
        assert (login.status_code, login.json()["error"]) == (413, "large")


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "builds\\..", "x"]
)
async def test_a_login_leads_nowhere_else(path: str) -> None:
    """Whatever a link to it said."""
    async with visited(page={"token": TOKEN}) as page:
        here = {"origin": str(page.client.base_url).rstrip("/")}
        answer = await page.client.post("/login", data={"token": TOKEN, "next": path}, headers=here)
        assert answer.headers["location"] == "/"


async def test_scripts_are_packed_for_those_who_take_it() -> None:
    """A third of the bytes; each form has a tag of its own, by which a browser asks for it again."""
    async with visited() as page:
        plain = await page.client.get("/static/build.js", headers={"accept-encoding": "gzip;q=0, br"})
        packed = await page.client.get("/static/build.js", headers={"accept-encoding": "br, gzip;q=0.5"})
        assert packed.content == plain.content
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        assert packed.headers["etag"] != plain.headers["etag"]
        for answer, takes in ((plain, "br"), (packed, "gzip")):
            assert answer.headers["vary"] == "accept-encoding"
            headers = {"if-none-match": answer.headers["etag"], "accept-encoding": takes}
            assert (await page.client.get("/static/build.js", headers=headers)).status_code == 304


async def test_nobody_tunnels_through_a_proxy() -> None:
    """One that passes on an upgrade to HTTP/2 would have all further requests of the client come from it."""
    settings = {"user_header": "X-User", "trusted_proxies": ("127.0.0.1",)}
    upgrade = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMAAABkAAQAAP__",
    }
    async with visited(page=settings) as page:
        head = "".join(f"{name}: {value}\r\n" for name, value in upgrade.items())
        request = f"GET /api/session HTTP/1.1\r\nhost: localhost\r\nx-user: ann\r\n{head}\r\n"
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_upgrade_connection()
        found: list[Any] = []
        async with await trio.open_tcp_stream(page.address.host, page.address.port) as asking:
            await asking.send_all(request.encode())
            data = bytes(await asking.receive_some())
            assert data.startswith(b"HTTP/1.1 101")
            _, _, data = data.partition(b"\r\n\r\n")
            await asking.send_all(client.data_to_send())
            found += client.receive_data(data)
            while not any(isinstance(one, h2.events.StreamEnded) for one in found):
                found += client.receive_data(bytes(await asking.receive_some()))
        [answer] = [one for one in found if isinstance(one, h2.events.ResponseReceived)]
        assert [str(value) for name, value in answer.headers or [] if str(name) == ":status"] == ["505"]


async def test_a_name_that_resolves_to_this_machine_reads_nothing() -> None:
    """Another page's script would send its own host, and would be taken for a part of ours."""
    async with visited(hosts=("ours.example",)) as page:
        for path in ("/", "/api/builds", "/static/app.js", of("b1", "stream")):
            answer = await page.client.get(path, headers={"host": "evil.example"})
            assert answer.status_code == 421
        assert (await page.client.get("/login", headers={"host": "ours.example"})).status_code == 200


async def test_behind_a_proxy_links_begin_with_its_path() -> None:
    """Whether it takes the path away or leaves it."""
    async with visited(page={"prefix": "/scheduler"}) as page:
        for path in ("/scheduler/", "/"):
            found = await page.client.get(path)
            assert 'name="scheduler-base" content="/scheduler/"' in found.text
        assert (await page.read("/scheduler/api/builds"))["matching"] == 1
        assert (await page.client.get("/scheduling/api/builds")).status_code == 404


async def test_every_answer_forbids_what_a_page_does_not_need() -> None:
    """Scripts and styles of its own, nothing inline, and nobody else's frame."""
    async with visited() as page:
        for path in ("/", "/builds/b1", "/login", "/api/builds", "/api/nothing", "/static/app.js"):
            headers = (await page.client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
        for path in ("/", "/builds/b1", "/login"):
            text = (await page.client.get(path)).text
            assert "<style" not in text
            assert " style=" not in text
            assert "<script>" not in text
            assert "onclick" not in text
