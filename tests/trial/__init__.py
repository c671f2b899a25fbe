"""A system of tiny processes, on which the tests of runs, jobs and the command line act.

It lives outside the package: `tests/conftest.py` and `tests/melete_trial.py` add this folder's parent to
`melete.__path__`, along which processes are found.
"""
