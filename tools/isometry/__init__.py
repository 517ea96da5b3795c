"""How isometric a network is: networks of several kinds, and the report on one."""
