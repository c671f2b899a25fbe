"""A run: one execution of one process, kept in its own folder, which is the truth about it.

`process.ProcessConfig` is what a process's config class extends, `run.Run` is what its `main(config, run)` is given.
"""
