"""What a submitted build must look like, and what of it is kept."""

from typing import Any

import pytest
from support.builds import Document, build, change, prepare, problems_of

from scheduler.definition.codec import parse_build, read_id
from scheduler.definition.converter import to_document
from scheduler.definition.limits import Limits
from scheduler.definition.model import BUILD_ACTIONS, Action, Edge, State
from scheduler.definition.strictjson import decode, encode
from scheduler.definition.tokens import encode_token
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild

BIG = int("1234567890" * 4)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "this is empty"),
        (b"not json", "line 1, column [0-9]: invalid character"),
        (b"[]", "expected an object|expected object, got list"),
        (b"null", "got null"),
        (b'"build"', "got str"),
        (b'\xef\xbb\xbf{"id": "a"}', "a byte order mark of UTF-8"),
        (b'{"id": "a", "x": NaN}', "line 1, column 18: invalid character 'N'"),
        (b'{"id": "a", "x": -Infinity}', "line 1, column 19: invalid character 'I'"),
        (b'{"id": "\xff', "truncated|UTF-8"),
        (b'{"id": "a"} trailing', "trailing"),
        (b'{"id": "a", "x": ' + b"[" * 100_000, "max_depth 64|truncated"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, says: str) -> None:
    """Bytes that are no JSON object are refused as one problem of the build as a whole."""
    with pytest.raises(InvalidBuild, match=says) as caught:
        parse_build(data)
    assert [problem.place for problem in caught.value.problems] == [""]
    assert read_id(data) is None


@pytest.mark.parametrize(
    ("id_", "says"),
    [
        (None, "missing"),
        ("", "missing"),
        (7, "it is a number"),
        (True, "it is true"),
        ([], "missing"),
        ([1], "it is a list"),
        ({}, "missing"),
        ({"a": 1}, "it is an object"),
        ("a b", "does not match"),
        ("a*", "does not match"),
        ("a>", "does not match"),
        ("$a", "does not match"),
        ("a\n", "does not match"),
        ("a\r\nPUB x 0", "does not match"),
        ("a\0", "does not match"),
        ("é", "does not match"),
        ("a" * 129, "129 characters"),
        ("a" * 5_000, "5000 characters"),
    ],
)
def test_build_ids_that_cannot_be(id_: object, says: str) -> None:
    """A build needs an id of 1 to 128 harmless characters, whatever stands there instead."""
    found = problems_of(build(id=id_))
    assert len(found) == 1
    assert found[0].startswith("id: ")
    assert says in found[0]
    assert len(found[0]) < 400
    assert read_id(encode(build(id=id_))) is None


@pytest.mark.parametrize("id_", ["a", "A-z_0", "a.b", ".a", "a..b", "a:b@c/d", "_", "a" * 128])
def test_build_ids_that_can_be(id_: str) -> None:
    """Dots, colons and their like are fine in the id of a build."""
    assert prepare(build(id=id_)).build.id == id_
    assert read_id(encode(build(id=id_))) == id_


def test_an_id_is_read_whatever_else_is_wrong() -> None:
    """The id of a build is read even where nothing else can be."""
    assert read_id(b'{"id": "a", "changes": 1e400}') == "a"
    assert read_id(b'{"changes": []}') is None


NO_ACTIONS: list[Any] = [
    None, "", 5, True, [], {}, {"a": [1]}, 1.5, "build", "build.", ".create", "build..create",
    "build.create.", "build.cre ate", "create", "build.*", "build.>", "$SRV.PING", "_INBOX.x",
    "build.create\r\n", "build.\0",
    "build.create\n", "BUILD.CREATE", "build." + "x" * 65, "vpc.create.aws", "scheduler.reply.x",
    "build.set.mapping", "build.find", "build.create.done", "environment.import", "service.set",
    "build.destroy",
]  # fmt: skip
"""What stands under ``action`` of a build, and is no subject that builds come in on."""


@pytest.mark.parametrize("subject", BUILD_ACTIONS)
@pytest.mark.parametrize("own", [*NO_ACTIONS, *BUILD_ACTIONS])
def test_a_build_is_what_it_came_in_on(own: object, subject: str) -> None:
    """Its action is the subject, whatever it says itself, and stands so in what is kept and reported."""
    read = read_build(encode(build(action=own)), action=subject).build
    assert read.action == subject
    assert read.fields["action"] == subject
    assert list(read.fields) == ["id", "name", "user_id", "username", "action", "options"]


