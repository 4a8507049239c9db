"""What a platform is made of. Each component names the cloud-neutral promise; `infra/clouds/NAME` keeps it with that cloud's resources."""
