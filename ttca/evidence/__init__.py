"""Evidence: what an action found, in one bundle that anybody can check without ttca."""
