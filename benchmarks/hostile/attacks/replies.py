"""What connectors may answer, and what anybody may publish in their place."""

import asyncio
import random
from typing import Any

from benchmarks.hostile.arena import PROVIDER, Arena, Course, attack, build, completed, component, encode

_FLOOD = 100_000


@attack("a-password-of-8-mb")
async def long_password(arena: Arena) -> Course:
    """A reply with a secret that is nearly as long as a message may be, and has to be escaped."""
    rng = random.Random(0)
    password = "".join(rng.choices('ab<>&"/\\\n é', k=4_000_000))
    await arena.connect("thing", lambda asked: asked | {"_state": "completed", "password": password})
    data = build([component(1)])
    yield
    while arena.again():
        await arena.run(data, components=1)


@attack("30000-secrets")
async def many_secrets(arena: Arena) -> Course:
    """A reply with many short secrets, and errors in which they are looked for."""
    tokens = [f'x"y/{number}é' for number in range(30_000)]
    errors = " ".join(tokens[:4_000])

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        if asked["_component_id"] == "thing::0":
            return asked | {"_state": "completed", "password": tokens}
        return asked | {"_state": "errored", "error": errors}

    await arena.connect("thing", answer)
    edges = [{"source": "thing::0", "destination": f"thing::{number}"} for number in range(1, 100)]
    data = build([component(number) for number in range(100)], edges=edges)
    yield
    while arena.again():
        await arena.run(data, components=100)


@attack("secrets-submitted")
async def submitted_secrets(arena: Arena) -> Course:
    """A build of 8 MB that is nothing but secrets."""
    await arena.connect("thing", completed)
    changes = [component(n, password=[f"{n}-{m}-päss/word<>" for m in range(4_000)]) for n in range(60)]
    data = build(changes)
    yield
    while arena.again():
        await arena.run(data, components=60)


@attack("texts-full-of-secrets")
async def masked_texts(arena: Arena) -> Course:
    """Error texts of 64 KB made for the search for secrets to be slow, by one way or another."""
    tokens = [f"{'a' * 63}{number:03}{'a' * 200}" for number in range(100)]
    texts = [
        "a" * 62_000, "password: " * 6_200, "password=" * 6_800, "http://a:" * 6_800,
        "://" * 20_000, "@" * 62_000,
        "Authorization: Bearer " * 2_800, '{"password": "' * 4_400, "-----BEGIN " * 5_600, "eyJ" * 20_000,
        "\\" * 62_000, '"' * 62_000, "pass" * 15_000, "the password is " * 3_800, "--password " * 5_600,
        "a" * 31_000 + "://" + "b" * 30_000, "=" * 62_000, " " * 62_000 + "password",
    ]  # fmt: skip

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        number = int(asked["_component_id"].removeprefix("thing::"))
        return asked | {"_state": "errored", "error": texts[number % len(texts)]}

    await arena.connect("thing", answer)
    data = build([component(n, password=tokens) for n in range(108)], options={"on_error": "continue"})
    yield
    while arena.again():
        await arena.run(data, components=108)


@attack("finds-of-10000")
async def finds(arena: Arena) -> Course:
    """Replies to a find, with 10,000 components each."""
    elements = [{"_component_id": f"found::{n}", "_component": "found", "tag": f"{n}"} for n in range(10_000)]
    await arena.connect(
        "thing", lambda asked: asked | {"_state": "completed", "components": elements}, "find"
    )
    data = build([component(number, _action="find") for number in range(8)])
    yield
    while arena.again():
        await arena.run(data, components=8 + 80_000)


@attack("replies-of-8-mb")
async def large_replies(arena: Arena) -> Course:
    """Each as large as a message may be, from several components at a time."""
    deep: Any = {"k": ["x"] * 50}
    reply = {"list": [deep] * 25_000}
    await arena.connect("thing", lambda asked: encode(asked | {"_state": "completed"} | reply))
    data = build([component(number) for number in range(8)])
    yield
    while arena.again():
        await arena.run(data, components=8)


