"""Exits with 0 if a URL answers with 200: the health check of our containers, which have no curl."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=4) as answer:
    sys.exit(answer.status != 200)
