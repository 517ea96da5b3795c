"""The report of training runs. May import the rest of reporting and below."""
