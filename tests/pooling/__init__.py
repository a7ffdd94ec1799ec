"""Tests of the ledger, the quotas and the pool."""
