"""What the tests of the lab read off its page: marks of charts, values of curves, sentences."""

from __future__ import annotations

from typing import Any

MARKS = ".scatterlayer path, .scatterlayer .point, .barlayer path, .heatmaplayer image, .contourlayer path"
OVERLAPS = """() => [...document.querySelectorAll("[id^=network-numbers-] .js-plotly-plot")].flatMap(plot => {
    const parts = [...plot.querySelectorAll(".xtick text, .ytick text, .x2tick text, .y2tick text, text[class$=title]")]
        .filter(one => one.textContent).map(one => [one.textContent, one.getBoundingClientRect()]);
    // A line is higher than its digits.
    const apart = (p, q) => p.right <= q.left || q.right <= p.left || p.bottom - 6 <= q.top || q.bottom - 6 <= p.top;
    const bars = [...plot.querySelectorAll(".plot")].map(one => ["bars", one.getBoundingClientRect()]);
    return [...parts, ...bars].flatMap(([text, p], i) => parts.slice(i + 1)
        .filter(([, q]) => !apart(p, q)).map(([other]) => `${text} | ${other}`));
})"""


def drawn(page: Any, chart: str) -> int:
    """Return how many marks of a chart have a size, once there is one."""
    count = f"""[...document.querySelectorAll("#{chart} .js-plotly-plot")].flatMap(
        plot => [...plot.querySelectorAll("{MARKS}")]
    ).filter(mark => mark.getBoundingClientRect().width + mark.getBoundingClientRect().height > 0).length"""
    page.wait_for_function(f"() => {count} > 0")
    return int(page.evaluate(count))


def says(page: Any, place: str, pattern: str) -> str:
    """Return what a sentence says, once it fits the pattern."""
    page.wait_for_function(
        "([id, p]) => new RegExp(p).test(document.getElementById(id).innerText)", arg=[place, pattern]
    )
    return str(page.inner_text(f"#{place}"))


def last_value(page: Any) -> float:
    curve = "document.querySelector('#activation-values .js-plotly-plot').data[1].y"
    return float(page.evaluate(f"{curve}[{curve}.length - 1]"))
