//! The pages, plain modules without a build step, compiled into the binary.
