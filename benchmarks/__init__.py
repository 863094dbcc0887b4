"""Measurements on real parts: what a move costs, where the time goes, and what the engine adds."""
