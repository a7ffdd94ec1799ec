"""The levers a collective has where the provider does retrain on users' records: strategies, bounds, platforms."""
