"""The command line: a module for each command, with its arguments and main().

May import every other folder.
"""
