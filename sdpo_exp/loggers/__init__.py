"""Where metrics go beyond `metrics.csv`."""
