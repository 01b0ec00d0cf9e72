"""Who may use the server: with a key, every client that sends it; without one, only programs on this machine.

A web page in a browser can send requests to loopback, and by DNS rebinding (its host name starts to resolve to
127.0.0.1) it can read the answers. Both need something that a server without a key refuses: a `Host` that is not
loopback's, or a content type other than application/json, which a browser sends to other sites only after asking.
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
    """Checks requests. key: what they must send, or None."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def check(self, request: Request) -> None:
        """Raise ApiError for a request that may not be answered: 401 for a wrong key; without a key 403 or 415."""
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
        """Raise ApiError 403 if the server has no key and the request's host is not a loopback name."""
        hosts = request.headers.getlist("host")
        if self._key is None and not (len(hosts) == 1 and is_loopback(_without_port(hosts[0]))):
            given = shown(", ".join(hosts)) or "none"
            raise ApiError(
                403,
                f"Host: {given} (accepted by a server without a key: 127.0.0.1, [::1], localhost)",
                param="Host",
            )


def client(request: Request) -> str:
    """The client's identity: the digest of its key, or its address."""
    bearer = _bearer(request)
    if bearer:
        return hashlib.sha256(bearer.encode()).hexdigest()
    return request.client.host if request.client else ""


def _bearer(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _without_port(host: str) -> str:
    """The name or address in a Host header, in lower case; "" if it has none."""
    found = _HOST.fullmatch(host.strip().lower())
    return (found["six"] or found["name"]) if found else ""
