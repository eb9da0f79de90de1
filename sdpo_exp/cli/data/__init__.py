"""Making and checking data: bad rows, sampled pairs, the embedded base model."""
