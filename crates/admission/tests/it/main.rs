//! The ledger and the verdict from outside: single situations, and seeded nights in virtual time.

mod ledger;
mod scenario;
mod second;
mod situations;
mod verdicts;
