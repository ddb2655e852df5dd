//! Entry points for fuzzing: plain functions that must not panic, whatever they are given.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use model::{ChainRecord, EventSlug, PartNumber, Rendition};

use crate::chain::{self, Record};
use crate::verify::{FoundPart, verify};

/// Chain records, as they come from other processes and in files.
pub fn chain(data: &[u8]) {
    if let Ok(record) = Record::parse(data) {
        assert_eq!(record.to_chain_record().0, data, "a record has one form only");
        let event: EventSlug = "fuzz".parse().expect("a slug");
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let parts = [0, 1, 8].map(|number| FoundPart::hash(PartNumber::new(number), b"part"));
        let records = [ChainRecord(Bytes::copy_from_slice(data)), record.to_chain_record()];
        for rendition in Rendition::ALL {
            let report = verify(&event, rendition, &key, &parts, &records);
            assert!(!report.complete(), "nobody signed this");
        }
    }
    if let Some(record) = chain::from_detached_box(data) {
        assert_eq!(chain::detached_box(&record), data, "a box has one form only");
    }
    let _ = FoundPart::read_cmaf(data);
}
