"""The variants that ship with Melete, one YAML file each."""
