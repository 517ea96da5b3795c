#!/usr/bin/env python
"""Launcher of documents/command.py."""

import sys

if __name__ == "__main__":
    try:
        from documents.command import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("check_documents: interrupted", file=sys.stderr)
        sys.exit(130)
