//! A client process of the demo: it reads lines, does what they say with libmem, and answers.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::token::{Narrow, Token, attenuate};
use caps::wire::Reason;
use caps::wire::row::{Lifetime, Target};
use libmem::{Client, Endpoint, LeaseOptions, LeaseRow};

use super::script::{Line, Role};
use super::writer::{Writer, Wrote};

/// Bytes of one guarded read.
const READ_BYTES: usize = 4096;

struct Player {
    client: Client,
    key: SigningKey,
    /// The owner's lease and token, or the receiver's token.
    lease: Option<LeaseRow>,
    token: Option<Token>,
    region: Option<libmem::Region>,
    writer: Option<Writer>,
}

/// Plays a role until its standard input ends.
///
/// # Errors
/// What kept it from beginning. What fails later is answered as a line.
pub fn play(role: Role) -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut next = || -> Option<Line> { serde_json::from_str(&lines.next()?.ok()?).ok() };
    let Some(Line::Begin { socket, seed }) = next() else {
        return Err(Error::new(Code::Protocol, "the demo's clients are started by the demo"));
    };
    let key = crate::identity::key_of_seed(&seed)?;
    let client = Client::connect(&Endpoint::unix(socket), &key)?;
    let mut player = Player { client, key, lease: None, token: None, region: None, writer: None };
    answer(&Line::Ready)?;
    while let Some(line) = next() {
        let said =
            player.act(role, line).unwrap_or_else(|error| Line::Failed { code: error.code().to_string() });
        answer(&said)?;
    }
    Ok(())
}