@pytest.mark.parametrize("name", ["components", "changes", "edges"])
@pytest.mark.parametrize("given", ["absent", None, []])
def test_a_list_without_elements_stays_as_it_was(name: str, given: Any) -> None:
    """Where there was none, or null, no empty one is added; all three are the same content."""
    document = {**build(), name: given}
    if given == "absent":
        del document[name]
    read = prepare(document)
    assert to_document(read.build) == document
    assert read.digest == prepare(build()).digest


def test_a_build_without_an_action_is_what_it_came_in_on() -> None:
    """It then stands behind its other fields."""
    document = build()
    del document["action"]
    read = read_build(encode(document), action="service.patch").build
    assert list(read.fields.items())[-1] == ("action", "service.patch")


@pytest.mark.parametrize("own", NO_ACTIONS)
def test_without_a_subject_a_build_is_a_creation_if_it_says_nothing_else(own: object) -> None:
    """Files, and builds that are stored, say what they are, where what they say is a subject."""
    assert prepare(build(action=own)).build.action == "build.create"
    assert prepare(build(action=own)).build.fields["action"] == "build.create"


@pytest.mark.parametrize("own", BUILD_ACTIONS)
def test_without_a_subject_a_build_is_what_it_says(own: str) -> None:
    """Each of the ten is taken at its word."""
    assert prepare(build(action=own)).build.action == own


def test_the_same_bytes_on_another_subject_are_another_build() -> None:
    """The digest depends on the build's action, not on the action that the build claims."""
    data = encode(build(change("a"), action=""))
    digests = {read_build(data, action=subject).digest for subject in BUILD_ACTIONS}
    assert len(digests) == len(BUILD_ACTIONS)
    said = read_build(encode(build(change("a"), action="build.create")))
    assert read_build(data, action="build.create").digest == said.digest


@pytest.mark.parametrize("name", ["components", "changes", "edges"])
@pytest.mark.parametrize("value", [None, "absent"])
def test_lists_may_be_absent_or_null(name: str, value: object) -> None:
    """A list that is absent or null is empty."""
    document = build()
    if value is None:
        document[name] = None
    else:
        del document[name]
    assert getattr(prepare(document).build, name) == ()


@pytest.mark.parametrize("name", ["components", "changes", "edges"])
@pytest.mark.parametrize("value", [{}, "x", 1, True, 0.5])
def test_lists_of_another_type_are_refused(name: str, value: object) -> None:
    """Something else than a list in a list's place is a problem of its own."""
    found = problems_of(build(**{name: value}))
    assert len(found) == 1
    assert found[0].startswith(f"{name}: expected list, got")


@pytest.mark.parametrize("name", ["components", "changes", "edges"])
@pytest.mark.parametrize(
    ("value", "called"),
    [(None, "null"), (1, "a number"), ("x", "a string"), ([], "a list"), (False, "false")],
)
def test_elements_of_another_type_are_refused(name: str, value: object, called: str) -> None:
    """Null and its like among the elements is named with its position."""
    found = problems_of(build(**{name: [value]}))
    assert found == [f"{name}[0]: expected an object, got {called}"]


@pytest.mark.parametrize("field", ["_component_id", "_component", "_action", "_provider"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "required, and it is null, not a string"),
        ("", "required, and it is empty"),
        (5, "required, and it is a number, not a string"),
        ([], "required, and it is a list, not a string"),
        ({}, "required, and it is an object, not a string"),
        (True, "required, and it is true, not a string"),
    ],
)
def test_required_fields_of_a_change(field: str, value: object, says: str) -> None:
    """A required field that is missing or mistyped is named with its place."""
    missing = change("b")
    del missing[field]
    found = problems_of(build(change("x"), {**change("a"), field: value}, missing))
    assert found == [f"changes[1].{field}: {says}", f"changes[2].{field}: required, and it is missing"]


