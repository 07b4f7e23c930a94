//! The frame that is coming: its header as soon as that is here, its body as it comes.

use caps::error::Error;
use caps::wire::remote::answer::{pieces_bytes, pieces_of};
use caps::wire::remote::header::{BODY_BYTES_MAX, HEADER_BYTES};
use caps::wire::remote::{Header, Piece};

use super::failure::Failure;
use super::tls::Tls;

/// A frame under way. It survives that the bytes end in the middle of it.
pub(super) struct Incoming {
    head: [u8; HEADER_BYTES],
    /// How many bytes of the header are here; once all are, how many of the body.
    here: usize,
    header: Option<Header>,
    body: Box<[u8]>,
    /// Which piece of a gather's answer is coming, and how many bytes of it are here.
    piece: (usize, usize),
}

/// Where the pieces of a gather's answer belong.
pub(super) trait Places {
    /// Where the bytes of the piece that is next belong: as many as it says.
    ///
    /// # Errors
    /// If it cannot be the next.
    fn room(&mut self, piece: &Piece) -> Result<&mut [u8], Error>;

    /// They are there.
    ///
    /// # Errors
    /// If it cannot be the next.
    fn placed(&mut self, piece: &Piece) -> Result<(), Error>;
}

const CUT: &str = "the node ended the connection in the middle of a frame";

impl Incoming {
    pub(super) fn new() -> Self {
        let body = vec![0; BODY_BYTES_MAX].into_boxed_slice();
        Self { head: [0; HEADER_BYTES], here: 0, header: None, body, piece: (0, 0) }
    }

    /// The header, if it is here. It is the one that [`Self::judged`] was told of, or it is a new one: `true`.
    pub(super) fn header(&mut self, tls: &mut Tls) -> Result<Option<(Header, bool)>, Failure> {
        if let Some(header) = self.header {
            return Ok(Some((header, false)));
        }
        while self.here < HEADER_BYTES {
            match tls.read(&mut self.head[self.here..]) {
                Ok(Some(count)) => self.here += count,
                Ok(None) => return Ok(None),
                // Between two frames a node may go.
                Err(Failure::Ended) if self.here > 0 => return Err(Failure::lied(CUT)),
                Err(failure) => return Err(failure),
            }
        }
        Header::decode(&self.head).map(|header| Some((header, true))).map_err(Failure::Lied)
    }

    /// The header may be what it is: its body is to come.
    pub(super) fn judged(&mut self, header: Header) {
        self.header = Some(header);
        (self.here, self.piece) = (0, (0, 0));
    }

    /// Reads as much of the body as is here into `place`, or into a buffer of its own. `true`: all of it is there.
    pub(super) fn fill(&mut self, tls: &mut Tls, place: Option<&mut [u8]>) -> Result<bool, Failure> {
        let length = self.header.map_or(0, |header| header.body as usize);
        let place = match place {
            Some(place) => place,
            None => &mut self.body[..length],
        };
        while self.here < length {
            match tls.read(&mut place[self.here..length]) {
                Ok(Some(count)) => self.here += count,
                Ok(None) => return Ok(false),
                Err(Failure::Ended) => return Err(Failure::lied(CUT)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Reads as much of the body of a gather's answer as is here, each piece straight to its place. `true`: all are there,
    /// and the next frame comes after it.
    pub(super) fn deal(&mut self, tls: &mut Tls, places: &mut dyn Places) -> Result<bool, Failure> {
        let Some(header) = self.header else { return Ok(false) };
        let head = pieces_bytes(&header).map_err(Failure::Lied)?;
        let length = header.body as usize;
        let Some(data) = length.checked_sub(head) else {
            return Err(Failure::lied("the pieces of a gather are more than its frame"));
        };
        while self.here < head {
            match tls.read(&mut self.body[self.here..head]) {
                Ok(Some(count)) => self.here += count,
                Ok(None) => return Ok(false),
                Err(Failure::Ended) => return Err(Failure::lied(CUT)),
                Err(failure) => return Err(failure),
            }
        }
        let pieces = pieces_of(&header, &self.body[..head], data).map_err(Failure::Lied)?;
        while let Some(piece) = pieces.get(self.piece.0) {
            let place = places.room(piece).map_err(Failure::Lied)?;
            while let Some(rest) = place.get_mut(self.piece.1..).filter(|rest| !rest.is_empty()) {
                match tls.read(rest) {
                    Ok(Some(count)) => self.piece.1 += count,
                    Ok(None) => return Ok(false),
                    Err(Failure::Ended) => return Err(Failure::lied(CUT)),
                    Err(failure) => return Err(failure),
                }
            }
            places.placed(piece).map_err(Failure::Lied)?;
            self.piece = (self.piece.0 + 1, 0);
        }
        self.header = None;
        self.here = 0;
        Ok(true)
    }

    /// The body that was read into the buffer, and the next frame after it.
    pub(super) fn take(&mut self) -> &[u8] {
        let length = self.header.take().map_or(0, |header| header.body as usize);
        self.here = 0;
        &self.body[..length]
    }
}
