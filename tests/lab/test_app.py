"""The server, without a browser: whom it answers, what it forbids, and callbacks called as a hostile page might."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

LOCAL = "http://127.0.0.1:8060"


@pytest.fixture(scope="module")
def client():
    from agileact.lab.app import build_app

    return build_app().server.test_client()


FOREIGN = ("evil.example", "127.0.0.1.evil.example:8060", "localhost@evil.example", "192.168.1.4:8060", "[", "")


@pytest.mark.parametrize("host", ["127.0.0.1:8060", "localhost:8060", "localhost"])
def test_this_machine_is_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/_dash-dependencies", "/assets/lab.js"])
def test_another_name_is_refused(client, host, path):
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1 and localhost alone" in answer.text
    assert "<" not in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null", "https://127.0.0.1:8060"])
def test_another_page_is_refused(client, origin):
    answer = client.post("/_dash-update-component", json={}, headers={"Host": "127.0.0.1:8060", "Origin": origin})
    assert answer.status_code == 403
    assert "another page" in answer.text


def test_the_page_may_load_nothing_from_elsewhere(client):
    answer = client.get("/", headers={"Host": "localhost:8060"})
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; script-src 'self' 'sha256-")
    assert "unsafe-eval" not in policy
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe-inline" not in scripts
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", answer.text)


def test_the_page_has_a_language_and_no_second_footer(client):
    text = client.get("/", base_url=LOCAL).text
    assert '<html lang="en">' in text
    # The page's own is drawn later, by its script.
    assert "<footer" not in text


def test_every_visitor_has_a_key_of_their_own(client):
    def key() -> Any:
        layout = client.get("/_dash-layout", base_url=LOCAL).json
        stores = [one for one in layout["props"]["children"] if one["props"].get("id") == "session"]
        return stores[0]["props"]["data"]

    assert key() != key()
    assert re.fullmatch("[0-9a-f]{32}", key())


def call(client, output, trigger, values, states=()):
    """Call a callback as the page does, with values that a page may not send."""
    dependencies = client.get("/_dash-dependencies", base_url=LOCAL).json
    (found,) = [one for one in dependencies if output in one["output"]]
    given = dict(values)

    def filled(parts: Any) -> list[Any]:
        rows = []
        for part in parts:
            name = f"{part['id']}.{part['property']}"
            rows.append([] if part["id"].startswith("{") else {**part, "value": given.get(name)})
        return rows

    body = {
        "output": found["output"],
        "outputs": [
            dict(zip(("id", "property"), name.rsplit(".", 1), strict=True))
            for name in found["output"].strip(".").split("...")
        ],
        "inputs": filled(found["inputs"]),
        "state": filled(found["state"]),
        "changedPropIds": [trigger] if isinstance(trigger, str) else list(trigger),
    }
    return client.post(
        "/_dash-update-component", data=json.dumps(body), content_type="application/json", base_url=LOCAL
    )


XOR = {
    "xor-base.value": "sigmoid",
    "xor-optimizer.value": "adam",
    "xor-lr.value": 0.05,
    "xor-activation-lr.value": 0.05,
    "xor-seed.value": 6,
    "xor-speed.value": 10,
    "session.data": "0" * 32,
}
STEP = {
    "step-base.value": "relu",
    "step-form.value": "agile",
    "step-network.value": "mlp",
    "step-optimizer.value": "adam",
    "step-lr.value": 0.01,
    "step-activation-lr.value": 0.01,
    "step-batch.value": 32,
    "step-seed.value": 0,
    "session.data": "0" * 32,
}


def sentence(answer, place):
    assert answer.status_code == 200, answer.text
    return answer.json["response"][place]["children"]


def test_sessions_do_not_disturb_each_other(client):
    one, two = ({**XOR, "session.data": letter * 32} for letter in "ab")
    for given in (one, two):
        assert sentence(call(client, "xor-losses", "xor-reset.n_clicks", given), "xor-sentence").startswith("Epoch 0.")
    for epoch in (10, 20):
        asked = {**one, "xor-go.data": {"epoch": epoch - 10, "at": 1}}
        assert f"Epoch {epoch}." in sentence(call(client, "xor-losses", "xor-go.data", asked), "xor-sentence")
    assert "Epoch 1." in sentence(call(client, "xor-losses", "xor-step.n_clicks", two), "xor-sentence")


def test_another_drawing_neither_moves_nor_resets_a_run(client):
    given = {**XOR, "session.data": "d" * 32, "xor-drawn.value": "as maps"}
    call(client, "xor-losses", "xor-reset.n_clicks", given)
    assert "Epoch 1." in sentence(call(client, "xor-losses", "xor-step.n_clicks", given), "xor-sentence")
    turned = {**given, "xor-drawn.value": "in 3D, drag to turn"}
    answer = call(client, "xor-losses", "xor-drawn.value", turned)
    assert "Epoch 1." in sentence(answer, "xor-sentence")
    assert answer.json["response"]["xor-agile"]["figure"]["data"][0]["type"] == "surface"
    both = call(client, "xor-losses", ("xor-drawn.value", "xor-step.n_clicks"), turned)
    assert "Epoch 2." in sentence(both, "xor-sentence")


def test_a_session_that_was_put_away_is_said(client):
    state = {"epoch": 500, "ended": False}
    given = {**XOR, "session.data": "e" * 32, "xor-state.data": state, "xor-go.data": state}
    answer = call(client, "xor-losses", "xor-go.data", given)
    assert "this one starts again" in json.dumps(answer.json["response"]["xor-message"])
    assert answer.json["response"]["xor-state"]["data"] == {"epoch": 0, "ended": True}


def test_of_what_comes_in_one_call_a_reset_counts(client):
    go = {**XOR, "session.data": "9" * 32, "xor-go.data": {"epoch": 0, "at": 1}}
    call(client, "xor-losses", "xor-reset.n_clicks", go)
    both = ("xor-go.data", "xor-step.n_clicks")
    assert "Epoch 11." in sentence(call(client, "xor-losses", both, go), "xor-sentence")
    for other in ("xor-reset.n_clicks", "xor-seed.value"):
        for both in (("xor-go.data", other), (other, "xor-go.data")):
            assert "Epoch 0." in sentence(call(client, "xor-losses", both, go), "xor-sentence")
    call(client, "step-last", "step-ten.n_clicks", STEP)
    answer = call(client, "step-last", ("step-ten.n_clicks", "step-reset.n_clicks"), STEP)
    assert "No step yet" in sentence(answer, "step-sentence")


def test_a_picture_asked_for_before_a_reset_takes_no_step_after_it(client):
    given = {**XOR, "session.data": "8" * 32}
    call(client, "xor-losses", "xor-reset.n_clicks", given)
    late = {**given, "xor-go.data": {"epoch": 40, "at": 1}}
    answer = call(client, "xor-losses", "xor-go.data", late)
    assert "Epoch 0." in sentence(answer, "xor-sentence")
    assert answer.json["response"]["xor-state"]["data"] == {"epoch": 0, "ended": False}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xor-base.value": "__import__('os')"}, "f must be one of"),
        ({"xor-lr.value": "0.1"}, "the learning rate of the weights must be a number"),
        ({"xor-seed.value": 1e300}, "the seed must be a whole number"),
        ({"session.data": "../../etc"}, "load it again"),
        ({"session.data": None}, "load it again"),
    ],
)
def test_what_a_page_may_not_send_is_a_sentence(client, change, words):
    answer = call(client, "xor-losses", "xor-step.n_clicks", {**XOR, **change})
    assert words in json.dumps(answer.json["response"]["xor-message"])


def test_a_step_advances_by_one_and_shows_three_losses(client):
    call(client, "step-last", "step-reset.n_clicks", STEP)
    answer = call(client, "step-last", "step-one.n_clicks", STEP)
    assert sentence(answer, "step-sentence").startswith("Step 1: loss ")
    data = answer.json["response"]["step-last"]["figure"]["data"]
    levels = [one["text"][1] for one in data if one["type"] == "scatter"]
    assert len(levels) == 3
    assert "Step 11:" in sentence(call(client, "step-last", "step-ten.n_clicks", STEP), "step-sentence")


ACTIVATION = {
    "activation-base.value": "relu",
    "activation-terms.value": 1,
    "activation-at.value": 2.0,
    "activation-circuit.value": "linear",
    "activation-g.value": 1.0,
    **{f"activation-{letter}{term}.value": 1.0 for letter in "ab" for term in range(3)},
}


def test_the_curve_follows_a_and_b(client):
    def curve(**change: Any) -> Any:
        given = {**ACTIVATION, **{f"activation-{name}.value": value for name, value in change.items()}}
        answer = call(client, "activation-values", "activation-base.value", given)
        assert answer.status_code == 200
        return answer.json["response"]["activation-values"]["figure"]["data"][1]["y"][-1]

    assert curve() == 5.0
    assert curve(a0=-2.0) == -10.0
    assert curve(b0=-1.0) == 7.0
    assert curve(terms=2, a1=1.0, b1=4.0) == 7.0
    assert curve(g=0.5) == 2.5
    assert curve(terms=2, a1=1.0, b1=4.0, g=0.5) == 7.0  # a sum has no gain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation-a0.value": None}, "a must be a number from -3 to 3"),
        ({"activation-b0.value": 1e9}, "b must be a number from -4 to 4"),
        ({"activation-terms.value": 10**9}, "K must be a whole number from 1 to 3"),
        ({"activation-circuit.value": "x"}, "the network must be one of"),
        ({"activation-at.value": "2"}, "x must be a number"),
        ({"activation-g.value": 5}, "g must be a number from -4 to 4"),
    ],
)
def test_wrong_values_on_the_first_tab_are_sentences(client, change, words):
    answer = call(client, "activation-values", "activation-base.value", {**ACTIVATION, **change})
    assert words in json.dumps(answer.json["response"]["activation-message"])


def test_opening_nothing_or_a_wrong_path_is_a_sentence(client, tmp_path):
    for path, words in (("", "type the path"), (None, "type the path"), (str(tmp_path / "x.pt"), "there is no file")):
        given = {"network-path.value": path, "session.data": "0" * 32}
        answer = call(client, "network-opened.data", "network-open.n_clicks", given)
        assert words in json.dumps(answer.json["response"]["network-message"])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": "m.pt", "size": 2**30}, "m.pt has 1,024 MiB, and the page sends up to 64 MiB; open it by its path"),
        ({"name": ["m.pt"], "size": "large"}, "the file is too large: the page sends up to 64 MiB"),
        ({"name": "m.pt", "size": 3}, "m.pt is too large"),
        ("m.pt", "the file is too large"),
        (None, "the file is too large"),
    ],
)
def test_a_file_that_was_too_large_to_be_sent_is_a_sentence(client, told, words):
    given = {"network-too-large.data": told, "session.data": "0" * 32}
    answer = call(client, "network-opened.data", "network-too-large.data", given)
    assert words in json.dumps(answer.json["response"]["network-message"])


LIVE = {
    "live-base.value": "sigmoid",
    "live-optimizer.value": "adam",
    "live-seed.value": 0,
    "live-lr.value": -2,
    "session.data": "7" * 32,
}


def test_live_networks_advance_by_the_clock_and_start_anew_by_a_reset(client):
    assert "No step yet" in sentence(call(client, "live-losses", "live-reset.n_clicks", LIVE), "live-sentence")
    for step in (10, 20):
        given = {**LIVE, "live-go.data": {"epoch": step - 10, "at": 1}}
        answer = call(client, "live-losses", "live-go.data", given)
        assert sentence(answer, "live-sentence").startswith(f"Step {step}.")
        assert answer.json["response"]["live-state"]["data"] == {"epoch": step, "ended": False}
    late = {**LIVE, "live-go.data": {"epoch": 0, "at": 1}}
    assert "Step 20." in sentence(call(client, "live-losses", "live-go.data", late), "live-sentence")
    other = {**LIVE, "live-seed.value": 1}
    assert "No step yet" in sentence(call(client, "live-losses", "live-seed.value", other), "live-sentence")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"live-lr.value": 3}, "the power of ten must be a number from -4 to 0"),
        ({"live-base.value": "x"}, "f must be one of"),
        ({"live-optimizer.value": "lion"}, "the optimizer must be one of"),
        ({"live-seed.value": None}, "the seed must be a whole number"),
    ],
)
def test_what_the_live_tab_may_not_send_is_a_sentence(client, change, words):
    answer = call(client, "live-losses", "live-step.n_clicks", {**LIVE, **change})
    assert words in json.dumps(answer.json["response"]["live-message"])


def test_two_networks_are_shown_side_by_side_until_one_is_let_go(client, tmp_path):
    import agileact as ag

    for name, layers in (("one.pt", (3, 4)), ("two.pt", (3,))):
        model = torch.nn.Sequential(*(ag.AgileReLU(width) for width in layers))
        torch.save(model.state_dict(), tmp_path / name)
    page: dict[str, Any] = {
        "network-base.value": "relu",
        "network-terms.value": 1,
        "network-page.value": 1,
        "network-part.value": "",
        "session.data": "5" * 32,
    }

    def open_one(name: str) -> Any:
        given = {**page, "network-path.value": str(tmp_path / name)}
        answer = call(client, "network-opened.data", "network-open.n_clicks", given)
        return answer.json["response"]["network-opened"]["data"]

    def drawn(trigger: str, count: int) -> tuple[str, str, str]:
        answer = call(client, "network-cards", trigger, {**page, "network-opened.data": count}).json["response"]
        told = answer["network-sentence"]["children"]
        return json.dumps(answer["network-cards"]), told, answer["network-keep"]["children"]

    cards, told, button = drawn("network-opened.data", open_one("two.pt"))
    assert (cards.count('"card"'), cards.count('"pair"'), button) == (1, 0, "Keep beside the next")
    cards, told, button = drawn("network-keep.n_clicks", 1)
    assert (cards.count('"card"'), cards.count('"pair"'), button) == (2, 1, "Show one alone")
    cards, told, _ = drawn("network-opened.data", open_one("one.pt"))
    assert (cards.count('"card"'), cards.count('"pair"')) == (4, 2)
    assert told.endswith("On the left: two.pt.")
    assert cards.count("It has no layer of this name.") == 1
    assert cards.index("two.pt") < cards.index("one.pt")
    cards, told, button = drawn("network-keep.n_clicks", 1)
    assert (cards.count('"card"'), cards.count('"pair"'), button) == (2, 0, "Keep beside the next")
    assert "On the left" not in told
