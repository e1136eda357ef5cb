"""The second connection: it listens on another server of the cluster, whichever of them goes away."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually
from support.clusters import Cluster, Raw, await_path, cluster

from scheduler.bus import Message
from scheduler.bus.interest import SUBJECT as CONNECTIONS
from scheduler.bus.listener import NatsListener, open_listener
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions

pytestmark = pytest.mark.integration


@pytest.fixture
def three() -> Iterator[Cluster]:
    """A cluster of three servers without JetStream."""
    with cluster(jetstream=False) as servers:
        yield servers


class Pair:
    """Both connections, and what came in on ``a.*`` over each."""

    def __init__(self, bus: NatsBus, listener: NatsListener) -> None:
        self.bus = bus
        self.listener = listener
        self.first: list[str] = []
        self.second: list[str] = []
        listener.listen("a.*", lambda message: self.second.append(message.subject))

    async def open(self) -> None:
        def note(message: Message) -> None:
            self.first.append(message.subject)

        await self.bus.subscribe("a.*", note)

    @property
    def apart(self) -> bool:
        """Whether both are up, and on two servers."""
        bus, listener = self.bus, self.listener
        return bus.connected and listener.connected and bus.server_id != listener.server_id


@asynccontextmanager
async def open_pair(*servers: NatsServer) -> AsyncIterator[Pair]:
    options = BusOptions(tuple(server.url for server in servers))
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(options))
        pair = Pair(bus, await stack.enter_async_context(open_listener(bus, options)))
        await pair.open()
        yield pair


def publish(server: NatsServer, subject: str) -> None:
    """Publish at a server."""
    with Raw(server.url) as raw:
        raw.write(f"PUB {subject} 0", "")
        raw.flush()


async def test_on_a_single_server_there_is_no_second_connection(nats_server: NatsServer) -> None:
    """Not even an attempt at one."""
    with capture_logs() as logs:
        async with open_pair(nats_server) as pair:
            await pair.bus.flush()
            answer = await pair.bus.request(CONNECTIONS, b"")
            assert b'"num_connections":1,' in answer.data
            assert not pair.listener.generation
    assert not [entry for entry in logs if "second server" in entry["event"]]


async def test_in_a_cluster_it_is_on_another_server(three: Cluster) -> None:
    """Which the cluster told of; each message comes in over both."""
    async with open_pair(three.servers[0]) as pair:
        await eventually(lambda: pair.apart)
        await eventually(lambda: pair.listener.url != pair.bus.url)
        publish(three.servers[0], "a.1")
        await eventually(lambda: pair.first == pair.second == ["a.1"])


@pytest.mark.parametrize("how", ["stop", "kill", "pause"])
async def test_it_hears_what_the_first_connection_misses(three: Cluster, how: str) -> None:
    """Whatever becomes of the first one's server; then both are on two servers again."""
    gone, *others = three.servers
    async with open_pair(gone) as pair:
        await eventually(lambda: pair.apart)
        on = three.at(pair.listener.url)
        (third,) = (server for server in others if server is not on)
        await_path(third, on)
        getattr(gone, how)()
        publish(third, "a.1")
        await eventually(lambda: pair.second == ["a.1"])
        assert pair.first == []
        if how == "pause":
            assert pair.bus.connected
        else:
            left = {server.url for server in others}
            await eventually(lambda: pair.apart and {pair.bus.url, pair.listener.url} == left)


async def test_where_its_server_goes_it_moves_to_the_third(three: Cluster) -> None:
    """And stays off the server of the first connection."""
    async with open_pair(three.servers[0]) as pair:
        await eventually(lambda: pair.apart)
        three.at(pair.listener.url).kill()
        await eventually(lambda: pair.listener.generation == 2 and pair.apart)
        assert pair.bus.generation == 1


async def test_it_leaves_a_server_that_the_first_connection_moves_to(three: Cluster) -> None:
    """With two servers gone they meet; as soon as there is another one, it goes there."""
    first = three.servers[0]
    async with open_pair(first) as pair:
        await eventually(lambda: pair.apart)
        last = three.at(pair.listener.url)
        for server in three.others(last):
            server.kill()
        await eventually(lambda: pair.bus.url == last.url and pair.bus.connected)
        await eventually(lambda: not pair.listener.connected)
        first.start()
        await eventually(lambda: pair.apart, 10)
        assert pair.listener.url == first.url


async def test_one_address_for_all_servers_will_do(three: Cluster) -> None:
    """Behind a load balancer servers are told apart by their ids: the same one is not taken twice."""
    first = three.servers[0]
    async with open_bus(BusOptions((first.url,))) as bus:
        again = BusOptions((first.url.replace("127.0.0.1", "localhost"),))
        async with open_listener(bus, again) as listener:
            await eventually(lambda: listener.connected)
            assert listener.server_id != bus.server_id


@pytest.mark.parametrize("in_the_url", [True, False])
async def test_it_logs_in_as_the_first_connection_does(in_the_url: bool) -> None:
    """At a server that the cluster told of, too."""
    authorization = {"authorization": {"user": "u", "password": "p"}}
    with cluster(config=authorization, jetstream=False, user_info="u:p") as servers:
        url = servers.servers[0].url
        options = BusOptions((url,))
        if not in_the_url:
            options = BusOptions((url.replace("u:p@", ""),), user="u", password="p")
        async with open_bus(options) as bus, open_listener(bus, options) as listener:
            await eventually(lambda: listener.connected)
            assert listener.server_id != bus.server_id


async def test_leaving_waits_for_no_server_that_hangs(three: Cluster) -> None:
    """Whether it is connected, or about to be."""
    async with open_pair(*three.servers) as pair:
        await eventually(lambda: pair.apart)
        three.at(pair.listener.url).pause()
        began = trio.current_time()
    assert trio.current_time() - began < 2


async def test_an_exception_of_the_body_comes_out_as_it_is(nats_server: NatsServer) -> None:
    """Not wrapped in a group."""
    with pytest.raises(ZeroDivisionError):
        async with open_pair(nats_server):
            raise ZeroDivisionError


async def test_what_may_have_been_missed(three: Cluster) -> None:
    """Whatever came while neither connection was up; a stream has it, if its server lives on."""
    async with open_pair(three.servers[0]) as pair:
        await eventually(lambda: pair.apart)
        pair.listener._since = pair.bus.lost_at - 3600
        for connection in (pair.bus._connection, pair.listener._connection):
            assert connection is not None
            connection.lose("both are cut")
        await eventually(lambda: pair.bus.generation == 2)
        assert pair.listener.missed(captured=False)
        moved = pair.bus.url != three.servers[0].url
        assert pair.listener.missed(captured=True) is moved
