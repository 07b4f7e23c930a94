//! Values as they are written on a command line. Whatever could be read in two ways is refused.

use std::time::Duration;

use caps::id::{DonationId, GrantId, PrincipalKey, QuarantineId, TransferId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{ShareDigest, TransferDigest};
use caps::time::UnixMicros;
use caps::wire::wrap::WrapId;
use caps::wire::{Name, Reason};

use crate::tokens::LeaseArg;

type Parsed<T> = Result<T, String>;

fn detail(error: caps::Error) -> String {
    error.detail().to_owned()
}

/// The name of an identity or a lease.
pub(crate) fn name(text: &str) -> Parsed<Name> {
    Name::new(text).map_err(detail)
}

/// A size in bytes.
pub(crate) fn size(text: &str) -> Parsed<u64> {
    policy::units::parse_bytes(text).map_err(detail)
}

/// A span of time.
pub(crate) fn span(text: &str) -> Parsed<Duration> {
    policy::units::parse_span(text).map(|span| Duration::from_micros(span.0)).map_err(detail)
}

/// A lease or a token.
pub(crate) fn lease(text: &str) -> Parsed<LeaseArg> {
    LeaseArg::parse(text)
}

/// The id of a grant. `MEM_SHARE:<id>`, as logs and lists write it, is one too.
pub(crate) fn grant(text: &str) -> Parsed<GrantId> {
    GrantId::parse(text.strip_prefix("MEM_SHARE:").unwrap_or(text)).map_err(detail)
}

/// The id of a wrap.
pub(crate) fn wrap(text: &str) -> Parsed<WrapId> {
    WrapId::parse(text).map_err(detail)
}

/// The number of something in quarantine.
pub(crate) fn quarantine(text: &str) -> Parsed<QuarantineId> {
    text.parse().map(QuarantineId).map_err(|_| "a number as `leasehold quarantine list` shows it".to_owned())
}

/// The id of a donation of quota.
pub(crate) fn donation(text: &str) -> Parsed<DonationId> {
    DonationId::parse(text).map_err(detail)
}

/// A contract's digest.
pub(crate) fn share_digest(text: &str) -> Parsed<ShareDigest> {
    ShareDigest::parse(text).map_err(detail)
}

/// The id of an offer of a lease.
pub(crate) fn transfer(text: &str) -> Parsed<TransferId> {
    TransferId::parse(text).map_err(detail)
}

/// The digest of the contract of such an offer.
pub(crate) fn transfer_digest(text: &str) -> Parsed<TransferDigest> {
    TransferDigest::parse(text).map_err(detail)
}

/// A root key's id.
pub(crate) fn root(text: &str) -> Parsed<u32> {
    let digits = text.len() == 8 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let id = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
    id.ok_or("8 lowercase hexadecimal digits, as `leasehold root list` shows them".to_owned())
}

/// `r`, `rw`, `rws` and the like.
pub(crate) fn rights(text: &str) -> Parsed<Rights> {
    Rights::parse(text).map_err(detail)
}

/// `A..B`, both sizes: the bytes from A up to, and without, B.
pub(crate) fn range(text: &str) -> Parsed<ByteRange> {
    let (start, end) = text.split_once("..").ok_or("a range is written A..B, as in 0..64KiB")?;
    ByteRange::new(size(start)?, size(end)?).map_err(detail)
}

/// Why something is revoked.
pub(crate) fn reason(text: &str) -> Parsed<Reason> {
    Reason::new(text).map_err(detail)
}

/// A trust domain.
pub(crate) fn domain(text: &str) -> Parsed<transport::Domain> {
    transport::Domain::new(text).map_err(detail)
}

/// A public key.
pub(crate) fn key(text: &str) -> Parsed<PrincipalKey> {
    PrincipalKey::parse(text).map_err(detail)
}

/// A point in time: in UTC as in `2026-11-21T20:30:00Z`, or from now on as in `+5m`.
pub(crate) fn time(text: &str) -> Parsed<When> {
    if let Some(later) = text.strip_prefix('+') {
        return span(later).map(When::In);
    }
    // Logs write microseconds, which nobody wants to type.
    let whole =
        text.strip_suffix('Z').filter(|_| text.len() == 20).map(|seconds| format!("{seconds}.000000Z"));
    let time = audit::text::parse_time(whole.as_deref().unwrap_or(text));
    time.map(When::At)
        .ok_or_else(|| "a time is written 2026-11-21T20:30:00Z, in UTC, or +5m from now".to_owned())
}

/// A point in time as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// This one.
    At(UnixMicros),
    /// So long from now.
    In(Duration),
}

