#![cfg_attr(fuzzing, no_main)]

minassa_fuzz::target!(edge::fuzz::tls_session);
