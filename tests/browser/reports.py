"""What the tests of the report in a browser share: to look at a whole page, and to count what is drawn."""

from __future__ import annotations


def see_all(tab):
    """Scroll through the page as a reader does, so that every chart is drawn as it should be now."""
    tab.evaluate(
        """async () => {
            for (let y = 0; y < document.documentElement.scrollHeight; y += 500) {
                scrollTo(0, y);
                await new Promise((done) => setTimeout(done, 25));
            }
        }"""
    )
    # The browser of a busy machine may not have looked while a chart was in sight.
    tab.wait_for_function(
        """() => {
            const missing = [...charts.values()].find((chart) => isVisible(chart) && chart.stale);
            if (missing) missing.plot.scrollIntoView({ block: 'center' });
            return !missing;
        }"""
    )
    tab.evaluate("scrollTo(0, 0)")


def marks(tab):
    """Return how many marks each chart in sight has: lines, points, bars."""
    return tab.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.plot')].filter((one) => one.offsetParent)
            .map((one) => [one.dataset.chart, one.querySelectorAll('.js-line, .points path, .point path').length]))"""
    )
