"""The report of a study that still runs, in a real browser: it follows the study, and a reader stays in place."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from agileact.study.report.watch import Server
from agileact.study.results.source import stored
from agileact.study.running.planner import plan
from agileact.study.running.store import Store
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import write_record
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.reports import marks, see_all
from tests.study.report.builders import made_up, small_study

pytestmark = pytest.mark.slow


@contextmanager
def serving(folder):
    """Serve the study of a folder, whether it has begun or not."""
    server = Server(stored(folder), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def live_study():
    return Study("live", small_study().arms[:2], small_study().tasks[1:], Protocol(tune=False, seeds=tuple(range(6))))


@pytest.fixture
def watched(tmp_path):
    """A server of a study that has its tuning and two seeds."""
    study = live_study()
    specs = plan(study, lambda spec: None).final
    with Store(tmp_path / "store.sqlite") as store:
        write_record(tmp_path, study)
        for spec in specs:
            if spec.seed < 2:
                store.put(made_up(spec))
        with serving(tmp_path) as server:
            yield server, store, specs


def test_the_page_follows_the_study_and_keeps_what_the_reader_chose(watched, visit):
    server, store, specs = watched
    seen = visit(server.url)
    tab = seen.page
    see_all(tab)
    assert "4 of at most 12 trials" in tab.locator("#verdict").inner_text()
    tab.locator("#curves .chip[data-arm='1']").first.click()
    tab.locator("#outcome thead button").nth(1).press("Enter")
    tab.locator("#times").scroll_into_view_if_needed()
    tab.evaluate("scrollTo(0, document.getElementById('times').offsetTop)")
    top = tab.evaluate("document.getElementById('times').getBoundingClientRect().top")
    for spec in specs:
        if spec.seed >= 2:
            store.put(made_up(spec))
    tab.wait_for_function("() => document.getElementById('status').textContent === 'The study is finished.'")
    assert "Not finished" not in tab.locator("#verdict").inner_text()
    assert tab.evaluate("document.getElementById('times').getBoundingClientRect().top") == pytest.approx(top, abs=3)
    assert tab.locator("#curves .chip[data-arm='1']").first.get_attribute("aria-pressed") == "false"
    assert tab.locator("#outcome thead th").nth(1).get_attribute("aria-sort") == "ascending"
    assert tab.evaluate("document.activeElement.dataset.key") == "outcome/1"
    assert tab.locator("#outcome tbody tr").first.locator("td").last.inner_text() == "6"
    see_all(tab)
    assert all(marks(tab).values())
    seen.check()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_reader_at_the_top_stays_there_when_the_first_trials_arrive(tmp_path, visit, viewport):
    study = live_study()
    specs = plan(study, lambda spec: None).final
    with serving(tmp_path) as server:
        seen = visit(server.url, viewport=viewport)
        tab = seen.page
        assert "Waiting for the study to begin" in tab.locator("#verdict").inner_text()
        tab.evaluate("window.went = []; addEventListener('scroll', () => window.went.push(scrollY))")
        with Store(tmp_path / "store.sqlite") as store:
            write_record(tmp_path, study)
            tab.locator("progress").wait_for()
            for spec in specs[:4]:
                store.put(made_up(spec))
            tab.locator("progress[value='4']").wait_for()
            for spec in specs[4:]:
                store.put(made_up(spec))
        tab.wait_for_function("() => document.getElementById('status').textContent === 'The study is finished.'")
        # Charts in sight are drawn a moment later, and must not push the page either.
        tab.wait_for_function("() => new Promise((done) => setTimeout(() => done(true), 500))")
        assert tab.evaluate("[scrollY, ...window.went]") == [0]
        assert tab.locator("h1").bounding_box()["y"] >= 0
        seen.check()
