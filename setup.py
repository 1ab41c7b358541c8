"""Compiles pure modules with mypyc where that is asked for; the rest is in pyproject.toml.

``SESSIOND_COMPILE=1 pip install .`` (or ``python setup.py build_ext --inplace`` with the same
setting, where mypy is installed) needs a C compiler and Python's headers. The Python source stays
the source of truth: without the compiled modules it runs as it is.
"""

import os
from importlib.util import find_spec

from setuptools import Extension, setup

# Where the time goes at hundreds of processes a second, and no I/O: see docs/architecture.md.
COMPILED = [
    "sessiond/audit/auditd_log.py",
    "sessiond/audit/reassembler.py",
    "sessiond/audit/record.py",
    "sessiond/ecs/users.py",
    "sessiond/ecs/normalizations.py",
    "sessiond/ecs/audit_event.py",
    "sessiond/ecs/audit_cache.py",
    "sessiond/ecs/fit.py",
    "sessiond/ecs/line.py",
    "sessiond/ecs/audit_fields.py",
    "sessiond/ecs/process.py",
    "sessiond/ecs/chain.py",
    "sessiond/ecs/dates.py",
    "sessiond/ecs/wall_clock.py",
    "sessiond/ecs/decoders.py",
    "sessiond/filters/account.py",
    "sessiond/filters/decide.py",
    "sessiond/filters/fold.py",
    "sessiond/filters/stage.py",
    "sessiond/filters/subject.py",
    "sessiond/pipeline/losses.py",
    "sessiond/pipeline/config_changes.py",
    "sessiond/pipeline/joins.py",
    "sessiond/pipeline/event_writer.py",
    "sessiond/pipeline/inventory.py",
    "sessiond/pipeline/pipeline.py",
    "sessiond/process/argv.py",
    "sessiond/process/from_audit.py",
    "sessiond/process/container.py",
    "sessiond/process/entry.py",
    "sessiond/process/entity_id.py",
    "sessiond/process/memory.py",
    "sessiond/process/systemd_unit.py",
    "sessiond/process/table.py",
    "sessiond/replay/blocks.py",
    "sessiond/replay/hosts.py",
    "sessiond/replay/replay.py",
    "sessiond/sources/ebpf/records.py",
    "sessiond/sources/ebpf/ring.py",
    "sessiond/sources/lookup.py",
    "sessiond/text.py",
    "sessiond/units.py",
]

extensions: list[Extension] = []
needed: list[str] = []
if os.environ.get("SESSIOND_COMPILE") == "1":
    # pip asks first what is needed, in an environment that does not have it yet; mypy reads the
    # types of what the modules import.
    needed = ["mypy>=1.8", "msgspec", "orjson"]
    if find_spec("mypyc"):
        from mypyc.build import mypycify

        extensions = mypycify(COMPILED, opt_level="2")

setup(ext_modules=extensions, setup_requires=needed)
