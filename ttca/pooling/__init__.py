"""Pooled queries: the ledger, the quotas and the pool itself."""
