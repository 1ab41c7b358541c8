"""The fields of the output, by name, with their types: those that conditions of filters can use.

docs/output.md explains them; a test compares that page with this table. Pure.
"""

from __future__ import annotations

from typing import Final

_RELATIVES: Final = ("parent", "group_leader", "session_leader", "entry_leader")

# Members of ``process`` that its relatives have as well.
_SHARED: Final = {
    "date": ("start end"),
    "keyword[]": ("args"),
    "keyword": (
        "entity_id name executable working_directory user.id user.name group.id group.name "
        "real_user.id real_user.name real_group.id real_group.name"
    ),
    "long": ("pid vpid exit_code args_count tty.char_device.major tty.char_device.minor"),
    "wildcard": ("command_line"),
    "boolean": ("interactive"),
}

_OTHERS: Final = {
    "date": (
        "@timestamp event.start event.end process.parent.group_leader.start "
        "process.session_leader.parent.start process.entry_leader.parent.start"
    ),
    "match_only_text": ("message"),
    "match_only_text[]": ("error.message"),
    "keyword[]": (
        "tags event.category event.type event.provider host.mac "
        "process.thread.capabilities.effective process.thread.capabilities.permitted "
        "process.previous.args process.Ext.ancestry auditd.messages auditd.warnings "
        "sessiond.incomplete sessiond.truncated sessiond.warnings event.original related.user"
    ),
    "keyword": (
        "labels.* event.kind event.action event.outcome event.id event.module error.code "
        "sessiond.chain ecs.version service.type agent.type agent.version host.name "
        "host.hostname host.id "
        "host.boot.id host.architecture host.pid_ns_ino host.os.type host.os.name "
        "host.os.version host.os.full host.os.family host.os.platform host.os.kernel "
        "process.title process.saved_user.id process.saved_user.name process.saved_group.id "
        "process.saved_group.name process.supplemental_groups.id "
        "process.supplemental_groups.name process.previous.executable "
        "process.parent.group_leader.entity_id process.session_leader.parent.entity_id "
        "process.entry_leader.parent.entity_id process.entry_leader.entry_meta.type "
        "container.id container.runtime orchestrator.type orchestrator.resource.type "
        "orchestrator.resource.id systemd.unit systemd.user_unit systemd.slice "
        "systemd.session user.id user.name user.group.id user.group.name user.audit.id "
        "user.audit.name user.effective.id user.effective.name user.effective.group.id "
        "user.effective.group.name user.saved.id user.saved.name user.saved.group.id "
        "user.saved.group.name user.filesystem.id user.filesystem.name "
        "user.filesystem.group.id user.filesystem.group.name user.target.id user.target.name "
        "user.selinux.user user.selinux.role user.selinux.domain user.selinux.level "
        "user.selinux.category group.id group.name file.path file.name file.target_path "
        "file.type file.mode file.device file.inode file.uid file.owner file.gid file.group "
        "file.selinux.user file.selinux.role file.selinux.domain file.selinux.level "
        "file.selinux.category source.address destination.address network.direction "
        "network.type auditd.message_type auditd.session auditd.result auditd.origin "
        "auditd.summary.actor.primary auditd.summary.actor.secondary "
        "auditd.summary.object.type auditd.summary.object.primary "
        "auditd.summary.object.secondary auditd.summary.how auditd.data.* auditd.arguments.* "
        "auditd.paths.* sessiond.signal.name sessiond.reparented_to.entity_id "
        "sessiond.ancestors.executable sessiond.cgroup sessiond.loss.hop sessiond.loss.unit "
        "sessiond.loss.reason sessiond.health.what sessiond.health.reason sessiond.health.* "
        "sessiond.filter.name sessiond.filter.action file.extension source.path destination.path "
        "auditd.data.socket.family auditd.data.socket.addr auditd.data.socket.port "
        "auditd.data.socket.path auditd.data.socket.flow auditd.data.socket.saddr"
    ),
    "long": (
        "event.sequence process.previous.args_count process.parent.group_leader.pid "
        "process.session_leader.parent.pid process.entry_leader.parent.pid systemd.owner_uid "
        "source.port destination.port auditd.sequence sessiond.mount_namespace "
        "sessiond.signal.number sessiond.reparented_to.pid sessiond.ancestors.pid "
        "sessiond.namespaces.pid sessiond.namespaces.mount sessiond.namespaces.user "
        "sessiond.namespaces.network sessiond.loss.count sessiond.loss.kinds.* "
        "sessiond.clock.old_offset sessiond.clock.new_offset sessiond.filter.lines "
        "sessiond.filter.bytes sessiond.filter.count"
    ),
    "ip[]": ("host.ip"),
    "boolean": (
        "process.group_leader.same_as_process process.session_leader.same_as_process "
        "process.entry_leader.same_as_process sessiond.signal.core_dumped sessiond.canary "
        "sessiond.executable_deleted"
    ),
    "ip": ("process.entry_leader.entry_meta.source.ip source.ip destination.ip"),
    "double": ("sessiond.clock.step"),
}


def _all() -> dict[str, str]:
    fields = {name: kind for kind, names in _OTHERS.items() for name in names.split()}
    for kind, names in _SHARED.items():
        for name in names.split():
            fields[f"process.{name}"] = kind
            for relative in _RELATIVES:
                fields[f"process.{relative}.{name}"] = kind
    return fields


# Each field and its type in docs/output.md; ``.*`` stands for members of any name.
FIELDS: Final = _all()
# What can be asked of an ancestor, as ``ancestor.NAME``.
ANCESTOR_FIELDS: Final = {
    "entity_id": "keyword",
    "pid": "long",
    "start": "date",
    "name": "keyword",
    "executable": "keyword",
    "args": "keyword[]",
    "command_line": "wildcard",
    "user.id": "keyword",
    "user.name": "keyword",
    "real_user.id": "keyword",
    "real_user.name": "keyword",
    "user.audit.id": "keyword",
    "user.audit.name": "keyword",
}


def kind_of(field: str) -> str | None:
    """Return the type of a field, None where no line can have it.

    ``field`` is a name as in the output, or ``ancestor.NAME``.
    """
    if field.startswith("ancestor."):
        return ANCESTOR_FIELDS.get(field.removeprefix("ancestor."))
    found = FIELDS.get(field)
    while found is None and "." in field:
        field = field.rpartition(".")[0]
        found = FIELDS.get(f"{field}.*")
    return found


def full_name(field: str) -> str:
    """Return the name as in the output: ``parent.name`` and the like are of ``process``."""
    return f"process.{field}" if field.startswith(tuple(f"{r}." for r in _RELATIVES)) else field
