#![cfg_attr(fuzzing, no_main)]

minassa_fuzz::target!(backend::tls::fuzz::hello);
