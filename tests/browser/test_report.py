"""The report in a real browser: drawn, switched, sorted, printed, on a screen and on a phone, and live."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import subprocess

import pytest

from agileact.study.commands.yaml_file import read_study
from agileact.study.report.document import report_document, write_report
from agileact.study.report.page import page
from agileact.study.results.outcome import Outcome
from agileact.study.results.source import stored
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.executors import Finished, Started
from agileact.study.running.store import Store
from agileact.study.spec.arms import Arm
from agileact.study.spec.record import write_record
from agileact.study.spec.result import Curve
from agileact.study.spec.tasks import Task
from agileact.study.training.run import run_trial
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.reports import marks, see_all
from tests.study.report.builders import EVIL, big_study, evil_study, made_up, outcome_of, small_study

pytestmark = pytest.mark.slow


REAL = """
name: 진짜 study
arms: [relu, agile-relu, combined-relu:terms=2]
tasks: [{name: digits, task: digits-mlp, budget: {iterations: 30, evaluate_every: 5}}]
protocol: {seeds: 4, trials: 3, lr: [0.003, 0.03], tuning_seeds: 1}
"""
SECTIONS = 12
AXIS_TITLES = """() => [...document.querySelectorAll('.plot')].filter((one) => one.offsetParent).flatMap((one) => {
    const frame = one.querySelector('.main-svg').getBoundingClientRect();
    return [...one.querySelectorAll('.xtitle, .ytitle')].map((title) => {
        const box = title.getBoundingClientRect();
        const inside = box.left >= frame.left && box.right <= frame.right
            && box.top >= frame.top && box.bottom <= frame.bottom;
        return {chart: one.dataset.chart, text: title.textContent, inside};
    });
})"""


class Here:
    """Runs trials in this process."""

    def __init__(self, data):
        self.data = data

    def run(self, specs):
        for spec in specs:
            yield Started(spec)
            yield Finished(spec, run_trial(spec, self.data))


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The report of a real, small study."""
    out = tmp_path_factory.mktemp("real")
    (out / "study.yaml").write_text(REAL, encoding="utf-8")
    study, data = identified(read_study(out / "study.yaml"))
    with Store(out / "store.sqlite") as store:
        conduct(study, store, Here(data["digits"]))
    write_record(out, study, command="agileact study run study.yaml")
    write_report(stored(out).read(), out / "report.html")
    return out / "report.html"


@pytest.fixture(scope="session")
def big(tmp_path_factory):
    """The report of 25 arms on three tasks."""
    path = tmp_path_factory.mktemp("big") / "report.html"
    path.write_text(page(report_document(outcome_of(big_study()))), encoding="utf-8")
    return path


def lines(tab, chart):
    return marks(tab)[chart]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_is_drawn_and_nothing_is_asked_for(real, visit, viewport, theme, tmp_path):
    seen = visit(real.as_uri(), viewport=viewport, color_scheme=theme)
    tab = seen.page
    see_all(tab)
    drawn = marks(tab)
    assert len(drawn) == 10
    assert all(drawn.values()), drawn
    assert tab.locator("section").count() == SECTIONS
    assert tab.locator("h1").inner_text() == "진짜 study"
    # No sideways scrolling of the page; wide tables scroll inside.
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if viewport == PHONE:
        sideways = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
        assert tab.evaluate(f"{sideways}.map((one) => one.ariaLabel)") == []
        # Of three parallel coordinates the last one, at the edge, has its name too.
        tab.evaluate(
            """() => {
                const chart = [...charts.values()].find((one) => one.block.form === "parallel");
                chart.block.axes.splice(1, 0, {...chart.block.axes[0], title: "activation lr"});
                for (const one of chart.block.series) one.values.splice(1, 0, one.values[0]);
                draw(chart);
            }"""
        )
        names = tab.locator("[data-chart^=parallel] .xtick text:visible").all_text_contents()
        assert names == ["lr", "activation lr", "validation loss"]
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if theme == "light" else "rgb(20, 23, 28)")
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    assert seen.requests[0] == real.as_uri()
    assert [url for url in seen.requests[1:] if not url.startswith("data:")] == []
    seen.check()


