//! The role that listeners meet: the push door and the files door around the fan-out.
