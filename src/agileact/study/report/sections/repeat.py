"""How to repeat the study: command, versions, hardware, seeds, protocol and the whole spec."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

from agileact.study.report.blocks import Block, Cell, cell, code, details, paragraph, section, table
from agileact.study.results.outcome import Outcome
from agileact.study.spec.record import study_record


def repeat(outcome: Outcome) -> Block:
    """Return the section."""
    study, around = outcome.study, outcome.around
    results = [result for found in outcome.cells for result in found.results]
    content: list[Block] = []
    if around.command:
        content += [paragraph("The command:"), code(around.command, "Command")]
    else:
        content.append(paragraph("The command that ran the study is not recorded."))
    versions = Counter(", ".join(f"{name} {number}" for name, number in result.versions.items()) for result in results)
    idle = () if study.protocol.tune else ("trials", "lr", "activation_lr", "tuning_seeds", "extend", "choose")
    seeds = ", ".join(map(str, study.protocol.seeds))
    tuned = ", ".join(map(str, study.protocol.tuning_seeds)) if study.protocol.tune else "none, nothing is tuned"
    times = study.protocol.replicates
    afresh = f", and {1_000_000:,} more in each of the {times} replicates" * (times > 1)
    rows: list[Sequence[Cell]] = [
        ["hardware", around.hardware or "not recorded"],
        *(["versions", f"{text} ({count} of {len(results)} final trials)"] for text, count in versions.items()),
        ["seeds of final trials", seeds + afresh],
        ["seeds of tuning", tuned + afresh * study.protocol.tune],
        ["trials", f"{outcome.current.done} done of at most {study.most_trials}"],
        ["final trials, training time in all", f"{sum(result.seconds for result in results):,.0f} s"],
    ]
    for task in study.tasks:
        data = task.spec.data
        told = around.data.get(task.name, data.name)
        rows.append([f"data of {task.name}", f"{told} (fingerprint {data.fingerprint or 'none'})"])
    content.append(table("repeat", "What it ran on and with.", ["what", "which"], rows))
    # With a space, arm by arm, the rates of the search without one say nothing; without one, nothing is said of it.
    idle = (*idle, "space", *(("lr", "activation_lr", "extend") if study.searches else ("sampler",)))
    steps: list[Sequence[Cell]] = [
        [name, cell(_text(value))] for name, value in dataclasses.asdict(study.protocol).items() if name not in idle
    ]
    steps += [[f"space of {', '.join(arms)}", cell(space)] for arms, space in study.searches]
    content.append(table("protocol", "The protocol, every step.", ["step", "setting"], steps))
    spec = json.dumps(study_record(study), indent=1, ensure_ascii=False)
    content.append(details("The whole spec as JSON", [code(spec, "Spec")]))
    return section("repeat", "How to repeat it", content)


def _text(value: object) -> str:
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value) or "none"
    return str(value)
