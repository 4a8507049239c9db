"""The front door: `config` says what Envoy does, `door` runs it, `counters` reads what it did."""

from deployctl.adapters.envoy.config import DoorSpec
from deployctl.adapters.envoy.counters import DoorCounters, parse_counters
from deployctl.adapters.envoy.door import EnvoyDoor, port_taken_error

__all__ = ["DoorCounters", "DoorSpec", "EnvoyDoor", "parse_counters", "port_taken_error"]
