-- All SQL of the registry, in named blocks.

-- name: migration 1
CREATE TABLE IF NOT EXISTS functions (
    name TEXT PRIMARY KEY,
    document TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS usage (
    month TEXT NOT NULL,
    function TEXT NOT NULL,
    memory_size_mb INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    billed_ms_2018 INTEGER NOT NULL,
    billed_ms_2020 INTEGER NOT NULL,
    billed_ms_2025 INTEGER NOT NULL,
    PRIMARY KEY (month, function, memory_size_mb)
) STRICT, WITHOUT ROWID;

-- name: migration 2
CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    part TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (kind, name, part)
) STRICT, WITHOUT ROWID;
INSERT INTO resources SELECT 'function', name, '$LATEST', document FROM functions;
DROP TABLE functions;

-- name: resources
SELECT kind, name, part, document FROM resources ORDER BY kind, name, part;

-- name: put_resource
INSERT INTO resources VALUES (?, ?, ?, ?)
ON CONFLICT (kind, name, part) DO UPDATE SET document = excluded.document;

-- name: delete_resource
DELETE FROM resources WHERE kind = ? AND name = ? AND part = ?;

-- name: add_usage
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (month, function, memory_size_mb) DO UPDATE SET
    requests = requests + excluded.requests,
    billed_ms_2018 = billed_ms_2018 + excluded.billed_ms_2018,
    billed_ms_2020 = billed_ms_2020 + excluded.billed_ms_2020,
    billed_ms_2025 = billed_ms_2025 + excluded.billed_ms_2025;

-- name: usage
SELECT month, function, memory_size_mb, requests, billed_ms_2018, billed_ms_2020, billed_ms_2025
FROM usage ORDER BY month, function, memory_size_mb;
