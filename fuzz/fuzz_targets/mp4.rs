#![cfg_attr(fuzzing, no_main)]

minassa_fuzz::target!(formats::fuzz::mp4);
