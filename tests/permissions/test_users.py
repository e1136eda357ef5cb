"""What is read out of the shipped permissions."""

from scheduler.permissions import User, shipped, users

SMALL = """
listen: "0.0.0.0:4222"
accounts {
  ONE {
    users: [
      {
        user: a  # a comment, with "quotes"
        permissions {
          publish { allow: ["x.*", "y"
            # Words: "no.subject" stands among them.
            # "z.>", "z"
          ] }
          subscribe { allow: [ "_INBOX.a.>" ] }
          allow_responses: { max: 1, expires: "1m" }
        }
      }
      { user: b, permissions { subscribe { allow: ["w"] } } }
    ]
    exports: [ { service: "no", accounts: [TWO] } ]
  }
}
"""


def test_the_subjects_of_each_user_are_told_apart() -> None:
    """Each list goes to its user and side, and a comment that is nothing but subjects is optional."""
    assert users(SMALL) == (
        User("a", ("x.*", "y"), ("_INBOX.a.>",), ("z.>", "z")),
        User("b", (), ("w",)),
    )


def test_the_shipped_file_has_five_users() -> None:
    """Every user has subjects on both sides, and the service what its stores need."""
    found = {user.name: user for user in users()}
    assert list(found) == ["scheduler", "connector", "uploader", "submitter", "operator"]
    assert all(user.publish and user.subscribe for user in found.values())
    assert "build.find" in found["scheduler"].optional
    assert found["operator"].subjects[0] == "build.create"


def test_a_file_without_users_has_none() -> None:
    """Then nobody is listed, rather than one without a name."""
    assert users("listen: 4222") == ()
    assert users(shipped()) == users()
