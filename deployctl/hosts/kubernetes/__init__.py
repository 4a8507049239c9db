"""A service on Kubernetes behind the Target port, with `apply` as its writer. Nothing of ours runs in the cluster."""
