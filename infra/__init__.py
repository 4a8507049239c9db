"""What Pulumi runs: a program over `core.manifests`. It decides nothing; deployctl does."""
