"""Who may use a server: with a key, clients that send it; without one, programs on this machine, and no web page."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.integrations.server.settings import ServerSettings
from tests.conftest import ToyWorld
from tests.integrations.server.raw_requests import CHAT, chat, is_served, post
from tests.integrations.serving import Served, stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")
BODY = json.dumps(chat("a", budget=20)).encode()


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


def status(served: Served, path: str, **headers: str) -> int:
    request = urllib.request.Request(served.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


STRANGERS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "[::]",
             "192.168.0.1:80", "evil@127.0.0.1", "127.0.0.1:evil", "", "[::1", "localhost,evil.example"]  # fmt: skip


@pytest.mark.parametrize("host", STRANGERS)
def test_without_a_key_a_name_that_is_not_this_machine_s_is_refused(server: Served, host: str) -> None:
    code, said = post(server, CHAT, BODY, Host=host)
    assert (code, said["error"]["param"]) == (403, "Host")
    assert "accepted by a server without a key: 127.0.0.1, [::1], localhost" in said["error"]["message"]
    for path in ("/health", "/metrics", "/v1/models", "/v1/models/toy"):
        assert status(server, path, Host=host) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:9", "[::1]:8000", "[::1]"]
)
def test_without_a_key_this_machine_s_names_are_served(server: Served, host: str) -> None:
    assert post(server, CHAT, BODY, Host=host)[0] == 200
    assert status(server, "/health", Host=host) == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", ""],
)
def test_without_a_key_what_a_page_may_send_to_strangers_is_refused(server: Served, kind: str) -> None:
    code, said = post(server, CHAT, BODY, Content_Type=kind)
    assert (code, said["error"]["param"]) == (415, "Content-Type")
    assert "accepted: application/json" in said["error"]["message"]
    for fine in ("application/json", "Application/JSON; charset=utf-8"):
        assert post(server, CHAT, BODY, Content_Type=fine)[0] == 200
    # The request that a browser sends before JSON to another site gets no permission.
    request = urllib.request.Request(server.url + CHAT, method="OPTIONS", headers={"Origin": "https://evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=600)
    assert not [name for name in caught.value.headers if name.lower().startswith("access-control")]


def test_with_a_key_the_key_decides(engine: Engine) -> None:
    with thread(engine, ServerSettings(strategy="greedy", key="sesame\n"), stage()) as served:
        assert post(served, CHAT, BODY)[0] == 401
        given = {"Authorization": "Bearer sesame"}
        assert post(served, CHAT, BODY, **given)[0] == 200
        assert post(served, CHAT, BODY, Host="gpu.example", Content_Type="text/plain", **given)[0] == 200
        assert post(served, CHAT, BODY, Authorization="Bearer s\xe9same")[0] == 401
        assert status(served, "/health", Host="gpu.example") == 200


@pytest.mark.parametrize("key", ["sésame", "a\nb", " a", "a ", "\n", "a\n\n", "a\x00", "密"])
def test_a_key_that_no_header_can_hold_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(InputError, match="key: not usable in a header") as caught:
        load_settings(ServerSettings, {"strategy": "greedy", "key": key})
    assert repr(key) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "kept"), [("k\n", "k"), ("k\r\n", "k"), ("k", "k"), ("a b", "a b")])
def test_one_line_end_after_a_key_is_dropped(given: str, kept: str) -> None:
    assert load_settings(ServerSettings, {"strategy": "greedy", "key": given}).key == kept


def test_the_server_answers_as_before(server: Served) -> None:
    assert is_served(server)
