"""The report of how isometric a network is. May import the rest of reporting and below."""
