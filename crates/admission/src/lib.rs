//! Who may listen, as plain functions: tickets today, the ladder and the waiting room later.
