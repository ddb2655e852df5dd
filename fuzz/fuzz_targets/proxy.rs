#![cfg_attr(fuzzing, no_main)]

minassa_fuzz::target!(backend::http::proxy::fuzz);
