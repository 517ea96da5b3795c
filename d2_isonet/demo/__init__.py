"""A detector on images, videos, a webcam, and a page in the browser.

May import engine and below.
"""
