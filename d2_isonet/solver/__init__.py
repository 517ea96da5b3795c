"""Parameter groups of the optimizer, and schedules. May import modeling and below."""
