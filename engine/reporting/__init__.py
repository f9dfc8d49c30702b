"""From numbers to pages and plots."""
