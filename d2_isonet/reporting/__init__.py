"""Pages, tables and figures of runs, data sets and networks. May import engine and below."""
