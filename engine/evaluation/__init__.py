"""From a table of scores to numbers; pure functions without torch."""
