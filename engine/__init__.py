"""Configuration, weights, scoring, training, evaluation: what all detectors share."""