fn answer(line: &Line) -> Result<()> {
    let text =
        serde_json::to_string(line).map_err(|_| Error::new(Code::Internal, "a line does not encode"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|_| Error::new(Code::Unreachable, "the demo is gone"))
}

/// The token's text, wiped when dropped by the caller's string handling; it goes through a pipe only.
fn text_of(token: &Token) -> String {
    token.to_text().to_string()
}

impl Player {
    fn act(&mut self, role: Role, line: Line) -> Result<Line> {
        match (role, line) {
            (Role::Owner | Role::Writer, Line::Lease { bytes }) => self.lease(bytes),
            (Role::Owner, Line::Narrow) => self.narrow(),
            (Role::Owner, Line::Offer { to }) => self.offer(to, Rights::READ),
            (Role::Writer, Line::OfferToWrite { to }) => self.offer(to, Rights::READ_WRITE),
            (Role::Owner, Line::Fill) => self.fill(),
            (Role::Owner | Role::Writer, Line::Revoke { lease }) => self.revoke(Target::Lease(lease)),
            (Role::Writer, Line::RevokeGrant { grant }) => self.revoke(Target::Grant(grant)),
            (Role::Receiver | Role::Writer, Line::Accept { grant }) => {
                let proposal = self.client.share_show(grant)?;
                let accepted = self.client.share_accept(&proposal.contract, Lifetime::Process, &self.key)?;
                let token = text_of(&accepted.token);
                self.token = Some(accepted.token);
                Ok(Line::Accepted { token })
            }
            (Role::Receiver, Line::Check) => self.check(),
            (Role::Receiver, Line::ReadUntilRevoked) => self.read_until_revoked(),
            (Role::RawReader, Line::Touch { token }) => self.touch(&token),
            (Role::Writer, Line::Write { part }) => {
                let token = self.token.as_ref().ok_or_else(out_of_order)?;
                let region = self.client.open_mapped(token, Rights::READ_WRITE)?;
                self.writer = Some(Writer::start(region, part)?);
                Ok(Line::Started)
            }
            (Role::Writer, Line::AwaitRefusal) => self.wrote(Writer::wait),
            (Role::Writer, Line::StopWriting) => self.wrote(Writer::stop),
            _ => Err(out_of_order()),
        }
    }

    fn offer(&self, to: PrincipalKey, rights: Rights) -> Result<Line> {
        let options = libmem::ShareOptions::new(to, rights);
        let lease = self.lease.as_ref().ok_or_else(out_of_order)?;
        let grant = self.client.share_offer(lease, &options, &self.key)?;
        Ok(Line::Offered { grant: grant.id })
    }

    fn wrote(&mut self, end: impl FnOnce(Writer) -> Result<Wrote>) -> Result<Line> {
        let Wrote { added, found, longest, refused } = end(self.writer.take().ok_or_else(out_of_order)?)?;
        let longest_us = longest.as_micros() as u64; // as below
        let code = refused.map_or("OK".to_owned(), |code| code.to_string());
        Ok(Line::Wrote { added, found, longest_us, code })
    }

    fn lease(&mut self, bytes: u64) -> Result<Line> {
        let started = Instant::now();
        let leased = self.client.lease(LeaseOptions::new(bytes, Duration::from_secs(60)))?;
        let took_us = micros(started);
        let lease = leased.lease.id;
        (self.lease, self.token) = (Some(leased.lease), Some(leased.token));
        Ok(Line::Leased { lease, took_us })
    }

    /// Narrows the owner's token without asking anybody, and tries what is left and what is not.
    fn narrow(&mut self) -> Result<Line> {
        let token = self.token.as_ref().ok_or_else(out_of_order)?;
        let narrow = Narrow {
            rights: Some(Rights::READ),
            range: Some(ByteRange::new(0, READ_BYTES as u64)?),
            ..Narrow::default()
        };
        let narrowed = attenuate(token, &narrow)?;
        let word =
            |result: Result<()>| result.map_or_else(|error| error.code().to_string(), |()| "OK".into());
        let mut page = [0; READ_BYTES];
        let reader = self.client.open_mediated(&narrowed, Rights::READ)?;
        Ok(Line::Narrowed {
            within: word(reader.read_at(0, &mut page)),
            beyond: word(reader.read_at(READ_BYTES as u64, &mut page)),
            write: word(self.client.open_mediated(&narrowed, Rights::READ_WRITE).map(drop)),
        })
    }

    fn fill(&mut self) -> Result<Line> {
        let token = self.token.as_ref().ok_or_else(out_of_order)?;
        let region = self.client.open_mapped(token, Rights::READ_WRITE)?;
        let length = region.facts().range.len();
        let (mut page, mut sum) = ([0u8; READ_BYTES], 0u64);
        for offset in (0..length).step_by(READ_BYTES) {
            for (at, word) in page.chunks_exact_mut(8).enumerate() {
                let value = (offset + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&value.to_le_bytes());
            }
            sum = add(sum, &page);
            region.write_at(offset, &page)?;
        }
        self.region = Some(region);
        Ok(Line::Sum { sum })
    }

    fn check(&mut self) -> Result<Line> {
        let token = self.token.as_ref().ok_or_else(out_of_order)?;
        let region = self.client.open_mapped(token, Rights::READ)?;
        let started = Instant::now();
        let (mut page, mut sum) = ([0u8; READ_BYTES], 0u64);
        for offset in (0..region.facts().range.len()).step_by(READ_BYTES) {
            region.read_at(offset, &mut page)?;
            sum = add(sum, &page);
        }
        self.region = Some(region);
        Ok(Line::Checked { sum, took_us: micros(started) })
    }

    fn read_until_revoked(&mut self) -> Result<Line> {
        let region = self.region.take().ok_or_else(out_of_order)?;
        let (length, mut page) = (region.facts().range.len(), [0u8; READ_BYTES]);
        region.read_at(0, &mut page)?;
        answer(&Line::Started)?;
        for reads in 1.. {
            let offset = reads * READ_BYTES as u64 % length;
            if let Err(error) = region.read_at(offset, &mut page) {
                return Ok(Line::Stopped { reads, code: error.code().to_string() });
            }
        }
        Err(Error::new(Code::Internal, "2^64 reads"))
    }

    /// Reads through plain loads until the kernel ends this process. Reached only if it never does.
    fn touch(&mut self, token: &str) -> Result<Line> {
        let token = Token::parse_text(token)?;
        let region = self.client.open_mapped(&token, Rights::READ)?;
        let view = region.mapping().volatile();
        let (length, started) = (region.facts().range.len(), Instant::now());
        view.load_u64(0)?;
        answer(&Line::Started)?;
        let mut offset = 0;
        while started.elapsed() < Duration::from_secs(20) {
            view.load_u64(offset)?;
            offset = (offset + READ_BYTES) % length as usize;
        }
        Err(Error::new(Code::Internal, "the mapping outlived its revocation"))
    }

    fn revoke(&mut self, target: Target) -> Result<Line> {
        let receipt = self.client.revoke(target, Reason::new("end of the demo")?)?;
        Ok(Line::Revoked {
            dead_us: receipt.body.dead.0,
            wiped_bytes: receipt.body.wiped_bytes,
            mappings_closed: receipt.body.mappings_closed,
            log_index: receipt.body.log_index.unwrap_or_default(),
        })
    }
}

fn add(sum: u64, page: &[u8]) -> u64 {
    page.chunks_exact(8).fold(sum, |sum, word| {
        // Chunks of exactly eight bytes.
        sum.rotate_left(1) ^ u64::from_le_bytes(word.try_into().unwrap_or_default())
    })
}

fn micros(started: Instant) -> u64 {
    started.elapsed().as_micros() as u64 // 584,000 years do not pass
}

const fn out_of_order() -> Error {
    Error::new(Code::Protocol, "the demo's script is out of order")
}