def test_arms_are_switched_everywhere_at_once(real, visit):
    seen = visit(real.as_uri())
    tab = seen.page
    see_all(tab)
    before = lines(tab, "curves-digits-validation")
    chip = tab.locator("#curves button[data-arm='1']").first
    assert chip.get_attribute("aria-pressed") == "true"
    chip.press("Enter")
    assert chip.get_attribute("aria-pressed") == "false"
    assert {one.get_attribute("aria-pressed") for one in tab.locator("[data-arm='1']").all()} == {"false"}
    assert tab.evaluate("document.activeElement.dataset.arm") == "1"
    see_all(tab)
    assert lines(tab, "curves-digits-validation") < before
    chip.click()
    see_all(tab)
    assert lines(tab, "curves-digits-validation") == before
    tab.locator("#arms summary").click()
    tab.get_by_role("button", name="none", exact=True).click()
    see_all(tab)
    assert lines(tab, "curves-digits-validation") == 0
    assert "No arm is chosen." in tab.locator("[data-chart='curves-digits-validation']").text_content()
    seen.check()


def test_tables_are_sorted_by_any_column_and_say_so(real, visit):
    tab = visit(real.as_uri()).page
    head = tab.locator("#outcome thead th").filter(has_text="test loss")
    column = tab.locator("#outcome thead th").all_inner_texts().index(head.inner_text())

    def values():
        cells = tab.locator("#outcome tbody tr").all()
        return [float(row.locator("th, td").nth(column).inner_text().split()[0]) for row in cells]

    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    assert tab.locator("#outcome thead th[aria-sort=descending]").count() == 1
    tab.locator("#outcome thead th").first.get_by_role("button").click()
    assert tab.locator("#outcome tbody th").all_inner_texts() == ["agile-relu", "combined-relu:terms=2", "relu"]


def test_choices_themes_and_axes_are_buttons_that_tell_their_state(real, visit):
    seen = visit(real.as_uri(), color_scheme="dark")
    tab = seen.page
    train = tab.locator("#curves").get_by_role("button", name="train", exact=True)
    train.click()
    assert train.get_attribute("aria-pressed") == "true"
    see_all(tab)
    drawn = marks(tab)
    assert drawn["curves-digits-train"]
    assert "curves-digits-validation" not in drawn
    scale = tab.locator("#curves figure:visible").get_by_role("button", name="logarithmic", exact=True)
    scale.click()
    assert scale.get_attribute("aria-pressed") == "false"
    theme = tab.locator("#theme")
    assert theme.inner_text() == "Theme: automatic"
    theme.click()
    assert theme.inner_text() == "Theme: light"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    see_all(tab)
    ink = tab.locator("#curves .plot:visible .xtick text").first.evaluate("(one) => one.style.fill")
    assert ink == "rgb(27, 31, 36)"
    seen.check()


def test_those_who_do_not_see_the_charts_are_told_what_they_show(real, visit):
    tab = visit(real.as_uri()).page
    for plot in tab.locator(".plot").all():
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label").endswith(".")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    numbers = tab.locator("#curves details:visible").first
    numbers.locator("summary").press("Enter")
    # What is folded away is made when it is opened, a moment after the key.
    numbers.locator("tbody tr").first.wait_for()
    assert numbers.locator("tbody tr").count() == 3
    # Every control has a name, and every table cell that names its row is a header.
    controls = "[...document.querySelectorAll('button, select')]"
    assert tab.evaluate(f"{controls}.every((one) => (one.textContent || one.ariaLabel).trim())")
    assert tab.locator("#outcome tbody th[scope=row]").count() == 3


def test_it_prints_with_every_chart_in_light_colours(real, visit):
    seen = visit(real.as_uri(), color_scheme="dark")
    tab = seen.page
    tab.emulate_media(media="print")
    tab.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    drawn = marks(tab)
    assert drawn
    assert all(drawn.values()), drawn
    widths = tab.evaluate("[...document.querySelectorAll('.main-svg')].map((one) => one.getBoundingClientRect().width)")
    assert max(widths) <= 680
    assert not tab.locator("#bar").is_visible()
    assert tab.locator("details:not([open]):visible").count() == 0
    for way, kept in (
        ("breakAfter", "h2, .chooser, caption, figcaption, section > p:not(:last-child, .note)"),
        ("breakInside", "figure, .claim, thead, tr, section > p"),
    ):
        found = tab.evaluate(f"[...document.querySelectorAll('{kept}')].map((one) => getComputedStyle(one).{way})")
        assert set(found) == {"avoid"}, kept
    assert tab.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.emulate_media(media="screen")
    tab.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    seen.check()