@pytest.mark.parametrize("field", ["source", "destination"])
def test_required_fields_of_an_edge(field: str) -> None:
    """Both ends of an edge are required."""
    edge: Document = {"source": "a", "destination": "a2", "length": 1}
    missing = {key: value for key, value in edge.items() if key != field}
    found = problems_of(build(change("a"), change("a2"), edges=[{**edge, field: 5}, missing]))
    assert found == [
        f"edges[0].{field}: required, and it is a number, not a string",
        f"edges[1].{field}: required, and it is missing",
    ]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("_action", "destroy", "'destroy' is none of create, update, delete, get, find, none"),
        ("_action", "CREATE", "'CREATE' is none of"),
        ("_action", "x" * 5_000, "is none of"),
        ("_state", "pending", "'pending' is none of waiting, running, completed, errored"),
        ("_state", 5, "a number is none of"),
        ("_state", [], "a list is none of"),
        ("_state", False, "false is none of"),
        ("_timeout", 0, "seconds, above 0 and at most 31622400; it is 0"),
        ("_timeout", -1, "it is -1"),
        ("_timeout", True, "it is true"),
        ("_timeout", "5", "it is '5': write 5"),
        ("_timeout", "10m", "it is '10m': write 600"),
        ("_timeout", "soon", "it is 'soon'"),
        ("_timeout", 31_622_401, "it is 31622401"),
        ("_timeout", 10**299, "it is a number"),
        ("_heartbeat", 0, "seconds, above 0 and at most 86400; it is 0"),
        ("_heartbeat", True, "it is true"),
        ("_heartbeat", "30s", "it is '30s': write 30"),
        ("_heartbeat", 86_401, "it is 86401"),
        ("_component_id", "start", "'start' is reserved"),
        ("_component_id", "end", "'end' is reserved"),
    ],
)
def test_values_that_cannot_be(field: str, value: object, says: str) -> None:
    """A value that a field cannot have is named, with those it can."""
    found = problems_of(build(change("a", **{field: value})))
    assert len(found) == 1
    assert found[0].startswith(f"changes[0].{field}: ")
    assert says in found[0]
    assert len(found[0]) < 300


def test_an_edge_has_an_integer_length() -> None:
    """The length of an edge is an integer, if it has one."""
    edge = {"source": "start", "destination": "a"}
    prepare(build(change("a"), edges=[edge, {**edge, "length": None}]))
    found = problems_of(build(change("a"), edges=[{**edge, "length": "1"}, {**edge, "length": 1.5}]))
    assert found == [
        "edges[0].length: an integer; it is a string",
        "edges[1].length: an integer; it is a number",
    ]


@pytest.mark.parametrize(
    ("value", "state"),
    [
        ("waiting", State.WAITING),
        ("", State.WAITING),
        (None, State.WAITING),
        ("running", State.RUNNING),
        ("errored", State.ERRORED),
        ("completed", State.COMPLETED),
    ],
)
def test_states_are_read(value: object, state: State) -> None:
    """An empty, null or absent state is waiting."""
    document = build({**change("a"), "_state": value})
    assert parse_build(encode(document)).build.changes[0].state is state
    if value is None:
        del document["changes"][0]["_state"]
        assert parse_build(encode(document)).build.changes[0].state is state


def test_a_change_is_typed() -> None:
    """What the scheduler looks at is read into the model."""
    one = prepare(
        build(change("vpc::a", "delete", _provider="aws", _timeout=1.5, _heartbeat=30))
    ).build.changes[0]
    assert (one.id, one.type, one.action, one.provider) == ("vpc::a", "vpc", Action.DELETE, "aws")
    assert one.timeout == pytest.approx(1.5)
    assert one.heartbeat == 30


def test_what_exists_needs_an_id_only() -> None:
    """Of an element of components only its id is asked for."""
    assert prepare(build(components=[{"_component_id": "a"}])).build.components[0].fields == {
        "_component_id": "a"
    }
    found = problems_of(build(components=[{"name": "x"}, {"_component_id": 5}, {"_component_id": "end"}]))
    assert [problem.partition(":")[0] for problem in found] == [
        f"components[{position}]._component_id" for position in range(3)
    ]


@pytest.mark.parametrize("name", ["components", "changes"])
def test_duplicate_ids_are_refused(name: str) -> None:
    """Each further element with the same id is named, also where it is wrong otherwise."""
    wrong = {**change("a"), "_component_id": "a", "_provider": 5}
    found = problems_of(build(**{name: [change("a"), change("b"), change("a"), wrong]}))
    places = [f"{name}[{position}]._component_id: 'a' is the id of {name}[0] already" for position in (2, 3)]
    assert set(places) < set(found) if name == "changes" else places == found


def test_components_and_changes_may_share_ids() -> None:
    """An id is unique within its list, no further."""
    prepare(build(change("a", "update"), components=[change("a")]))


@pytest.mark.parametrize("name", ["components", "changes"])
def test_the_length_of_ids_is_bounded(name: str) -> None:
    """An id of 512 bytes is taken; one more byte is refused, whatever the characters."""
    for fits in ("x" * 512, "é" * 256):
        prepare(build(**{name: [change("a", _component_id=fits)]}))
    for size, over in ((513, "x" * 513), (514, "é" * 257), (5_000, "x" * 5_000)):
        assert problems_of(build(**{name: [change("a", _component_id=over)]})) == [
            f"{name}[0]._component_id: {size} bytes; max_id_bytes is 512"
        ]


