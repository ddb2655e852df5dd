//! The side index: one record a part, fixed in size, so that a part is found by its place and the end is found by the
//! file's length.
//!
//! ```text
//! {rendition}.index                              record, 80 bytes, numbers big-endian
//! ┌──────────────┐                                 0  8  number of the part
//! │ header    80 │                                 8  8  offset of its first byte in the rendition's file
//! ├──────────────┤                                16  4  its length
//! │ record 0  80 │                                20  4  CRC32C of its bytes
//! ├──────────────┤                                24 32  SHA-256 of its bytes
//! │ record 1  80 │                                56  4  epoch
//! ├──────────────┤                                60  4  length of chain.log with the records that came with it
//! │ …            │                                64  8  bytes of it and all before it as Ogg pages; 0 for MP3
//!                                                 72  1  kind: 0 slate, 1 live, 2 hold, 3 gap
//! header: "minassa index 1\n", rendition (1),     73  3  zero
//! zeros, CRC32C of the 76 bytes before            76  4  CRC32C of the 76 bytes before
//! ```
//!
//! Numbers ascend; one that is missing was lost. Parts lie in the file without anything between them. Records are
//! written after the bytes they describe, so whoever reads one finds them; and a record that is torn or being written
//! fails its own checksum and ends the index for now.

use model::{Digest, Epoch, Part, PartKind, PartNumber, Rendition};
use packager::chain;

/// Bytes of a record, and of the header.
pub(crate) const RECORD_LEN: usize = 80;
const MAGIC: &[u8; 16] = b"minassa index 1\n";
const CRC_AT: usize = RECORD_LEN - 4;

/// What the index says of one part in one rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its number.
    pub number: PartNumber,
    /// Offset of its first byte in the rendition's file.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
    /// CRC32C of its bytes.
    pub crc: u32,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The incarnation of origin that made it.
    pub epoch: Epoch,
    /// What it carries.
    pub kind: PartKind,
    /// Length of the chain log with the records that came with it.
    pub log_end: u32,
    /// Bytes of this part and all before it in the file as Ogg pages, headers not counted; 0 for MP3.
    pub ogg_end: u64,
}

impl IndexEntry {
    /// Offset after its last byte.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// Whether these are the bytes that were written.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length as usize && crc32c::crc32c(bytes) == self.crc
    }

    /// The entry of a part that is written at `offset`, the chain log then ending at `log_end` and its Ogg pages at
    /// `ogg_end`.
    pub(crate) fn of(part: &Part, rendition: Rendition, offset: u64, log_end: u32, ogg_end: u64) -> Self {
        let payload = part.payload(rendition);
        Self {
            number: part.number,
            offset,
            length: u32::try_from(payload.bytes.len()).expect("a part has far less than 4 GiB"),
            crc: crc32c::crc32c(&payload.bytes),
            digest: payload.digest,
            epoch: part.epoch,
            kind: part.kind,
            log_end,
            ogg_end,
        }
    }

    pub(crate) fn write(&self) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        record[..8].copy_from_slice(&self.number.get().to_be_bytes());
        record[8..16].copy_from_slice(&self.offset.to_be_bytes());
        record[16..20].copy_from_slice(&self.length.to_be_bytes());
        record[20..24].copy_from_slice(&self.crc.to_be_bytes());
        record[24..56].copy_from_slice(&self.digest.0);
        record[56..60].copy_from_slice(&self.epoch.0.to_be_bytes());
        record[60..64].copy_from_slice(&self.log_end.to_be_bytes());
        record[64..72].copy_from_slice(&self.ogg_end.to_be_bytes());
        record[72] = chain::kind_code(self.kind);
        seal(record)
    }

    fn read(record: &[u8; RECORD_LEN]) -> Option<Self> {
        if !is_sealed(record) || record[73..CRC_AT] != [0; 3] {
            return None;
        }
        let u32_at = |at: usize| u32::from_be_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        Some(Self {
            number: PartNumber::new(u64_at(0)),
            offset: u64_at(8),
            length: u32_at(16),
            crc: u32_at(20),
            digest: Digest(record[24..56].try_into().expect("32 bytes")),
            epoch: Epoch(u32_at(56)),
            log_end: u32_at(60),
            ogg_end: u64_at(64),
            kind: chain::kind_of(record[72])?,
        })
    }

    /// Whether this entry can come after `before` (or be the first, of a file whose parts begin at `start`).
    fn follows(&self, before: Option<&Self>, start: u64) -> bool {
        self.offset.checked_add(u64::from(self.length)).is_some()
            && match before {
                None => self.offset == start,
                Some(before) => {
                    self.number > before.number
                        && self.offset == before.end()
                        && self.log_end >= before.log_end
                        && self.ogg_end >= before.ogg_end
                }
            }
    }
}

/// The header of a rendition's index.
pub(crate) fn header(rendition: Rendition) -> [u8; RECORD_LEN] {
    let mut header = [0; RECORD_LEN];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = rendition.index() as u8;
    seal(header)
}

/// Appends the entries that begin `bytes` to `entries`, as far as they are sound and follow. `start` is where the
/// first part of the file begins.
pub(crate) fn read_entries(bytes: &[u8], start: u64, entries: &mut Vec<IndexEntry>) {
    for record in bytes.as_chunks::<RECORD_LEN>().0 {
        match IndexEntry::read(record) {
            Some(entry) if entry.follows(entries.last(), start) => entries.push(entry),
            _ => return,
        }
    }
}

fn seal(mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let crc = crc32c::crc32c(&record[..CRC_AT]);
    record[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    record
}

fn is_sealed(record: &[u8; RECORD_LEN]) -> bool {
    record[CRC_AT..] == crc32c::crc32c(&record[..CRC_AT]).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, offset: u64) -> IndexEntry {
        IndexEntry {
            number: PartNumber::new(number),
            offset,
            length: 100,
            crc: 7,
            digest: Digest([9; 32]),
            epoch: Epoch(3),
            kind: PartKind::Hold,
            log_end: 11,
            ogg_end: 12,
        }
    }

    #[test]
    fn entries_are_read_as_written_until_one_is_not_sound() {
        let entries = [entry(5, 40), entry(6, 140), entry(9, 240)];
        let mut bytes = entries.map(|entry| entry.write()).concat();
        let read = |bytes: &[u8]| {
            let mut read = Vec::new();
            read_entries(bytes, 40, &mut read);
            read
        };
        assert_eq!(read(&bytes), entries);
        assert_eq!(read(&bytes[..239]), entries[..2]);
        for byte in 80..160 {
            bytes[byte] ^= 1;
            assert_eq!(read(&bytes), entries[..1], "byte {byte}");
            bytes[byte] ^= 1;
        }
        // Sound by themselves, but not one after another.
        for wrong in [entry(5, 140), entry(6, 141), IndexEntry { log_end: 1, ..entry(6, 140) }] {
            assert_eq!(read(&[entries[0].write(), wrong.write()].concat()).len(), 1);
        }
        assert_eq!(read(&entry(0, 41).write()), []);
    }
}
