-- All SQL of the registry, in named blocks.

-- name: schema
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

-- name: functions
SELECT document FROM functions ORDER BY name;

-- name: put_function
INSERT INTO functions (name, document) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET document = excluded.document;

-- name: delete_function
DELETE FROM functions WHERE name = ?;

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
