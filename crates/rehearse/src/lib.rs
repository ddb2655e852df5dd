//! Real clients of our own: WebRTC speakers and listeners, for the demonstration, tests and later rehearsals.
