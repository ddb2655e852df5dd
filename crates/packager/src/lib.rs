//! Encoded frames to parts and segments, with the chain of hashes and its signatures.
//!
//! Frames come from `programme`, 480 ms of them at a time in three renditions; parts go to the recorder (`archive`)
//! and to the bus. A part is made here once, and nobody changes its bytes afterwards. Every eight parts a record per
//! rendition is signed; [`chain`] says what of, [`verify`] checks it, with nothing but public bytes.
//!
//! This crate reads no clock, no disk and no randomness; Ed25519 signatures are deterministic, so the same input
//! makes the same bytes. It does not know whether anybody listens, or whether the recorder keeps up.

pub mod chain;
mod pack;
mod silence;

#[doc(hidden)]
pub mod fuzz;
pub mod verify;

pub use pack::{ClosingRecords, Opening, PackError, Packager, PartFrames, Resume, TailPart};
pub use silence::SilentFrames;

use model::{ChainRecord, Part, Rendition};

/// The record of the segment before that a part carries for one rendition, if it is the first part of a segment (or
/// of an epoch that found a whole segment unsigned).
///
/// CMAF parts have it inside as well; for MP3 this is the only place, and the edge copies it to ID3.
pub fn segment_record_for(part: &Part, rendition: Rendition) -> Option<&ChainRecord> {
    part.records.iter().find(|record| {
        matches!(chain::parse(record), Ok(chain::Record::Segment(segment)) if segment.rendition == rendition)
    })
}

/// All records of a part that concern one rendition, in the order of the chain: an epoch's, then a segment's.
pub fn records_for(part: &Part, rendition: Rendition) -> impl Iterator<Item = &ChainRecord> {
    part.records.iter().filter(move |record| match chain::parse(record) {
        Ok(chain::Record::Segment(segment)) => segment.rendition == rendition,
        Ok(chain::Record::Epoch(_) | chain::Record::Closing(_)) => true,
        Ok(chain::Record::Absent(_)) | Err(_) => false,
    })
}
