"""Who may use the server: with a key, whoever brings it; without, programs of this machine, but no web page.

A page that a browser shows can send requests to loopback, and by DNS rebinding (its own name suddenly means 127.0.0.1)
it could read the answers. Both need what a server without a key refuses: a `Host` that is not loopback's, or a content
type other than application/json, which a browser sends to strangers only after asking. Knows no route.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from starlette.requests import Request

from mcts_dpo.integrations.server.protocol import ApiError, shown
from mcts_dpo.integrations.server.settings import is_loopback

_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(?::[0-9]{1,5})?", re.ASCII)


class Access:
    """key: what requests must bring, or None."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def check(self, request: Request) -> None:
        """Raise ApiError unless the request may be answered: 401 without the key; 403, 415 where there is none."""
        if self._key is not None:
            if not secrets.compare_digest(_bearer(request).encode(), self._key.encode()):
                raise ApiError(401, "Incorrect API key provided", code="invalid_api_key")
            return
        self.check_host(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            given = shown(kind) or "none"
            raise ApiError(415, f"Content-Type: {given} (accepted: application/json)", param="Content-Type")

    def check_host(self, request: Request) -> None:
        """Raise ApiError 403 if there is no key and the request was sent to a name that is not this machine's own."""
        hosts = request.headers.getlist("host")
        if self._key is None and not (len(hosts) == 1 and is_loopback(_without_port(hosts[0]))):
            given = shown(", ".join(hosts)) or "none"
            raise ApiError(
                403,
                f"Host: {given} (accepted by a server without a key: 127.0.0.1, [::1], localhost)",
                param="Host",
            )


def client(request: Request) -> str:
    """Who asks: the key that the request brings (its digest), else the address that it comes from."""
    bearer = _bearer(request)
    if bearer:
        return hashlib.sha256(bearer.encode()).hexdigest()
    return request.client.host if request.client else ""


def _bearer(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _without_port(host: str) -> str:
    """The name or address of a Host header in small letters; "" for what is none."""
    found = _HOST.fullmatch(host.strip().lower())
    return (found["six"] or found["name"]) if found else ""
