"""The experiments that ship with Melete, one YAML file each."""
