//! A packet, as far as a wire that fails looks into it: IPv4, TCP, UDP (RFC 791, 9293, 768).

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const RESET_AND_ACK: u8 = 0x14;

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Packet(pub Vec<u8>);

impl Packet {
    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// Bytes of the IP header; `None` for what is no IPv4.
    fn header(&self) -> Option<usize> {
        let first = *self.0.first()?;
        (first >> 4 == 4).then_some(usize::from(first & 15) * 4)
    }

    /// Source and destination port, and how many bytes are behind the header, of TCP and UDP.
    pub fn payload(&self) -> Option<((u16, u16), usize)> {
        let header = self.header()?;
        let ports = (self.u16_at(header)?, self.u16_at(header + 2)?);
        let behind = match *self.0.get(9)? {
            TCP => usize::from(self.0.get(header + 12)? >> 4) * 4,
            UDP => UDP_HEADER,
            _ => return None,
        };
        let whole = usize::from(self.u16_at(2)?);
        Some((ports, whole.checked_sub(header + behind)?))
    }

    /// Makes of a TCP segment one that resets the connection where its bytes would have begun; says whether it is one.
    pub fn make_reset(&mut self) -> bool {
        let Some(header) = self.header() else { return false };
        if self.0.get(9) != Some(&TCP) || self.0.len() < header + TCP_HEADER {
            return false;
        }
        self.0.truncate(header + TCP_HEADER);
        let whole = self.0.len() as u16; // two headers
        self.0[2..4].copy_from_slice(&whole.to_be_bytes());
        self.0[header + 12] = (TCP_HEADER as u8 / 4) << 4;
        self.0[header + 13] = RESET_AND_ACK;
        self.0[10..12].fill(0);
        let sum = checksum(self.0[..header].iter().copied());
        self.0[10..12].copy_from_slice(&sum.to_be_bytes());
        self.0[header + 16..header + 18].fill(0);
        // Addresses, protocol and length stand before the segment, for the sum alone.
        let pseudo: Vec<u8> = self.0[12..20].iter().copied().chain([0, TCP, 0, TCP_HEADER as u8]).collect();
        let sum = checksum(pseudo.into_iter().chain(self.0[header..].iter().copied()));
        self.0[header + 16..header + 18].copy_from_slice(&sum.to_be_bytes());
        true
    }
}

/// The Internet's checksum of an even number of bytes.
fn checksum(bytes: impl IntoIterator<Item = u8>) -> u16 {
    let mut bytes = bytes.into_iter();
    let mut sum = 0_u32;
    while let Some(high) = bytes.next() {
        sum += u32::from(u16::from_be_bytes([high, bytes.next().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
