"""Renders integrations/elastic/rules.md from the data in rules.yml."""

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

**{fires} of the {rules} prebuilt rules for Linux in EQL and KQL fire on events of sessiond**: {eql}
in EQL, {kql} in KQL. The rules are those of Elastic's repository detection-rules in August 2026.
For each rule the suspicious action was performed beside a running daemon, by harmless processes
with the expected names and arguments, in a separate file system; the rule was then evaluated on the
events of that action alone. {auditbeat} of the rules fire only with `event.event_actions:
auditbeat`.

| index | rules | rules that fire |
| --- | --- | --- |
{indices}

The reasons why the others can't fire:

| reason | rules |
| --- | --- |
{reasons}

Elastic Defend has its own names for actions on files and connections (`creation`, `rename`,
`connection_attempted`), for which Auditbeat and sessiond use `opened-file`, `renamed`,
`connected-to`. It writes changes of ids (`uid_change`) as events, which sessiond does not. It also
has its own fields below `Ext`, and the environment. If an index of Defend exists as well,
Elasticsearch knows those fields, and a few more rules work.

Rules in EQL were evaluated by [eql](https://pypi.org/project/eql/), Elastic's evaluator in Python,
extended where Elasticsearch behaves differently (lists, missing fields); the letter case of
wildcards was ignored. Rules in KQL were evaluated by the evaluator in the rules' own repository,
because PyPI has no maintained one. For rules about new terms or thresholds only the query was
evaluated. A rule that reads a field that is not marked optional, and that no event of sessiond has,
counts as one that can't fire, because Elasticsearch refuses an EQL query with an unknown field.
Rules in ES|QL were not evaluated.

[etc/rules.d/elastic.rules](../../etc/rules.d/elastic.rules) has the audit rules that the rules
need. [rules.yml](rules.yml) has the data: the fields of each rule, the action, and the reason why
it can't fire. To repeat the test, as root, with a checkout of detection-rules:

```sh
.venv/bin/python -m pip install eql
SESSIOND_DETECTION_RULES=/path/to/detection-rules .venv/bin/python -m pytest tests/integrations
```

| rule | reads | fires | reason if not |
| --- | --- | --- | --- |
"""


def rules() -> list[Rule]:
    """Return all rules of the data."""
    found: list[Rule] = yaml.safe_load((DIRECTORY / "rules.yml").read_text("utf-8"))
    return found


def page() -> str:
    """Return the text of integrations/elastic/rules.md."""
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
    """Return the general form of a reason, for counting."""
    for start in ("reads", "asks for the action", "not produced"):
        if why.startswith(start):
            return {
                "reads": "reads fields that only Elastic Defend or others write",
                "asks for the action": "asks for actions with names of other products",
            }.get(start, why)
    return why
