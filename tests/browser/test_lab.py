"""The lab in a browser: every tab draws, answers to hand and keyboard, and asks for nothing off the machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.browser.lab_charts import OVERLAPS, drawn, last_value, says

pytestmark = pytest.mark.slow


CHARTS = {
    "activation": ("activation-values", "activation-slopes", "activation-fold"),
    "xor": ("xor-losses", "xor-plain", "xor-agile"),
    "step": ("step-last", "step-shares", "step-losses"),
    "live": ("live-losses", "live-signals", "live-numbers"),
    "network": ("network-curves-0", "network-numbers-0"),
}
NAMES = {"activation": "Activation", "xor": "XOR", "step": "One step", "live": "Depth", "network": "Network"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 5), ag.AgileTanh(5))
    with torch.no_grad():
        for module in (model[1], model[3]):
            count = module.get_parameter("scale").numel()
            module.get_parameter("scale").copy_(torch.linspace(-0.5, 2, count))
            module.get_parameter("location").copy_(torch.linspace(-1, 1, count))
    path = tmp_path_factory.mktemp("network") / "가중치 model.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("dash", reason="the package dash is missing")
    from werkzeug import serving

    from agileact.lab.app import build_app

    server = serving.make_server("127.0.0.1", 0, build_app().server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(timeout=30)
    server.server_close()


@pytest.fixture
def opened(visit: Callable[..., Visit], address: str) -> Callable[..., Visit]:
    def open_tab(name: str, **options: Any) -> Visit:
        found = visit(f"{address}#{name}", **options)
        found.page.wait_for_selector(f"#panel-{name}:not([hidden])")
        if name in ("step", "live"):
            says(found.page, f"{name}-sentence", "No step yet")
        elif name != "network":
            drawn(found.page, CHARTS[name][0])
        return found

    return open_tab


def run_xor(page: Any) -> str:
    page.click("#xor-toggle")
    return says(page, "xor-sentence", "Plain: solved .*Agile: solved")


def test_every_tab_draws_at_both_widths_and_in_both_themes(opened, checkpoint, tmp_path):
    for width, screen, scheme in ((1280, DESKTOP, "light"), (390, PHONE, "dark")):
        found = opened("activation", viewport=screen, color_scheme=scheme)
        page = found.page
        for tab, name in NAMES.items():
            page.get_by_role("tab", name=name, exact=True).click()
            page.wait_for_selector(f"#panel-{tab}:not([hidden])")
            if tab == "step":
                page.click("#step-ten")
                says(page, "step-sentence", "Step 10:")
            if tab == "live":
                page.click("#live-step")
                says(page, "live-sentence", r"Step [1-9]")
            if tab == "network":
                page.fill("#network-path", str(checkpoint))
                page.click("#network-open")
            for chart in CHARTS[tab]:
                assert drawn(page, chart) > 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            unnamed = page.evaluate(
                f"[...document.querySelectorAll('#panel-{tab} [role=slider], #panel-{tab} input[type=number], "
                f"#panel-{tab} button[aria-haspopup]')].filter(one => one.offsetParent)"
                ".filter(one => !/label-/.test(one.getAttribute('aria-labelledby'))).map(one => one.outerHTML)"
            )
            assert not unnamed
            shot = tmp_path / f"{tab}-{width}.png"
            page.screenshot(path=str(shot), full_page=True)
            assert shot.stat().st_size > 20_000
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 23, 28)") == (scheme == "dark")
        found.check()


def test_dragging_and_typing_a_and_b_change_the_curve(opened):
    found = opened("activation")
    page = found.page
    assert last_value(page) == pytest.approx(1.5 * 5)
    thumb = page.get_by_role("slider", name="a: size")
    thumb.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#activation-values .js-plotly-plot').data[1].y.at(-1) > 7.6")
    assert last_value(page) == pytest.approx(1.55 * 5)
    place = thumb.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] - 150, place["y"] + place["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('#activation-values .js-plotly-plot').data[1].y.at(-1) < 0")
    field = page.get_by_role("spinbutton", name="b: position")
    field.fill("-2")
    field.press("Enter")
    says(page, "activation-verdict", "Folded: nothing is left")
    page.wait_for_selector("#activation-b0-slider [aria-valuenow='-2']")
    a = float(thumb.get_attribute("aria-valuenow"))
    page.wait_for_function(
        "y => Math.abs(document.querySelector('#activation-values .js-plotly-plot').data[1].y.at(-1) - y) < 1e-9",
        arg=a * 8,
    )
    found.check()


@pytest.mark.parametrize(
    ("label", "key", "typed", "words"),
    [
        ("a: size", "a0", "7.5", "a must be a number from -3 to 3"),
        ("a: size", "a0", "1e300", "a must be a number from -3 to 3"),
        ("b: position", "b0", "1e9", "b must be a number from -4 to 4"),
        ("x: where to read", "at", "1e5", "x must be a number from -6 to 6"),
    ],
)
def test_a_number_out_of_range_is_refused_in_sight(opened, label, key, typed, words):
    found = opened("activation")
    page = found.page
    field = page.get_by_role("spinbutton", name=label)
    thumb = page.get_by_role("slider", name=label)
    field.fill("1")
    field.press("Tab")
    page.wait_for_selector(f"#activation-{key}-slider [aria-valuenow='1']")
    field.fill(typed)
    field.press("Tab")
    says(page, "activation-message", words)
    # What is shown is what was refused; the slider stays at what is drawn.
    assert field.input_value() == typed
    assert thumb.get_attribute("aria-valuenow") == "1"
    thumb.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('activation-message').innerText === ''")
    assert field.input_value() == thumb.get_attribute("aria-valuenow") == ("0.9" if key == "at" else "0.95")
    found.check()


def test_the_fold_says_what_it_must_leave(opened):
    found = opened("activation")
    page = found.page
    field = page.get_by_role("spinbutton", name="a: size")
    field.fill("-1.5")
    field.press("Enter")
    page.click("#activation-circuit")
    page.get_by_role("option", name=re.compile("max pooling")).click()
    sentence = says(page, "activation-verdict", "Partly folded: a must stay")
    assert "max pooling" in sentence
    assert "changed" in page.inner_text("#activation-numbers")
    page.click("#activation-base")
    page.get_by_role("option", name="leaky_relu", exact=True).click()
    page.get_by_label("leaky_relu: negative_slope").first.wait_for()
    found.check()


def test_xor_is_solved_and_pause_stops(opened):
    found = opened("xor")
    page = found.page
    assert "Epoch 0." in says(page, "xor-sentence", "Epoch")
    page.click("#xor-step")
    says(page, "xor-sentence", r"Epoch 1\.")
    page.click("#xor-toggle")
    says(page, "xor-toggle", "Pause")
    says(page, "xor-sentence", r"Epoch \d+1\.")
    page.click("#xor-toggle")
    says(page, "xor-toggle", "Start")
    # A picture may be on its way; from then on none follows.
    page.wait_for_timeout(1000)
    paused = page.inner_text("#xor-sentence")
    page.wait_for_timeout(500)
    assert page.inner_text("#xor-sentence") == paused
    assert run_xor(page).count("solved after") == 2
    assert "plain: solved" in page.inner_text("#xor-losses")
    # The run goes on for a while to show that it stays so: a reset is heard in the middle of it.
    page.click("#xor-reset")
    says(page, "xor-sentence", r"Epoch 0\.")
    says(page, "xor-toggle", "Start")
    found.check()


def test_surfaces_are_drawn_in_three_dimensions_and_the_run_stays(opened):
    found = opened("xor")
    page = found.page
    page.click("#xor-step")
    says(page, "xor-sentence", r"Epoch 1\.")
    page.click("#xor-drawn")
    page.get_by_role("option", name="in 3D").click()
    page.wait_for_selector("#xor-agile .gl-container canvas", state="attached")
    assert "Epoch 1." in page.inner_text("#xor-sentence")
    found.check()


def test_networks_learn_live_and_the_learning_rate_moves_while_they_do(opened):
    found = opened("live")
    page = found.page
    says(page, "live-sentence", "No step yet")
    page.click("#live-toggle")
    says(page, "live-toggle", "Pause")
    says(page, "live-sentence", r"Step [1-9]\d+")
    thumb = page.get_by_role("slider", name="Power of ten of the learning rate")
    thumb.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('live-lr').value === '-1.9'")
    # It goes on from where it was.
    says(page, "live-sentence", r"Step [1-9]\d+")
    says(page, "live-toggle", "Pause")
    page.click("#live-reset")
    says(page, "live-sentence", "No step yet")
    says(page, "live-toggle", "Start")
    assert page.inner_text("#xor-toggle") in ("Start", "")
    found.check()


def test_a_step_of_a_number_is_one_that_a_person_would_take(opened):
    found = opened("xor")
    page = found.page
    field = page.locator("#xor-lr")
    for press, value in (("increment", "0.1"), ("increment", "0.2"), ("decrement", "0.1"), ("decrement", "0.05")):
        page.click(f"#xor-lr ~ .dash-stepper-{press}")
        page.wait_for_function("v => document.getElementById('xor-lr').value === v", arg=value)
    for typed, key, value in (("0.0731", "ArrowDown", "0.05"), ("10", "ArrowUp", "10"), ("0", "ArrowUp", "0.001")):
        field.fill(typed)
        field.press(key)
        page.wait_for_function("v => document.getElementById('xor-lr').value === v", arg=value)
    page.click("#xor-seed ~ .dash-stepper-increment")
    page.wait_for_function("() => document.getElementById('xor-seed').value === '7'")
    page.get_by_role("tab", name="Activation").click()
    # A key that comes before the page's first answer is overwritten by it.
    page.wait_for_selector("#activation-a0-slider [aria-valuenow]")
    page.wait_for_load_state("networkidle")
    page.locator("#activation-a0").press("ArrowUp")
    page.wait_for_selector("#activation-a0-slider [aria-valuenow='1.55']")
    found.check()


class Held:
    """What the page asks of the server, kept back between two calls."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.waiting: list[Any] | None = None
        page.route("**/_dash-update-component*", self.take)

    def take(self, route: Any) -> None:
        if self.waiting is None:
            route.continue_()
        else:
            self.waiting.append(route)

    def hold(self) -> None:
        self.waiting = []

    def wait(self) -> None:
        while not self.waiting:
            self.page.wait_for_timeout(20)

    def let_go(self) -> None:
        for route in self.waiting or ():
            route.continue_()
        self.waiting = None


