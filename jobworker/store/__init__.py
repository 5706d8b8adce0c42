"""All that outlives the worker's processes and is not a job's own file: job records, clients, audit.

SQLite, and nothing else; the only package that imports sqlite3.
"""

from jobworker.store.audit import AuditStore
from jobworker.store.clients import ClientStore
from jobworker.store.database import WAL_NAME, Database
from jobworker.store.jobrecords import JobStore

__all__ = ["WAL_NAME", "AuditStore", "ClientStore", "Database", "JobStore"]
