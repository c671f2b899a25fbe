"""Small programs, defects seeded into them, and the real tools that find these: what two scenarios are made of.

`texts/<name>.yaml` is a program with its examples, `library.py` reads it, `defects.py` changes it, `checks.py` runs
ruff and pytest on it, `catalogue.py` keeps the changes that these tools find.
"""