def test_xor_hears_what_is_clicked_while_a_picture_is_on_its_way(opened):
    found = opened("xor")
    page = found.page
    # So slow that it does not end by itself.
    page.fill("#xor-lr", "0.00001")
    page.press("#xor-lr", "Enter")
    held = Held(page)
    for clicks, label, sentence in (
        (("toggle", "toggle"), "Pause", r"Epoch [1-9][\d,]*0\."),
        (("reset",), "Start", r"Epoch 0\."),
        (("toggle", "reset", "toggle"), "Pause", r"Epoch [1-9][\d,]*0\."),
        (("toggle", "reset"), "Start", r"Epoch 0\."),
    ):
        held.hold()
        if page.inner_text("#xor-toggle") == "Start":
            page.click("#xor-toggle")
        held.wait()
        for click in clicks:
            page.click(f"#xor-{click}")
        held.let_go()
        says(page, "xor-sentence", sentence)
        says(page, "xor-toggle", label)
    found.check()


def test_two_pages_do_not_disturb_each_other(opened):
    first, second = opened("step").page, opened("step").page
    first.click("#step-ten")
    says(first, "step-sentence", "Step 10:")
    second.click("#step-one")
    says(second, "step-sentence", "Step 1:")
    first.click("#step-one")
    says(first, "step-sentence", "Step 11:")


