"""Ids from lists, tables and records."""
