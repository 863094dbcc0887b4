"""The cost of a step that does nothing: ours, today's and an earlier revision's, beside other ways to chain steps."""
