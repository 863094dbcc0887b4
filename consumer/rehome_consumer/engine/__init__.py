"""The engine that every delivery goes through: `engine` first, then `inbound`, `decide`, `tries`, `settle`."""