/// A principal: its name, or its key as 64 hexadecimal digits. Which one is found out later.
pub(crate) fn principal(text: &str) -> Parsed<String> {
    match PrincipalKey::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => name(text).map(Into::into),
    }
}

/// `HOST:PORT`: a name or an address, an IPv6 address in brackets, and where somebody listens.
pub(crate) fn address(text: &str) -> Parsed<String> {
    let wrong = || "an address is written HOST:PORT, as in node.example:7171 or [::1]:7171".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    match host.strip_prefix('[') {
        Some(rest) => {
            let inside = rest.strip_suffix(']').ok_or_else(wrong)?;
            inside.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        }
        None => {
            let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(inside) {
                return Err(wrong());
            }
        }
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match port.parse::<u16>() {
        Ok(0) => Err("nobody listens at port 0; name the port that the node printed".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// Longest name of a host, as the DNS has it.
const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port_where_somebody_may_listen() {
        for good in ["localhost:1", "10.0.0.1:65535", "node-1.example:7171", "[::1]:7171", "[fe80::1]:1"] {
            assert_eq!(address(good).unwrap(), good);
        }
        let bad = [
            "",
            ":",
            "host",
            "host:",
            ":7171",
            "host:0",
            "host:00000",
            "host:65536",
            "host:+1",
            "host:-1",
            "host: 1",
            "ho st:1",
            "host/x:1",
            "tls://host:1",
            "::1:7171",
            "[::1]",
            "[::1",
            "[::1]7171",
            "[host]:1",
            "[]:1",
            "h\u{e4}:1",
        ];
        for bad in bad.into_iter().chain([&*format!("{}:1", "h".repeat(254))]) {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_have_one_reading() {
        assert_eq!(range("4KiB..1MiB").unwrap(), ByteRange::new(4096, 1 << 20).unwrap());
        let bad = ["", "..", "0..", "..4", "4..4", "5..4", "0...4", "0-4", "0..1KB", "-1..4"];
        for bad in bad.into_iter().chain(["0..18446744073709551616", "0..9223372036854775808"]) {
            assert!(range(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn grants_and_principals_come_in_two_forms() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(grant(id).unwrap(), grant(&format!("MEM_SHARE:{id}")).unwrap());
        assert!(grant(&id.to_uppercase()).is_err());
        let key = "ab".repeat(32);
        assert_eq!(principal(&key).unwrap(), key);
        assert_eq!(principal("bob").unwrap(), "bob");
        assert!(principal("bo b").is_err());
    }

    #[test]
    fn times_are_in_utc_or_from_now() {
        assert_eq!(time("1970-01-01T00:00:01Z").unwrap(), When::At(UnixMicros(1_000_000)));
        assert_eq!(time("1970-01-01T00:00:01.500000Z").unwrap(), When::At(UnixMicros(1_500_000)));
        assert_eq!(time("+5m").unwrap(), When::In(Duration::from_secs(300)));
        for bad in
            ["", "+", "5m", "now", "2026-11-21", "2026-11-21T20:30:00", "2026-13-21T20:30:00Z", "1700000000"]
        {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn e7_spans_and_sizes_need_their_units() {
        assert_eq!(span("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(size("64MiB").unwrap(), 64 << 20);
        for bad in ["10", "-1s", "1d", "1.5s", "ten"] {
            assert!(span(bad).is_err(), "{bad:?}");
        }
        for bad in ["64MB", "64k", "-1", "1 KiB", "01"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
