"""The harness profiles that ship with Melete, one YAML file each."""
