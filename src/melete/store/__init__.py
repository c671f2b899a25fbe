"""The database: sessions with their requests and figures, and an index over run folders, of one home or of many.

SQLite in WAL mode by default, PostgreSQL by `MELETE_DATABASE`. Of runs the folders are the truth, and the index can be
rebuilt from them. Of sessions the database is: requests follow from the events in it, and nothing else holds those for
long.
"""
