"""What tools/check_documents.py checks in the markdown files, one kind of promise a module."""
