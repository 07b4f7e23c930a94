//! What can be asked of each of those that are compared, and how they are asked in turns.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use crate::bench::numbers::timed;

/// The items of a gather.
pub const GATHER_ITEMS: usize = 64;
/// Bytes of each of them.
pub const GATHER_ITEM_BYTES: usize = 64 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = GATHER_ITEMS * GATHER_ITEM_BYTES;
/// What every byte of a value is, so that an answer can be told from none.
pub const FILL: u8 = 0x5a;

/// Somebody who keeps bytes and gives them back over TLS, on one connection.
pub trait Side: Send {
    /// Reads a value of so many bytes.
    fn read(&mut self, bytes: usize) -> Result<()>;
    /// Writes one.
    fn write(&mut self, bytes: usize) -> Result<()>;
    /// Reads [`GATHER_ITEMS`] values of [`GATHER_ITEM_BYTES`] in one request.
    fn gather(&mut self) -> Result<()>;
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Read(usize),
    Write(usize),
    Gather,
}

impl What {
    pub fn of(self, side: &mut dyn Side) -> Result<()> {
        match self {
            Self::Read(bytes) => side.read(bytes),
            Self::Write(bytes) => side.write(bytes),
            Self::Gather => side.gather(),
        }
    }

    /// Bytes of values that it moves.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Read(bytes) | Self::Write(bytes) => bytes,
            Self::Gather => VALUE_BYTES_MAX,
        }
    }
}

/// A value is what was put there; looked at where it begins and ends, for the whole would cost the measured time.
pub fn judge(value: &[u8]) -> Result<()> {
    if value.first().is_none_or(|&byte| byte == FILL) && value.last().is_none_or(|&byte| byte == FILL) {
        return Ok(());
    }
    Err(Error::new(Code::Protocol, "an answer has other bytes than were written"))
}

/// Has each side do `what` so many times in a round, each first in turn. Microseconds of each time, by side.
pub fn turns(
    sides: &mut [&mut Box<dyn Side>],
    what: What,
    rounds: u32,
    times: usize,
) -> Result<Vec<Vec<f64>>> {
    let mut found = vec![Vec::with_capacity(rounds as usize * times); sides.len()];
    for side in sides.iter_mut() {
        // Not measured: the first of everything.
        (0..times.div_ceil(10)).try_for_each(|_| what.of(side.as_mut()))?;
    }
    for round in 0..rounds as usize {
        for turn in 0..sides.len() {
            let n = (round + turn) % sides.len();
            for _ in 0..times {
                let (micros, done) = timed(|| what.of(sides[n].as_mut()));
                done?;
                found[n].push(micros);
            }
        }
    }
    Ok(found)
}

/// All connections of one side at once, each asking again as soon as it is answered, for so long. Operations a second.
pub fn together(connections: &mut [Box<dyn Side>], what: What, time: Duration) -> Result<f64> {
    let started = Instant::now();
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|side| {
                scope.spawn(move || {
                    let mut done = 0_u64;
                    while started.elapsed() < time {
                        what.of(side.as_mut())?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let panicked = Error::new(Code::Internal, "a client of the benchmark panicked");
            Ok::<_, Error>(sum + thread.join().unwrap_or(Err(panicked))?)
        })
    })?;
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// So many clients at once for so long, each of which connects, asks `each` times, leaves and comes again; who is told that
/// the server has too much to do comes again at once. Operations a second, the time to connect included.
pub fn visits(
    clients: usize,
    connect: &(impl Fn() -> Result<Box<dyn Side>> + Sync),
    what: What,
    each: usize,
    time: Duration,
) -> Result<f64> {
    let started = Instant::now();
    let visit = || {
        let mut done = 0_u64;
        while started.elapsed() < time {
            let mut side = match connect() {
                Err(error) if error.code() == Code::Busy => continue,
                connected => connected?,
            };
            for _ in 0..each {
                what.of(side.as_mut())?;
                done += 1;
                if started.elapsed() >= time {
                    break;
                }
            }
        }
        Ok(done)
    };
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(visit)).collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let panicked = Error::new(Code::Internal, "a client of the benchmark panicked");
            Ok::<_, Error>(sum + thread.join().unwrap_or(Err(panicked))?)
        })
    })?;
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(5);

    struct Counted(usize);

    impl Side for Counted {
        fn read(&mut self, _: usize) -> Result<()> {
            self.0 += 1;
            Ok(())
        }

        fn write(&mut self, _: usize) -> Result<()> {
            Err(Error::new(Code::Denied, "read only"))
        }

        fn gather(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_side_has_its_turns_and_an_error_ends_them() {
        let (mut one, mut two): (Box<dyn Side>, Box<dyn Side>) = (Box::new(Counted(0)), Box::new(Counted(0)));
        let found = turns(&mut [&mut one, &mut two], What::Read(1), 3, 20).unwrap();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [60, 60]);
        let refused = turns(&mut [&mut one], What::Write(1), 1, 1).unwrap_err();
        assert_eq!(refused.code(), Code::Denied);
        assert!(together(&mut [one, two], What::Gather, Duration::from_millis(5)).unwrap() > 0.0);
    }

    #[test]
    fn a_visitor_leaves_and_comes_again_and_a_busy_server_is_asked_again() {
        let came = std::sync::atomic::AtomicUsize::new(0);
        let connect = || -> Result<Box<dyn Side>> {
            match came.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Err(Error::new(Code::Busy, "later")),
                _ => Ok(Box::new(Counted(0))),
            }
        };
        let rate = visits(2, &connect, What::Read(1), 10, Duration::from_millis(20)).unwrap();
        assert!(rate > 0.0 && came.into_inner() > 3);
        let none = || -> Result<Box<dyn Side>> { Err(Error::new(Code::Denied, "nobody")) };
        assert_eq!(visits(1, &none, What::Gather, 1, TIME).unwrap_err().code(), Code::Denied);
    }

    #[test]
    fn a_value_of_other_bytes_is_told() {
        assert!(judge(&[FILL; 3]).is_ok() && judge(&[]).is_ok());
        assert_eq!(judge(&[FILL, 0]).unwrap_err().code(), Code::Protocol);
        assert_eq!(judge(&[0, FILL]).unwrap_err().code(), Code::Protocol);
    }
}