def test_a_step_advances_by_one_and_shows_three_losses(opened):
    found = opened("step")
    page = found.page
    for step in (1, 2):
        page.click("#step-one")
        sentence = says(page, "step-sentence", f"Step {step}:")
    told = re.findall(r"\d\.\d+ (?:before|when)", sentence)
    assert len(told) == 3
    levels = page.evaluate("[...document.querySelectorAll('#step-last .textpoint')].map(one => one.textContent)")
    assert [float(level) for level in levels if level] == [float(one.split()[0]) for one in told]
    assert page.evaluate("document.querySelector('#step-shares .js-plotly-plot').data[0].x") == [1, 2]
    found.check()


def test_a_checkpoint_shows_its_layers_by_path_and_by_upload(opened, checkpoint):
    found = opened("network")
    page = found.page
    page.fill("#network-path", str(checkpoint))
    page.press("#network-path", "Enter")
    says(page, "network-sentence", "2 layers, 13 pairs")
    assert page.locator("#network-cards h2").all_inner_texts() == ["1", "3"]
    assert "flipped (a < 0): number 1, 2" in page.inner_text("#network-cards")
    for chart in ("network-curves-0", "network-numbers-0", "network-curves-1", "network-numbers-1"):
        assert drawn(page, chart) > 0
    page.fill("#network-path", str(checkpoint.parent / "<img src=x onerror=alert(1)>.pt"))
    page.click("#network-open")
    assert "<img" in says(page, "network-message", "there is no file")
    page.reload()
    page.wait_for_selector("#panel-network:not([hidden])")
    page.set_input_files("#network-upload input[type=file]", str(checkpoint))
    says(page, "network-sentence", "2 layers, 13 pairs")
    found.check()


