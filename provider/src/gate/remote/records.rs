//! Where the records of TLS end in what has come (RFC 8446, section 5.1).
//!
//! The TLS library keeps a record until it is whole, and says of it neither how long it is nor how much of it there is. The
//! length is in front of each, whether it is encrypted or not.

/// Bytes in front of a record: its type, a version and its length.
const HEADER_BYTES: usize = 5;
/// The type of a record that is of a handshake.
const HANDSHAKE: u8 = 22;
/// The first byte of every version that was ever in use.
const MAJOR: u8 = 3;
/// Longest record: its plaintext and what encryption may add to that.
const BODY_BYTES_MAX: usize = (16 << 10) + 256;

fn body(header: &[u8; HEADER_BYTES]) -> usize {
    usize::from(u16::from_be_bytes([header[3], header[4]]))
}

/// Follows a stream of records.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the record that have come, its header among them. None at the end of one.
    come: usize,
}

impl Records {
    /// These came next.
    pub(super) fn came(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = if self.come < HEADER_BYTES {
                let taken = bytes.len().min(HEADER_BYTES - self.come);
                self.header[self.come..self.come + taken].copy_from_slice(&bytes[..taken]);
                taken
            } else {
                bytes.len().min(HEADER_BYTES + body(&self.header) - self.come)
            };
            self.come += wanted;
            bytes = &bytes[wanted..];
            if self.come >= HEADER_BYTES && self.come == HEADER_BYTES + body(&self.header) {
                self.come = 0;
            }
        }
    }

    /// Bytes that have come of a record whose rest has not.
    pub(super) const fn unfinished(&self) -> usize {
        self.come
    }
}

/// Whether these first bytes of a connection are worth showing to TLS: a whole record of a handshake, in which the
/// ClientHello is, or what can be none and is refused for that.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let is_other = |at: usize, expected: u8| bytes.get(at).is_some_and(|&byte| byte != expected);
    if is_other(0, HANDSHAKE) || is_other(1, MAJOR) {
        return true;
    }
    bytes.first_chunk().is_some_and(|header| {
        let body = body(header);
        body > BODY_BYTES_MAX || bytes.len() >= HEADER_BYTES + body
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: usize) -> Vec<u8> {
        let length = u16::try_from(body).unwrap().to_be_bytes();
        [&[HANDSHAKE, MAJOR, 1, length[0], length[1]][..], &vec![7; body]].concat()
    }

    #[test]
    fn what_is_unfinished_is_told_however_it_comes() {
        let bytes = [record(0), record(300), record(1)].concat();
        let ends = [0, 5, 310, 316];
        for step in 1..=bytes.len() {
            let (mut records, mut come) = (Records::default(), 0);
            for piece in bytes.chunks(step) {
                records.came(piece);
                come += piece.len();
                let begun = ends.into_iter().rfind(|&end| end <= come).unwrap();
                assert_eq!(records.unfinished(), come - begun, "after {come} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_connection_begins_with_a_whole_record_or_what_is_none() {
        let hello = record(200);
        assert!((0..hello.len()).all(|end| !begins(&hello[..end])));
        assert!(begins(&hello));
        assert!(begins(b"G") && begins(&[HANDSHAKE, 2]), "never a record");
        assert!(begins(&[HANDSHAKE, MAJOR, 1, 0xff, 0xff]), "too long for one");
    }
}
