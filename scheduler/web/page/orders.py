"""Orders from the page: checked, logged with who gave them, and passed on to the control API."""

import secrets
import time
from typing import Final

import structlog
from starlette.types import Receive

from scheduler.control.verbs import Document
from scheduler.errors import Refused
from scheduler.web.page.access import Access
from scheduler.web.page.answers import OrderRequest
from scheduler.web.page.asking import Desk
from scheduler.web.page.requests import Request, read_body, read_json

_log = structlog.get_logger()

_LIFE: Final = 30.0
"""Seconds after which an order is not carried out any more, if it is on its way for so long."""
_MEMBERS: Final = {
    "pause": frozenset[str](),
    "resume": frozenset[str](),
    "cancel": frozenset({"now"}),
    "retry": frozenset({"component", "from", "now"}),
    "skip": frozenset({"component", "output"}),
    "approve": frozenset({"component"}),
    "reject": frozenset({"component"}),
}
"""Members of each order, beside its reason."""
_ANONYMOUS: Final = "page"
"""Name of one who has the token and told none."""


class Orders:
    """Gives orders for those who may.

    Args:
        desk: place where they are carried out.
        access: judges requests.
    """

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk = desk
        self._access = access

    async def give(self, request: Request, build: str, receive: Receive) -> Document:
        """Give an order, and return the answer, which comes when it is persisted.

        Args:
            request: the request.
            build: id of the build.
            receive: the body, `answers.OrderRequest` as JSON; read only from those who may give orders.

        Raises:
            Refused: they may not, or it cannot be done.
        """
        visitor = request.signed_in
        self._access.check_order(visitor, request.headers, request.client)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused("invalid", "content-type: application/json is required")
        order = read_json(await read_body(receive), OrderRequest)
        by = visitor.user or _ANONYMOUS
        told = {"user": by, "vouched": visitor.vouched, "client": request.client}
        _log.info(
            "an order came by the page", build=build, order=order.order, component=order.component, **told
        )
        user = visitor.user if visitor.vouched else ""
        command = _command(build, order, by)
        return await self._desk.ask(order.order, command, user, deadline=_LIFE)


def _command(build: str, order: OrderRequest, by: str) -> Document:
    """Return the request of the control API for an order.

    Raises:
        Refused: it has a member that it cannot have.
    """
    given = {
        "component": order.component,
        "from": order.start,
        "now": order.now or None,
        "output": order.output,
    }
    members = {name: value for name, value in given.items() if value is not None}
    if foreign := members.keys() - _MEMBERS[order.order]:
        raise Refused("invalid", f"{min(foreign)}: {order.order} has no such member")
    return {
        "id": build,
        "by": by,
        "order": order.key or secrets.token_hex(8),
        "expires": round(time.time() + _LIFE, 3),
        **({"reason": order.reason} if order.reason else {}),
        **members,
    }
