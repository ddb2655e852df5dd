//! Parts as HLS wants them: joined to segments, and of MP3 with the tag that tells their time.

use bytes::{Bytes, BytesMut};
use formats::mp3;
use model::{Part, Rendition};

/// Owner of the `PRIV` frame that carries a chain record in the ID3 tag of an MP3 segment.
const CHAIN_OWNER: &str = "urn:minassa:chain:1";

/// Parts in a row, of which `first` is the first; before MP3 an ID3 tag with the time, and the record that signs the
/// segment before (CMAF parts carry theirs inside). The tag follows from the first part alone, so that all edges make
/// the same at any time.
pub(crate) fn join(rendition: Rendition, first: &Part, parts: &[Bytes]) -> Bytes {
    join_several(rendition, &[first], parts)
}

/// Segments in a row, whose first parts and whose parts these are. Of MP3 it has one tag at the beginning, with the time
/// of the first and the records of all: in the middle of a file a tag is in the way of decoders.
pub(crate) fn join_several(rendition: Rendition, firsts: &[&Part], parts: &[Bytes]) -> Bytes {
    if let ([part], true) = (parts, rendition.is_cmaf()) {
        return part.clone();
    }
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(length + 512 * firsts.len());
    if let (Some(first), false) = (firsts.first(), rendition.is_cmaf()) {
        let records: Vec<_> =
            firsts.iter().filter_map(|first| packager::segment_record_for(first, rendition)).collect();
        let private: Vec<(&str, &[u8])> = records.iter().map(|record| (CHAIN_OWNER, &record.0[..])).collect();
        bytes.extend_from_slice(&mp3::id3_timestamp(first.number.start(), &private));
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}