def test_the_size_of_a_component_is_bounded() -> None:
    """A component of 256 KiB is taken; one byte more is refused with the limit's name and value."""
    for name in ("changes", "components"):
        one = change("a", data="")
        one["data"] = "x" * (256 * 1024 - len(encode(one)))
        prepare(build(**{name: [one]}))
        one["data"] += "x"
        assert problems_of(build(**{name: [one]})) == [
            f"{name}[0]: 262145 bytes; max_component_bytes is 262144"
        ]


@pytest.mark.parametrize(("name", "limit"), [("changes", "max_changes"), ("components", "max_components")])
def test_the_number_of_components_is_bounded(name: str, limit: str) -> None:
    """As many elements as the limit are taken; one more is refused with the limit's name and value."""
    limits = Limits(max_changes=3, max_components=3)
    three = [change(f"a{number}") for number in range(3)]
    prepare(build(**{name: three}), limits=limits)
    with pytest.raises(InvalidBuild, match=rf"^{name}: 4 of them; {limit} is 3$") as caught:
        prepare(build(**{name: [*three, change("b")]}), limits=limits)
    assert caught.value.code == "limit"


def test_the_number_of_edges_is_bounded() -> None:
    """As many edges as the limit are taken; one more is refused with the limit's name and value."""
    limits = Limits(max_edges=3)
    edges = [("start", "a")] * 3
    prepare(build(change("a"), edges=edges), limits=limits)
    with pytest.raises(InvalidBuild, match=r"^edges: 4 of them; max_edges is 3$"):
        prepare(build(change("a"), edges=[*edges, ("a", "end")]), limits=limits)


def test_the_default_limits_are_those_of_the_wire() -> None:
    """The limits are what the specification says."""
    limits = Limits()
    assert (limits.max_changes, limits.max_edges, limits.max_depth) == (10_000, 100_000, 64)
    assert (limits.max_digits, limits.max_component_bytes, limits.max_id_bytes) == (300, 262_144, 512)
    assert (limits.max_template_nodes, limits.max_error_bytes) == (50_000, 65_536)


def test_nesting_is_bounded_wherever_it_stands() -> None:
    """64 levels, counted from the build, are taken in any field; 65 are refused with the place."""
    prepare(build(options=nested(63)))
    assert problems_of(build(options=nested(64))) == ["options: nested deeper than max_depth 64"]
    for name in ("changes", "components"):
        prepare(build(**{name: [change("a", deep=nested(61))]}))
        assert problems_of(build(**{name: [change("a", deep=nested(62))]})) == [
            f"{name}[0]: nested deeper than max_depth 64"
        ]
    edge = {"source": "start", "destination": "end"}
    prepare(build(edges=[{**edge, "x": nested(61)}]))
    assert problems_of(build(edges=[{**edge, "x": nested(62)}])) == [
        "edges[0]: nested deeper than max_depth 64"
    ]


def test_the_length_of_integers_is_bounded_wherever_they_stand() -> None:
    """Integers of 300 digits are taken in any field; 301 are refused with the place."""
    fits, over = int("9" * 300), int("9" * 301)
    prepare(build(change("a", n=fits), components=[change("b", n=-fits)], user_id=fits))
    found = problems_of(build(change("a", n=over), components=[change("b", n=-over)], user_id=over))
    text = "an integer of more digits than max_digits 300"
    assert found == [f"user_id: {text}", f"components[0]: {text}", f"changes[0]: {text}"]


@pytest.mark.parametrize("number", [b"9" * 1_000, b"9" * 5_000, b"1e400", b"-1e400"])
def test_numbers_that_cannot_be_are_refused_with_their_place(number: bytes) -> None:
    """A number beyond all bounds is named with the component it stands in."""
    data = encode(build(change("a"), change("b", n=0))).replace(b'"n":0', b'"n":' + number)
    found = problems_of(data)
    assert len(found) == 1
    assert found[0].startswith("changes[1]: a")


