"""Schemas, documents, compatibility and a mock: made from the catalog."""
