"""GPU targets, one file each: `target(accelerators)` returns how to reach it."""
