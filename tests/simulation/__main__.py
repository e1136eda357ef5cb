"""``python -m simulation SEED [WORD ...]``: what happens with a seed, only lines with one of the words.

``python -m simulation FIRST:END``: which seeds break a promise. ``--digest SEED ...``: a hash of each trace.
``--catch``: seek a seed that catches each mutant, and keep it. ``--reach``: seek seeds that meet all that is
wanted, and keep them.
"""

import json
import sys

from simulation.catching import seek
from simulation.driver import simulate
from simulation.judging import chosen, judge, judge_all
from simulation.reaching import cover
from simulation.trace import Step


def _line(step: Step) -> str:
    if step.kind != "kept":
        return str(step)
    subject, sequence, data, _ = step.detail
    document = json.loads(data)
    if step.who == "SCHEDULER_LOG":
        events = [_event(event) for event in document["events"]]
        shown = (
            f"n={document['n']} {document['record_id']} {document['reply_position'][0]} {', '.join(events)}"
        )
    else:
        keys = ("service", "_component_id", "_state", "serial", "error")
        shown = " ".join(f"{key}={document[key]}" for key in keys if key in document)
    return f"{step.time:9.4f} {step.who} {subject} #{sequence} {shown}"


def _event(event: dict[str, object]) -> str:
    body = event.get("body")
    state = body.get("_state") if isinstance(body, dict) else None
    error = body.get("error") if isinstance(body, dict) else event.get("error")
    words = (event["event"], event.get("component"), state, error, event.get("seconds"))
    return " ".join(str(word) for word in words if word is not None)


def main(arguments: list[str]) -> int:
    """Run what the arguments say; 1 where something is wrong."""
    if arguments[0] == "--digest":
        for seed in chosen(",".join(arguments[1:])):
            print(seed, simulate(seed).trace.digest())
        return 0
    if arguments[0] == "--catch":
        for line in seek():
            print(line, flush=True)
        return 0
    if arguments[0] == "--reach":
        print(cover())
        return 0
    seeds = chosen(arguments[0])
    if len(seeds) > 1:
        failed = 0
        for verdict in judge_all(seeds):
            print(verdict, flush=True)
            failed += 1
        print(f"{len(seeds)} seeds, {failed} of them with problems")
        return bool(failed)
    verdict = judge(seeds[0])
    for step in verdict.trace.steps if verdict.trace is not None else ():
        line = _line(step)
        if len(arguments) == 1 or any(word in line for word in arguments[1:]):
            print(line)
    print(verdict.scenario)
    print("\n".join(verdict.problems) or "all promises were kept")
    return bool(verdict.problems)


sys.exit(main(sys.argv[1:]))
