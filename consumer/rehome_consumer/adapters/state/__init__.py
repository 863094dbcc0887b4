"""Our own state database: journal, facts, claims, and secrets at rest."""
