//! The role that keeps events: the API, the store, the pages for listeners, tickets, status and metrics.