def test_a_file_that_is_too_large_is_named_with_its_size(opened, checkpoint, tmp_path):
    large = tmp_path / "large <b>.pt"
    with large.open("wb") as stream:
        stream.truncate(100 * 2**20)
    found = opened("network")
    page = found.page
    said = r"large <b>\.pt has 100 MiB, and the page sends up to 64 MiB; open it by its path instead"
    page.set_input_files("#network-upload input[type=file]", str(large))
    says(page, "network-message", said)
    page.set_input_files("#network-upload input[type=file]", str(checkpoint))
    says(page, "network-message", "Open: ")
    # The same file again, and by dropping it.
    page.set_input_files("#network-upload input[type=file]", str(large))
    says(page, "network-message", said)
    says(page, "network-sentence", "2 layers, 13 pairs")
    page.evaluate("""() => {
        const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(64 * 2**20 + 1)], "dropped.pt"));
        document.querySelector("#network-upload").firstElementChild.dispatchEvent(
            new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: moved}));
    }""")
    says(page, "network-message", r"dropped\.pt has 64\.1 MiB")
    found.check()


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_labels_of_histograms_stand_apart(opened, tmp_path, screen):
    torch.manual_seed(0)
    model = nn.Sequential(*[ag.AgileReLU(units) for units in (4096, 8, 2048)])
    with torch.no_grad():
        for module, spread in ((model[0], 0.02), (model[1], 1.0)):
            for name in ("scale", "location"):
                parameter = module.get_parameter(name)
                parameter.add_(spread * torch.randn(parameter.shape))
    # All units of the third layer are in one bin.
    torch.save(model.state_dict(), tmp_path / "wide.pt")
    found = opened("network", viewport=screen)
    page = found.page
    page.fill("#network-path", str(tmp_path / "wide.pt"))
    page.click("#network-open")
    for layer in range(3):
        assert drawn(page, f"network-numbers-{layer}") > 0
    assert page.locator("#network-numbers-0 .y2tick text").count() > 2
    page.wait_for_function(f"() => ({OVERLAPS})().length === 0")
    found.check()


def test_tabs_answer_to_the_keyboard_and_the_address_keeps_them(opened):
    found = opened("activation")
    page = found.page
    page.focus("#tab-activation")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#panel-xor:not([hidden])")
    assert page.get_attribute("#tab-xor", "aria-selected") == "true"
    assert page.url.endswith("#xor")
    page.reload()
    page.wait_for_selector("#panel-xor:not([hidden])")
    found.check()
