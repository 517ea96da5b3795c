"""The tables of the papers as cells (one network, one seed), each run once and stored."""
