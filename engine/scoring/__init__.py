"""From pictures to a table of scores."""
