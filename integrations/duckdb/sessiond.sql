-- Queries on sessiond's files of one host, without a server: duckdb -init sessiond.sql
-- Change the path to read archives or copies; DuckDB reads gzip and zstd directly.
CREATE OR REPLACE VIEW events AS
SELECT
    (json ->> '$."@timestamp"')::TIMESTAMP AS time,
    json ->> '$.host.name' AS host,
    json ->> '$.event.action' AS action,
    json ->> '$.event.id' AS id,
    json ->> '$.user.name' AS user,
    json ->> '$.process.entity_id' AS process,
    json ->> '$.process.parent.entity_id' AS parent,
    (json ->> '$.process.pid')::BIGINT AS pid,
    json ->> '$.process.executable' AS executable,
    json ->> '$.process.command_line' AS command_line,
    (json ->> '$.process.exit_code')::BIGINT AS exit_code,
    json ->> '$.process.entry_leader.entity_id' AS session,
    json ->> '$.process.entry_leader.entry_meta.type' AS entry,
    json ->> '$.process.entry_leader.entry_meta.source.ip' AS address,
    json AS line
FROM read_ndjson_objects('/var/log/sessiond/events.ndjson*', maximum_object_size = 33554432);

-- The logins: SELECT * FROM logins;
CREATE OR REPLACE VIEW logins AS
SELECT
    session, any_value(host) AS host, any_value(entry) AS entry, any_value(address) AS address,
    mode(user) AS user, min(time) AS first, max(time) AS last,
    count(DISTINCT process) AS processes
FROM events
WHERE entry IN ('sshd', 'terminal', 'console', 'ssm', 'teleport')
GROUP BY session
ORDER BY first;

-- The processes of a session, as a tree: SELECT * FROM tree('xb2...');
CREATE OR REPLACE MACRO tree(wanted) AS TABLE
WITH RECURSIVE processes AS (
    SELECT
        process, any_value(parent) AS parent, min(time) AS first, arg_max(command_line, time) AS command_line,
        max(exit_code) AS exit_code
    FROM events
    WHERE session = wanted
    GROUP BY process
), below AS (
    SELECT process, 0 AS depth, [(first, process)] AS path, first, command_line, exit_code
    FROM processes
    WHERE process = wanted OR parent NOT IN (SELECT process FROM processes)
    UNION ALL
    SELECT
        each.process, depth + 1, list_append(path, (each.first, each.process)), each.first,
        each.command_line, each.exit_code
    FROM processes AS each JOIN below ON each.parent = below.process AND each.process <> wanted
)
SELECT first AS time, repeat('  ', depth) || command_line AS command, exit_code FROM below ORDER BY path;

-- Programs that a host has run since a time, and never before in these files:
-- SELECT * FROM first_seen(now() - INTERVAL 1 DAY);
CREATE OR REPLACE MACRO first_seen(since) AS TABLE
SELECT *
FROM (
    SELECT
        host, executable, min(time) AS first, count(*) AS times, arg_min(user, time) AS user,
        arg_min(command_line, time) AS command_line
    FROM events
    WHERE action IN ('exec', 'executed', 'already_running')
    GROUP BY host, executable
)
WHERE first >= since
ORDER BY first;
