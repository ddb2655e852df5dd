//! The window of parts and the cursors of listeners: pure bookkeeping of the fan-out.
