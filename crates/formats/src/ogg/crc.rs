/// CRC-32 of Ogg pages (RFC 3533 section 6): polynomial 0x04c11db7, most significant bit first, beginning with 0, not
/// inverted. No crate at hand computes this variant.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = value << 1 ^ if value >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// Continues a checksum over more bytes; begin with 0.
pub(super) fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| crc << 8 ^ TABLE[(crc >> 24) as usize ^ usize::from(byte)])
}

#[cfg(test)]
mod tests {
    /// The catalogued check value of the CRC-32/MPEG-2 polynomial with initial value 0.
    #[test]
    fn a_known_checksum() {
        assert_eq!(super::update(0, b"123456789"), 0x89a1_897f);
    }
}