def test_text_that_is_not_utf8_is_refused_with_its_place() -> None:
    """A byte outside UTF-8 is named with the component it stands in."""
    data = encode(build(change("a"), change("b", name="XX"))).replace(b"XX", b"\xff\xfe")
    assert problems_of(data) == ["changes[1]: line 1, column 328: byte 0xff, which is not UTF-8"]


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("Service", "service"), ("SERVICE", "service"), ("_State", "_state"),
        ("_component_ID", "_component_id"), ("_Component", "_component"),
        ("_aCtion", "_action"), ("_PROVIDER", "_provider"),
        ("\u017fervice", "service"), ("_\u017ftate", "_state"),
    ],
)  # fmt: skip
def test_a_key_that_is_ours_but_for_its_case_is_refused(key: str, ours: str) -> None:
    """Connectors in Go match names without regard to case, and would read one for the other."""
    document = build(change("a", **{key: "x"}), components=[change("b", **{key: None, "x": {key: 1}})])
    document["components"][0][key] = None
    assert problems_of(document) == [
        f"components[0].{key}: is '{ours}' but for its case, which connectors do not tell apart",
        f"changes[0].{key}: is '{ours}' but for its case, which connectors do not tell apart",
    ]
    # Below the top level it is nobody's, and what was accepted once is gone on with.
    prepare(build(change("a", x={key: 1}, services=1, state=2, _states=3)))
    assert prepare(document, resumed=True).build.changes[0].fields[key] == "x"


def test_every_problem_is_told_at_once() -> None:
    """All mistakes are reported in one answer, each with its place."""
    document = build(
        change("a", _provider=5, _action="nope"),
        change("b", _timeout=-1, _state="odd"),
        change("c"),
        change("c"),
        change("d", x="{{ components['gone'].x }}"),
        change("e", x="{{ 1 +"),
        id="not an id",
        components=[None, {"_component_id": ""}],
        edges=[("c", "d"), ("d", "c"), ("c", "nobody"), ("d", "d")],
    )
    found = problems_of(document)
    for place in (
        "id: ",
        "components[0]: ",
        "components[1]._component_id: ",
        "changes[0]._provider: ",
        "changes[0]._action: ",
        "changes[1]._timeout: ",
        "changes[1]._state: ",
        "changes[3]._component_id: ",
        "d.x: ",
        "e.x: ",
        "edges[2].destination: ",
        "edges[3]: ",
        "edges: cycle: ",
    ):
        assert sum(problem.startswith(place) for problem in found) == 1, (place, found)
    assert len(found) == 13


def test_nothing_is_lost_between_bytes_and_bytes() -> None:
    """Unknown fields, their order, long integers and any script are kept, of builds and of components."""
    odd: Document = {"zeta": 1, "alpha": {"z": [None, BIG, -BIG, 0.1, "ü \u2603 \U0001f600"], "a": True}}
    document = build(change("a", **odd), components=[change("b", **odd)], **odd)
    document["edges"] = [{"source": "a", "destination": "end", "length": 1, "kept": BIG}]
    prepared = prepare(document)
    written = to_document(prepared.build)
    assert written == document
    for name in ("components", "changes"):
        assert encode(written[name]) == encode(document[name])
    fields = {key: value for key, value in document.items() if key not in {"components", "changes", "edges"}}
    assert encode(prepared.build.fields) == encode(fields)
    assert encode(prepared.build.changes[0].fields) == encode(document["changes"][0])


def test_the_model_becomes_a_document_again() -> None:
    """A build read into the model and written back is what was submitted."""
    document = build(change("a", x=BIG), components=[change("b")], edges=[("a", "end")])
    assert to_document(parse_build(encode(document)).build) == document
    assert to_document(Edge("a", "b")) == {"source": "a", "destination": "b"}


def test_white_space_is_no_content() -> None:
    """How the JSON is laid out makes no difference to what is read."""
    document = build(change("a", x="  y  "))
    spaced = encode(document).replace(b",", b" ,\n\t").replace(b":", b" : ")
    assert decode(spaced) == document
    assert to_document(parse_build(spaced).build) == document
    assert parse_build(spaced).digest == parse_build(encode(document)).digest


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("abc-_09", "abc-_09"),
        ("a.b", "a=2Eb"),
        ("=", "=3D"),
        ("a b*>", "a=20b=2A=3E"),
        ("é", "=C3=A9"),
        ("", ""),
    ],
)
def test_text_becomes_one_token(text: str, token: str) -> None:
    """Every byte outside the safe ones is written as its number."""
    assert encode_token(text) == token


def test_how_often_a_component_has_failed_is_no_field_of_it() -> None:
    """It is read apart from the fields, so that no connector sees it; what is no count is none."""
    for value, attempts in ((3, 3), (0, 0), (-1, 0), (True, 0), ("3", 0), (1_000_000, 0)):
        (one,) = parse_build(encode(build(change("a", _attempts=value)))).build.changes
        assert one.attempts == attempts
        assert one.fields == change("a")
