//! The show as a state machine: doors, live, hold, ended; seats, green room, mute, standby sources.
