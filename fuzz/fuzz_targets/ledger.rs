#![cfg_attr(fuzzing, no_main)]

minassa_fuzz::target!(admission::fuzz::ledger);
