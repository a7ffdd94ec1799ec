"""Exact tests, bounds and stopping rules, as pure functions of counts of right answers."""
