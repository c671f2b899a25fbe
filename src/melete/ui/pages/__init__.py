"""The pages: one file is one page, found by its name."""
