"""Reports: outcomes as rows, and rows as CSV or JSON."""

from ._report import Report

__all__ = ["Report"]
