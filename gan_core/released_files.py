"""Names of the files of a released generator, for who reads them without PyTorch."""

WEIGHTS_FILE = "generator.safetensors"
CONFIG_FILE = "config.json"
