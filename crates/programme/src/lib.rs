//! The programme as a state machine: jitter buffers, mix and mix-minus, loudness, slate, encoders.
