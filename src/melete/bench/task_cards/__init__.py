"""The task cards that ship with Melete, one YAML file each."""
