//! Encoded frames to parts and segments, with the chain of hashes and its signatures.
