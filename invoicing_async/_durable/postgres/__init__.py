"""A run on a PostgreSQL server: the ledger that many machines work on at once.

The only importer of psycopg, and itself imported only by what opens a run, when an address of a server is given.
"""
