"""The tables of jobs.db, as the list of steps that made them what they are.

A database's user_version is the number of steps it has been through. A step, once released, is never
edited: a new one is appended. `record` is an encoded jobworker.v1.JobRecord and the truth; the columns
beside it repeat what is searched for. Times are nanoseconds since 1970 UTC.
"""

from __future__ import annotations

APPLICATION_ID = 0x4A4F4257  # "JOBW", at byte 68 of the file: tells our database from any other

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            id TEXT NOT NULL PRIMARY KEY,
            owner TEXT NOT NULL,
            name TEXT NOT NULL,
            state INTEGER NOT NULL,
            created_unix_nano INTEGER NOT NULL,
            request_id TEXT,                    -- NULL where the caller gave none
            record BLOB NOT NULL
        )""",
        "CREATE UNIQUE INDEX jobs_request ON jobs (owner, request_id) WHERE request_id IS NOT NULL",
        "CREATE INDEX jobs_newest ON jobs (created_unix_nano, id)",
        "CREATE INDEX jobs_owner ON jobs (owner, created_unix_nano, id)",
        "CREATE INDEX jobs_name ON jobs (name, created_unix_nano, id) WHERE name <> ''",
        "CREATE INDEX jobs_unfinished ON jobs (created_unix_nano, id) WHERE state <> 4",
        """CREATE TABLE labels (
            job_id TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (job_id, key)
        ) WITHOUT ROWID""",
        "CREATE INDEX labels_value ON labels (key, value, job_id)",
        """CREATE TABLE clients (
            client_id TEXT NOT NULL PRIMARY KEY,
            role INTEGER NOT NULL,
            key_sha256 BLOB NOT NULL UNIQUE,
            unix_user TEXT,
            uid INTEGER NOT NULL UNIQUE,        -- given once; rows are never deleted, so never given again
            registered_unix_nano INTEGER NOT NULL,
            revoked_unix_nano INTEGER
        ) WITHOUT ROWID""",
        """CREATE TABLE audit (
            id INTEGER PRIMARY KEY,
            unix_nano INTEGER NOT NULL,
            client TEXT NOT NULL,
            verb TEXT NOT NULL,
            job TEXT NOT NULL,
            peer TEXT NOT NULL,
            decision TEXT NOT NULL,
            result TEXT NOT NULL
        )""",
        """CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
           BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END""",
        """CREATE TRIGGER audit_is_not_erased BEFORE DELETE ON audit
           BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END""",
    ),
    (  # what retention needs: jobs in the order in which they ended, and what they take on the disk
        "ALTER TABLE jobs ADD COLUMN ended_unix_nano INTEGER",  # NULL while the job has not ended
        "ALTER TABLE jobs ADD COLUMN output_bytes INTEGER",  # NULL while nobody has looked
        "UPDATE jobs SET ended_unix_nano = created_unix_nano WHERE state = 4",
        """CREATE INDEX jobs_ended ON jobs (ended_unix_nano, id, output_bytes)
           WHERE ended_unix_nano IS NOT NULL""",
    ),
)
