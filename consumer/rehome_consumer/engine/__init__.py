"""The engine that every delivery goes through: `run` first, then `standing`, `verdict`, `relay`."""
