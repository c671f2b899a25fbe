"""Rule types of a guard: one file each, whose name is the type."""
