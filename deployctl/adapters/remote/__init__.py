"""The store that machines share: what enters is an ObjectStore, what leaves are its blobs, bundles, records and leases.

The order of writes makes a kill harmless: blobs, then the manifest that names them; the record, then the pointer to it. A
record is created once and never changed, so of two writers one wins. Refuses to know which store it is and what releases mean.
"""

from deployctl.adapters.remote.shared import Remote

__all__ = ["Remote"]
