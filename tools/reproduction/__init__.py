"""The tables of the papers as cells (one network, one seed) that are run once and kept."""
