"""One file per outside system. Adapters know core types and their own SDK, never each other."""
