"""Adapters that read the rows of a public dataset as conversations; each file has `reader(locate) -> Converse`."""
