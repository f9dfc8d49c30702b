"""Configuration, weights, scoring, training, evaluation: what every detector and data set shares."""
