"""The database: an index over run folders, of one home or of many, that can be thrown away and rebuilt.

SQLite in WAL mode by default, PostgreSQL by `MELETE_DATABASE`. The folders are the truth: nothing is kept here that
does not stand in one of them.
"""
