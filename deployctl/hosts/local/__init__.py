"""A service on this machine: real tritonserver replicas behind Envoy, kept by one supervisor process.

`up`, `scale` and `rollback` only append a release; the supervisor alone acts. If it dies, the front door and the replicas go on,
and the next one adopts them.
"""
