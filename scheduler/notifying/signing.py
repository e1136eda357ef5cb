"""Signature of a notification, in the form of Standard Webhooks: HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_headers(identity: str, body: bytes, at: float, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the headers by which a receiver knows who sent a notification, and when.

    Args:
        identity: id of the notification.
        body: its body.
        at: time of this try, seconds since 1970: a receiver refuses old ones.
        keys: keys to sign with, each for a signature of its own.
    """
    moment = str(int(at))
    content = b"%b.%b.%b" % (identity.encode(), moment.encode(), body)
    signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": identity,
        "webhook-timestamp": moment,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
