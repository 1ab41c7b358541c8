"""The data of integrations/elastic/rules.yml, and the table that is made of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml
from support.manager import PROJECT

DIRECTORY = PROJECT / "integrations" / "elastic"
Rule = dict[str, Any]

_INDICES = {
    "auditbeat": "auditbeat-*",
    "auditd_manager": "logs-auditd_manager.*",
    "defend": "logs-endpoint.events.*",
}

_HEAD = """\
# Elastic's prebuilt rules

**{fires} of the {rules} prebuilt rules for Linux in EQL and KQL fire on events of sessiond**, of
Elastic's repository detection-rules as it was in August 2026: {eql} in EQL, {kql} in KQL.
For each of them the behaviour was really done, by processes of that name and with those arguments
which do nothing else, in a file system of their own, beside a running daemon; the rule was asked of
the events of that behaviour alone. {auditbeat} of them fire with `event.event_actions: auditbeat`
only.

| read | rules | fire |
| --- | --- | --- |
{indices}

Why the others can't:

| why | rules |
| --- | --- |
{reasons}

In words: Elastic Defend has names of its own for what happens to files and connections (`creation`,
`rename`, `connection_attempted`), where Auditbeat and sessiond have `opened-file`, `renamed`,
`connected-to`. It tells changes of ids (`uid_change`) as events, which sessiond does not. It
has fields of its own, below `Ext`, and the environment. Where an index that Defend writes exists
as well, Elasticsearch knows those fields, and a few more rules work.

How it was judged: by [eql](https://pypi.org/project/eql/), Elastic's evaluator in Python, with what
Elasticsearch does otherwise (lists, missing fields) added; of wildcards letter case was not looked
at. Rules in KQL by the evaluator that comes with the rules themselves; PyPI has none that is kept.
Of a rule for new terms or a number of events the query alone is judged. A rule that reads a field
which is not marked optional, and which no event of sessiond has, is counted as one that can't fire,
because Elasticsearch refuses an EQL query with an unknown field. Not judged: rules in ES|QL.

What the rules need of audit is in [etc/rules.d/elastic.rules](../../etc/rules.d/elastic.rules).
The data is [rules.yml](rules.yml): the fields of each rule, what is done, what keeps it from
firing. Do it again, as root, with a checkout of detection-rules:

```sh
.venv/bin/python -m pip install eql
SESSIOND_DETECTION_RULES=/path/to/detection-rules .venv/bin/python -m pytest tests/integrations
```

| rule | reads | fires | else why |
| --- | --- | --- | --- |
"""


def rules() -> list[Rule]:
    """Give every rule of the data."""
    found: list[Rule] = yaml.safe_load((DIRECTORY / "rules.yml").read_text("utf-8"))
    return found


def page() -> str:
    """Write integrations/elastic/rules.md."""
    every = rules()
    fire = [rule for rule in every if "fires" in rule]
    indices = [
        f"| `{index}` | {sum(name in rule['reads'] for rule in every)} "
        f"| {sum(name in rule['reads'] for rule in fire)} |"
        for name, index in _INDICES.items()
    ]
    reasons = Counter(_group(rule["why"]) for rule in every if "why" in rule)
    head = _HEAD.format(
        fires=len(fire),
        rules=len(every),
        eql=_of(fire, "eql") + " of " + _of(every, "eql"),
        kql=_of(fire, "kuery") + " of " + _of(every, "kuery"),
        auditbeat=sum(rule["fires"] == "auditbeat" for rule in fire),
        indices="\n".join(indices),
        reasons="\n".join(f"| {why} | {count} |" for why, count in reasons.most_common()),
    )
    rows = (
        f"| {rule['name'].replace('|', '/')} | {', '.join(rule['reads'])} "
        f"| {_SAID[rule.get('fires')]} | {rule.get('why', '')} |\n"
        for rule in every
    )
    return head + "".join(rows)


def _of(some: list[Rule], language: str) -> str:
    return str(sum(rule.get("language", "eql") == language for rule in some))


_SAID = {"ecs": "yes", "auditbeat": "with Auditbeat's names", None: "no"}


def _group(why: str) -> str:
    """Say why in a word, for counting."""
    for start in ("reads", "asks for the action", "not produced"):
        if why.startswith(start):
            return {
                "reads": "reads fields that only Elastic Defend or others write",
                "asks for the action": "asks for actions that others name so",
            }.get(start, why)
    return why
