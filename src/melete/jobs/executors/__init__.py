"""Executors, one file each: how a worker carries out a process of a job.

An executor's file holds `problem(settings)`, why it cannot be used here (None if it can), and `command(claim, child)`,
which makes of a child's command line the one that the worker starts, with further environment variables. The process
started so must live as long as the child and end when it is killed. `FORKS = True` says that the command
is the child's own, so that the worker may fork it. A file may also hold `carry_out(step)`: what the child calls in
place of the process's own `main`.
"""
