"""The demo: a platform that serves one group badly, and a collective that acts on it, all on this machine."""
