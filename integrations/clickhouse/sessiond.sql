-- The table of sessiond's events: a row for each, with the document and typed columns of it.
-- ClickHouse 25.3 or later. clickhouse-client --multiquery < sessiond.sql
CREATE DATABASE IF NOT EXISTS sessiond;

CREATE TABLE IF NOT EXISTS sessiond.events
(
    doc JSON(
        `@timestamp` DateTime64(6, 'UTC'),
        event.action LowCardinality(String), event.id String, event.sequence UInt64,
        host.id LowCardinality(String), host.name LowCardinality(String),
        user.name LowCardinality(String),
        process.entity_id String, process.pid UInt32, process.exit_code Nullable(UInt8),
        process.executable LowCardinality(String), process.command_line String,
        process.parent.entity_id String,
        process.entry_leader.entity_id String,
        process.entry_leader.entry_meta.type LowCardinality(String),
        process.entry_leader.entry_meta.source.ip String
    ) CODEC(ZSTD(3)),
    time     DateTime64(6, 'UTC')   DEFAULT doc.`@timestamp` CODEC(Delta, ZSTD),
    host     LowCardinality(String) DEFAULT doc.host.id,
    session  String                 DEFAULT doc.process.entry_leader.entity_id,
    process  String                 DEFAULT doc.process.entity_id,
    event_id String                 DEFAULT doc.event.id,
    INDEX by_session session TYPE bloom_filter GRANULARITY 4,
    INDEX by_process process TYPE bloom_filter GRANULARITY 4
)
-- A repeated line has the same key: it becomes one row with the next merge, and at once with FINAL.
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
ORDER BY (host, session, time, event_id)
TTL toDateTime(time) + INTERVAL 90 DAY;

-- The logins: SELECT * FROM sessiond.logins
CREATE VIEW IF NOT EXISTS sessiond.logins AS
SELECT
    session,
    any(doc.host.name) AS host_name,
    any(doc.process.entry_leader.entry_meta.type) AS entry,
    max(doc.process.entry_leader.entry_meta.source.ip) AS address,
    topK(1)(doc.user.name)[1] AS user,
    min(time) AS first,
    max(time) AS last,
    uniqExact(process) AS processes
FROM sessiond.events
WHERE doc.process.entry_leader.entry_meta.type IN ('sshd', 'terminal', 'console', 'ssm', 'teleport')
GROUP BY session
ORDER BY first;

-- The processes of a session, as a tree: SELECT * FROM sessiond.tree(wanted = 'xb2...')
CREATE VIEW IF NOT EXISTS sessiond.tree AS
WITH RECURSIVE
    processes AS
    (
        SELECT
            process AS id,
            any(doc.process.parent.entity_id) AS parent,
            min(time) AS first,
            argMax(doc.process.command_line, time) AS command_line,
            max(doc.process.exit_code) AS exit_code
        FROM sessiond.events
        WHERE session = {wanted:String}
        GROUP BY process
    ),
    below AS
    (
        SELECT id, 0 AS depth, [(first, id)] AS path, first, command_line, exit_code
        FROM processes
        WHERE id = {wanted:String} OR parent NOT IN (SELECT id FROM processes)
        UNION ALL
        SELECT
            each.id, below.depth + 1, arrayPushBack(below.path, (each.first, each.id)), each.first,
            each.command_line, each.exit_code
        FROM processes AS each
        INNER JOIN below ON each.parent = below.id
        WHERE each.id != {wanted:String}
    )
SELECT first AS time, concat(repeat('  ', depth), command_line) AS command, exit_code
FROM below
ORDER BY path;

-- Programs that a host has run since a time, and never before in the table:
-- SELECT * FROM sessiond.first_seen(since = '2026-11-30 00:00:00')
CREATE VIEW IF NOT EXISTS sessiond.first_seen AS
SELECT
    host,
    doc.process.executable AS executable,
    min(time) AS first,
    count() AS times,
    argMin(doc.user.name, time) AS user,
    argMin(doc.process.command_line, time) AS command_line
FROM sessiond.events
WHERE doc.event.action IN ('exec', 'executed', 'already_running')
GROUP BY host, executable
HAVING first >= {since:DateTime}
ORDER BY first;
