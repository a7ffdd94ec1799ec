"""Guests: what users bring, from outside the packages."""
