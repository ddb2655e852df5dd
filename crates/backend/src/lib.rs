//! What lies outside a process: the bus, the store and the objects, each behind an interface.
