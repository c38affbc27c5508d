-- All SQL of the event queue, in named blocks. Times are seconds of CLOCK_BOOTTIME in the boot that
-- the table `boot` names; `accepted_wall` is in seconds since 1970, and outlives a boot.

-- name: migration 1
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL,
    function TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    client_context TEXT,
    identity TEXT,
    trace_id TEXT,
    arn TEXT,
    accepted_wall REAL NOT NULL,
    accepted REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    is_running INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL,
    target TEXT NOT NULL,
    document TEXT NOT NULL,
    why TEXT NOT NULL,
    written_wall REAL NOT NULL
) STRICT;
CREATE TABLE boot (id TEXT NOT NULL) STRICT;
INSERT INTO boot VALUES ('');

-- name: boot
SELECT id FROM boot;

-- name: write boot
UPDATE boot SET id = ?;

-- name: move to this boot
UPDATE events SET due = :now, accepted = :now - max(0.0, :wall - accepted_wall);

-- name: end the last life
UPDATE events SET is_running = 0, crashes = crashes + 1, due = :now + (1 << min(crashes, 8))
WHERE is_running;

-- name: all
SELECT number, function, due FROM events ORDER BY number;

-- name: add
INSERT INTO events (request_id, function, qualifier, client_context, identity, trace_id, arn,
    payload, checksum, accepted_wall, accepted, due, is_running)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: claim
UPDATE events SET is_running = 1 WHERE number = ?
RETURNING request_id, function, qualifier, client_context, identity, trace_id, arn,
    payload, checksum, accepted, attempts, refusals, crashes;

-- name: put back
UPDATE events SET is_running = 0, due = ?, attempts = ?, refusals = ? WHERE number = ?;

-- name: remove
DELETE FROM events WHERE number = ?;

-- name: write record
INSERT INTO records (request_id, target, document, why, written_wall) VALUES (?, ?, ?, ?, ?);

-- name: drop old records
DELETE FROM records WHERE number <= (SELECT max(number) FROM records) - ?;

-- name: records
SELECT request_id, target, document, why, written_wall FROM records ORDER BY number;

-- name: pending
-- When the next waiting event is due: by the boot's clock, and by the calendar.
SELECT function, sum(not is_running), sum(is_running), sum(attempts > 0),
    ifnull(min(iif(is_running, NULL, due)), 0.0),
    ifnull(min(iif(is_running, NULL, accepted_wall + due - accepted)), 0.0)
FROM events GROUP BY function ORDER BY function;

-- name: recover
-- The limit ends the search at the last row: the next page may be the damaged one.
SELECT * FROM events WHERE number BETWEEN ?1 AND ?2 LIMIT 1 + ?2 - ?1;

-- name: recovered
INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
