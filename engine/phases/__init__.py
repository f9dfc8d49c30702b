"""One story each: test, eval, compare, train."""
