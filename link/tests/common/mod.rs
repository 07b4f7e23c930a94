//! A real broker over a log in memory, certificates of a CA made here, a small provider that has real memory, and a wire
//! between them that can be cut.
#![allow(dead_code, unreachable_pub)] // each test target uses a part

pub mod pki;
pub mod raw;
pub mod small;
pub mod wire;
pub mod world;

use std::time::{Duration, Instant};

use caps::id::{PrincipalKey, ProviderId, Seat};
use caps::key::SigningKey;
use caps::wire::Name;
use caps::wire::provider::{Address, Registration};
use link::Timings;

pub const PAGE: u64 = 4096;
/// How long a condition may take that must come true. Only a defect waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The key of actor `n`. 0 is the administrator.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub fn public(n: u8) -> PrincipalKey {
    key(n).public()
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What a provider says of itself, in its `life`th life.
pub fn registration(of: &str, life: u8) -> Registration {
    Registration {
        id: ProviderId([life; 16]),
        name: name(of),
        address: Some(Address::new(&format!("{of}.example:7443")).unwrap()),
        bytes: 8 * PAGE,
        regions: 8,
        classes: Vec::new(),
        locality: None,
        seat: Some(Seat([0x5e; 16])),
    }
}

/// Short times, so that a test waits for none that is only a bound.
pub fn timings() -> Timings {
    let ms = Duration::from_millis;
    Timings {
        greeting: ms(3_000),
        silent: ms(3_000),
        frame: ms(1_500),
        redial_min: ms(10),
        redial_max: ms(50),
        notice_again: ms(5),
        // Of a busy machine.
        bye: ms(5_000),
        ..Timings::default()
    }
}

/// Waits until a condition is true.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for what has to come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}"))
}