def test_no_axis_title_is_cut_on_a_phone(tmp_path, visit):
    arms = tuple(Arm(f"{one.name}, an arm whose name says all that was chosen", one.spec) for one in small_study().arms)
    path = tmp_path / "long.html"
    path.write_text(page(report_document(outcome_of(small_study(arms=arms)))), encoding="utf-8")
    seen = visit(path.as_uri(), viewport=PHONE)
    tab = seen.page
    # What is not chosen at first is drawn, too: of each choice one after the other.
    for turn in range(3):
        see_all(tab)
        titles = tab.evaluate(AXIS_TITLES)
        assert len(titles) > 20
        assert [title for title in titles if not title["inside"]] == []
        for chooser in tab.locator(".chooser[role=group]:visible").all():
            options = chooser.get_by_role("button")
            if options.count() > turn + 1:
                options.nth(turn + 1).click()
    seen.check()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_on_paper_nothing_is_parted_from_what_it_introduces(big, visit, viewport, tmp_path):
    extract = shutil.which("pdftotext")
    if extract is None:
        pytest.skip("pdftotext (Debian: poppler-utils) is not installed")
    tab = visit(big.as_uri(), viewport=viewport).page
    tab.pdf(format="A4", path=tmp_path / "report.pdf")
    made = subprocess.run(
        [extract, "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    )
    pages = [[line.strip() for line in one.splitlines() if line.strip()] for one in made.stdout.split("\f")]
    pages = [one for one in pages if one]
    titles = {one.inner_text() for one in tab.locator("h2").all()}
    assert titles <= {line for one in pages for line in one}
    introductions = re.compile(r"-mlp: (loss on|over|arm|test loss minus|mean lowest|runs that|milliseconds)|^Seed 0")
    for one in pages:
        assert one[-1] not in titles, one
        assert not introductions.search(one[-1]), one
    # The head of the long table is repeated on each of its pages.
    first = next(place for place, one in enumerate(pages) if "Table" in one)
    last = next(place for place, one in enumerate(pages) if any(line.startswith("Over all tasks:") for line in one))
    assert last - first >= 2
    assert all("parameters" in " ".join(one) and "seeds" in " ".join(one) for one in pages[first:last])


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_of_many_arms_and_tasks_few_are_drawn_and_all_can_be(big, visit, viewport):
    seen = visit(big.as_uri(), viewport=viewport)
    tab = seen.page
    task = tab.locator("#task")
    task.select_option(label="diabetes-mlp")
    see_all(tab)
    names = list(marks(tab))
    assert names
    assert all("diabetes-mlp" in name for name in names)
    assert tab.locator("#curves .chip[data-arm]:visible").count() == 6
    tab.locator("#curves").get_by_role("button", name="Choose arms (19 more)").locator("visible=true").click()
    assert tab.locator("#arms").get_attribute("open") is not None
    tab.get_by_role("button", name="all", exact=True).click()
    assert tab.locator("#curves .chip[data-arm]:visible").count() == 25
    see_all(tab)
    assert lines(tab, "curves-diabetes-mlp-validation") >= 25
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    seen.check()


def test_names_are_text_and_nothing_else(tmp_path, visit):
    path = tmp_path / "evil.html"
    path.write_text(page(report_document(outcome_of(evil_study()))), encoding="utf-8")
    seen = visit(path.as_uri())
    tab = seen.page
    see_all(tab)
    for name in EVIL:
        assert tab.get_by_text(name, exact=True).count(), name
    assert tab.evaluate("window.hit") is None
    assert tab.locator("img, iframe, object, a[href^='javascript'], a[href^='http']").count() == 0
    # In charts, which read some tags, too.
    ticks = tab.locator("#cost .ytick text").all_text_contents()
    assert "<img src=x onerror=window.hit=2>" in ticks
    assert tab.locator("svg a, svg b, svg [style*='font-weight: bold']").count() == 0
    assert tab.title() == f"{EVIL[0]} – agileact study"
    seen.check()


def test_names_that_are_long_or_run_the_other_way_keep_the_page_in_shape(tmp_path, visit):
    turned, long = "مرحبا \u202eback", "x" * 300
    arms = tuple(Arm(name, one.spec) for name, one in zip(("relu", turned, long), small_study().arms, strict=True))
    tasks = (Task(long, small_study().tasks[0].spec), Task(f"{turned} task", small_study().tasks[1].spec))
    path = tmp_path / "long.html"
    study = small_study(name=long, arms=arms, tasks=tasks)
    path.write_text(page(report_document(outcome_of(study))), encoding="utf-8")
    seen = visit(path.as_uri(), viewport=PHONE)
    tab = seen.page
    see_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # In a sentence the name is kept to itself, or it would rearrange the numbers beside it; alone it is as it was.
    for summary in tab.locator("#verdict .claim summary").all():
        summary.click()
    told = " ".join(tab.locator("#verdict .more").all_text_contents())
    assert f"\u2068{turned}\u2069 8 of 8 runs" in told
    assert turned in tab.locator("#outcome tbody th").all_text_contents()
    # The row's name stays in sight while the table is scrolled sideways.
    box = tab.locator("#outcome tbody th").first
    tab.locator(".scroll:has(#outcome)").evaluate("(one) => { one.scrollLeft = 400; }")
    assert 0 <= box.bounding_box()["x"] < 60
    seen.check()


def test_axes_hold_what_is_drawn_and_show_numbers_where_there_are_any(tmp_path, visit):
    def close(spec):
        made = made_up(spec)
        curve = [0.8 + 0.002 * value for value in made.curve.validation_loss]
        gone = spec.arm.activation("fc") == "gelu"
        lost = Curve([0], [2.0], [math.inf])
        whole = dataclasses.replace(made.curve, train_loss=curve, validation_loss=curve)
        return dataclasses.replace(made, status="diverged" if gone else "finished", curve=lost if gone else whole)

    path = tmp_path / "close.html"
    study = small_study(tasks=small_study().tasks[:1])
    path.write_text(page(report_document(outcome_of(study, close))), encoding="utf-8")
    seen = visit(path.as_uri())
    tab = seen.page
    see_all(tab)
    for name in ("curves-digits-mlp-validation", "tuning-digits-mlp"):
        assert tab.locator(f"[data-chart='{name}'] .ytick text").count() >= 2, name
    ends = tab.evaluate(
        """() => { const plot = document.querySelector("[data-chart='differences-digits-mlp']");
            const [low, high] = plot._fullLayout.xaxis.range;
            return plot.data.flatMap((one) => one.x).every((x) => x > low && x < high); }"""
    )
    assert ends
    # A goal that is reached with the last step does not lie on the frame.
    assert tab.evaluate(
        """() => { const plot = document.querySelector("[data-chart='times-digits-mlp-iterations']");
            return plot._fullLayout.xaxis.range[1] > Math.max(...plot.data[0].x); }"""
    )
    for arm in (0, 1):
        tab.locator(f"#tuning figure:has([data-chart='tuning-digits-mlp']) .chip[data-arm='{arm}']").click()
    see_all(tab)
    assert tab.locator("[data-chart='tuning-digits-mlp'] .ytick text").count() == 0
    seen.check()


def test_no_script_can_be_brought_in(real, visit):
    seen = visit(real.as_uri())
    seen.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.hit = 1';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.hit = 2">');
            return fetch('http://127.0.0.1:9/').catch(() => 0);
        }"""
    )
    assert seen.page.evaluate("window.hit") is None
    assert any("Content Security Policy" in error for error in seen.errors)


def test_without_scripts_the_verdict_is_there(real, visit):
    seen = visit(real.as_uri(), java_script_enabled=False)
    assert "2 comparisons with relu on the task digits" in seen.page.locator("noscript").inner_text()


def test_a_study_that_has_not_begun_is_a_page_too(tmp_path, visit):
    path = tmp_path / "new.html"
    path.write_text(page(report_document(Outcome(small_study(), lambda spec: None))), encoding="utf-8")
    seen = visit(path.as_uri())
    assert "Nothing can be compared yet" in seen.page.locator("#verdict").inner_text()
    assert seen.page.locator("progress").get_attribute("value") == "0"
    seen.check()