async def _flood(arena: Arena, subject: str, bodies: list[bytes]) -> None:
    for number in range(_FLOOD):
        await arena.connector.publish(subject, bodies[number % len(bodies)])
        if not number % 200:
            # Otherwise the broker cuts us off, and not the scheduler's reading is what is measured.
            await arena.connector.flush(30)
    arena.tally["sent"] += _FLOOD


@attack("stray-replies")
async def stray(arena: Arena) -> Course:
    """Replies to requests that never were."""
    bodies = [encode(component(n, service=f"healthy-{n}", _state="completed")) for n in range(100)]
    yield
    await _flood(arena, f"thing.create.{PROVIDER}.done", bodies)


@attack("guessed-replies")
async def guessed(arena: Arena) -> Course:
    """Replies on reply subjects like one that was given out, but for the last token."""
    given: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_request(message: Any) -> None:
        if not given.done():
            given.set_result(message.reply)

    await arena.connector.subscribe(f"thing.create.{PROVIDER}", cb=on_request)
    await arena.submit(build([component(number) for number in range(100)]), components=100)
    prefix, _, token = (await given).rpartition(".")
    bodies = [encode(component(number, service="x", _state="completed")) for number in range(100)]
    rng = random.Random(0)
    yield
    for number in range(_FLOOD):
        guess = rng.randbytes(len(token)).hex()[: len(token)]
        await arena.connector.publish(f"{prefix}.{guess}", bodies[number % 100])
        if not number % 200:
            await arena.connector.flush(30)
    arena.tally["sent"] += _FLOOD


@attack("malformed-replies")
async def malformed(arena: Arena) -> Course:
    """What is no reply, on the subjects of replies."""
    bodies = [b"", b"{", b"null", b"[" * 500, b"\xff\xfe", b'{"service":1}', b'{"_state":"x"}' * 30]
    yield
    await _flood(arena, f"thing.create.{PROVIDER}.done", bodies)


@attack("replies-that-come-again")
async def duplicates(arena: Arena) -> Course:
    """Every reply fifty times, on both ways."""
    subject = f"thing.create.{PROVIDER}"

    async def answer_often(message: Any) -> None:
        body = message.data.replace(b'"running"', b'"completed"')
        for _ in range(50):
            await arena.connector.publish(f"{subject}.done", body)
            await message.respond(body)

    await arena.connector.subscribe(subject, cb=answer_often, pending_bytes_limit=2**30)
    data = build([component(number) for number in range(2_000)])
    yield
    while arena.again():
        await arena.run(data, components=2_000)


@attack("large-stray-replies")
async def large_stray(arena: Arena) -> Course:
    """Replies to nothing, of 4 MB each."""
    body = encode(component(1, service="nobody", _state="completed", text="x" * 4_000_000))
    yield
    while arena.again():
        await arena.connector.publish(f"thing.create.{PROVIDER}.done", body)
        await arena.connector.flush(30)
        arena.tally["sent"] += 1


@attack("error-texts")
async def error_texts(arena: Arena) -> Course:
    """Errors of a megabyte each, from 200 components."""
    text = "it does not work \x1b[31m\N{SNOWMAN} password=hunter2 " * 20_000
    await arena.connect("thing", lambda asked: asked | {"_state": "errored", "error": text})
    data = build([component(number) for number in range(200)], options={"on_error": "continue"})
    yield
    while arena.again():
        await arena.run(data, components=200)


@attack("slow-and-late")
async def late(arena: Arena) -> Course:
    """Attempts time out, and their replies come all the same, all at once."""

    async def answer_late(message: Any) -> None:
        body = message.data.replace(b'"running"', b'"completed"')
        asyncio.get_running_loop().call_later(
            2.0, lambda: asyncio.ensure_future(arena.connector.publish(f"thing.create.{PROVIDER}.done", body))
        )

    await arena.connector.subscribe(f"thing.create.{PROVIDER}", cb=answer_late)
    changes = [component(n, _timeout=1.0, _retry={"attempts": 3, "backoff": 0.001}) for n in range(2_000)]
    data = build(changes, options={"on_error": "continue"})
    yield
    while arena.again():
        await arena.run(data, components=2_000)
