"""The tables of the pages in this folder, from what ``agileact study show SPEC --json`` printed.

python docs/studies/tables.py docs/studies/results/where-relu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WORDS = {"better": "**lower**", "worse": "**higher**", "same": "no difference found", "undecided": "undecided"}


def tables(document: dict[str, Any]) -> str:
    """Return a Markdown table for each task: losses, the difference to the baseline, and the time to its best loss."""
    verdicts = {(one["task"], one["arm"]): one for one in document["verdicts"]}
    contrasts = {(one["task"], one["arm"]): one for one in document["contrasts"]}
    text = []
    for task in dict.fromkeys(row["task"] for row in document["rows"]):
        text += [
            f"**{task}**",
            "",
            "| arm | rate | of a, b | test loss | minus the baseline's [interval] | iterations to its best | p |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in (row for row in document["rows"] if row["task"] == task):
            arm = row["arm"]
            verdict, contrast = verdicts.get((task, arm)), contrasts.get((task, arm))
            difference, p = "baseline", ""
            if verdict is not None:
                difference = WORDS.get(verdict["decision"], verdict["decision"])
                p = "" if verdict["time_p"] is None else f"{verdict['time_p']:.2g}"
                if contrast is not None and contrast["mean"] is not None:
                    low, high = contrast["student"]
                    difference = f"{contrast['mean']:+.3f} [{low:+.3f}, {high:+.3f}] {difference}"
            cells = (row["lr"], row["activation lr"], row["test loss"], difference)
            text.append(f"| {' | '.join((f'`{arm}`', *cells, row[TIME], p))} |")
        text.append("")
    return "\n".join(text)


TIME = "iterations to the baseline's best"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(tables(json.loads(Path(name).read_text(encoding="utf-8"))))
