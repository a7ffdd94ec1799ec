"""The report: one HTML file that an auditor can check and a newcomer can read, made from an action's results."""

from __future__ import annotations

from ttca.report.html import Contents, write_nothing, write_report

__all__ = ["Contents", "write_nothing", "write_report"]
