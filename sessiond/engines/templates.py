"""The templates of Elasticsearch and OpenSearch, generated from the list of fields. Pure.

``python -m sessiond.engines.templates DIRECTORY`` writes those in integrations/elastic/. Sources:
Elasticsearch's reference of mappings, index templates, data streams and lifecycle policies, and
OpenSearch's reference of flat_object.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from sessiond.config.fields import FIELDS

DATA_STREAM: Final = "logs-sessiond.process-default"
PATTERN: Final = "logs-sessiond.process-*"
# Names under which Elastic's prebuilt rules and Session View search events.
ALIASES: Final = ("auditbeat-sessiond", "logs-endpoint.events.process-sessiond")
POLICY: Final = "sessiond"
MAPPINGS: Final = "sessiond@mappings"
SETTINGS: Final = "sessiond@settings"
CUSTOM: Final = "sessiond@custom"
TEMPLATE: Final = "logs-sessiond.process"

# Lucene's terms have at most 32,766 bytes, and a character in UTF-8 up to four.
_MAX_TERM: Final = 32766 // 4
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "keyword": {"type": "keyword", "ignore_above": 1024},
    "wildcard": {"type": "wildcard", "ignore_above": _MAX_TERM},
    "match_only_text": {"type": "match_only_text"},
    # Kibana pages by milliseconds, so no field is date_nanos; the text keeps all digits.
    "date": {"type": "date"},
    "long": {"type": "long"},
    "double": {"type": "double"},
    "boolean": {"type": "boolean"},
    "ip": {"type": "ip"},
}

Json = dict[str, Any]


def mappings(*, opensearch: bool) -> Json:
    """Return the mapping of every field of docs/output.md.

    An object with arbitrary member names is a flattened field, so that users' names do not become
    fields of the index. Unknown fields are kept in the document but not indexed.
    """
    flat = {"type": "flat_object"} if opensearch else {"type": "flattened", "ignore_above": 1024}
    opened = sorted(name.removesuffix(".*") for name in FIELDS if name.endswith(".*"))
    properties: Json = {}
    for name in opened:
        _place(properties, name, flat)
    for name, kind in sorted(FIELDS.items()):
        if not name.startswith(tuple(f"{prefix}." for prefix in opened)):
            _place(properties, name, _TYPES[kind.removesuffix("[]")])
    return {"dynamic": False, "date_detection": False, "properties": properties}


def _place(properties: Json, name: str, mapping: Json) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        properties = properties.setdefault(parent, {"properties": {}})["properties"]
    properties[last] = dict(mapping)


def component_mappings(*, opensearch: bool) -> Json:
    """Return the component template with the fields."""
    return _signed({"template": {"mappings": mappings(opensearch=opensearch)}})


def component_settings(*, opensearch: bool) -> Json:
    """Return the component template with the settings: compression, and a replica if possible."""
    index: Json = {
        "codec": "best_compression",
        "auto_expand_replicas": "0-1",
        # An invalid value is ignored without rejecting the document.
        "mapping": {"ignore_malformed": "true"},
    }
    if not opensearch:
        index["lifecycle"] = {"name": POLICY}
    return _signed({"template": {"settings": {"index": index}}})


def index_template() -> Json:
    """Return the template of the data stream, with the aliases that rules and Kibana read."""
    return _signed(
        {
            "index_patterns": [PATTERN],
            "priority": 300,  # over Elasticsearch's own for logs-*-*, which has 100
            "data_stream": {},
            "composed_of": [MAPPINGS, SETTINGS, CUSTOM],
            "template": {"aliases": {alias: {} for alias in ALIASES}},
        }
    )


def lifecycle(keep_days: int) -> Json:
    """Return Elasticsearch's lifecycle policy: a new index by size or week, deleted at an age."""
    rollover = {"max_primary_shard_size": "50gb", "max_age": "7d"}
    return {
        "policy": {
            "phases": {
                "hot": {"min_age": "0ms", "actions": {"rollover": rollover}},
                "delete": {"min_age": f"{keep_days}d", "actions": {"delete": {}}},
            }
        }
    }


def state_policy(keep_days: int) -> Json:
    """Return OpenSearch's counterpart, for its plugin Index State Management."""
    rollover = {"min_primary_shard_size": "50gb", "min_index_age": "7d"}
    delete = {"state_name": "delete", "conditions": {"min_rollover_age": f"{keep_days}d"}}
    return {
        "policy": {
            "description": "Events of sessiond: a new index by size or week, deleted at an age",
            "default_state": "hot",
            "states": [
                {"name": "hot", "actions": [{"rollover": rollover}], "transitions": [delete]},
                {"name": "delete", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": [PATTERN], "priority": 300}],
        }
    }


def checksum(template: Json) -> str | None:
    """Return the checksum in a template of sessiond, None for other templates."""
    meta = template.get("_meta")
    found = meta.get("checksum") if isinstance(meta, dict) else None
    return found if isinstance(found, str) else None


def _signed(template: Json) -> Json:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    return {**template, "_meta": {"managed_by": "sessiond", "checksum": digest[:16]}}


def files() -> dict[str, Json]:
    """Return the contents of the files in integrations/elastic/, by name."""
    return {
        "mappings.json": component_mappings(opensearch=False),
        "mappings-opensearch.json": component_mappings(opensearch=True),
        "settings.json": component_settings(opensearch=False),
        "settings-opensearch.json": component_settings(opensearch=True),
        "index-template.json": index_template(),
        "lifecycle.json": lifecycle(90),
        "lifecycle-opensearch.json": state_policy(90),
    }


def write(directory: Path) -> None:
    """Rewrite the files in integrations/elastic/."""
    for name, content in files().items():
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        (directory / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
