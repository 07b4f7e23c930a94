//! Frames over a stream: each read and written within a time, none larger than it may be.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::limits::LINK_FRAME_BYTES_MAX;
use caps::wire::cluster::{Message, PREFIX_BYTES, decode, encode, length};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use policy::limits::LINK_BYE_BYTES_MAX;

use crate::Timings;
use crate::end::End;

/// Memory that is set aside for a body before it comes: more is taken as it comes.
const BODY_BYTES_AT_ONCE: usize = 4 * 1024;

const CUT: Error = Error::new(Code::Unreachable, "the link was cut");
const LATE: Error = Error::new(Code::Timeout, "the other end of the link took too long");

/// Reads one frame of at most `most` bytes. `first` bounds the wait for its first byte, `rest` that for all others.
///
/// # Errors
/// `E_UNREACHABLE` if the stream ended, `E_TIMEOUT`, `E_FRAME_TRUNCATED` if it ended within the frame, and what
/// [`length`] and [`decode`] say.
pub(crate) async fn read<T: Message>(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
    first: Option<Duration>,
    rest: Duration,
) -> Result<T> {
    let mut prefix = [0; PREFIX_BYTES];
    let begin = from.read(&mut prefix[..1]);
    let begun = match first {
        Some(first) => timeout(first, begin).await.map_err(|_| LATE)?,
        None => begin.await,
    };
    match begun {
        Ok(1) => {}
        Ok(_) => return Err(CUT),
        Err(error) => return Err(failed(&error)),
    }
    let end = Instant::now() + rest;
    let within = |_| Error::new(Code::FrameTruncated, "the link was cut within a frame");
    timeout_at(end, from.read_exact(&mut prefix[1..])).await.map_err(|_| LATE)?.map_err(within)?;
    let length = length(prefix, most)?;
    let mut body = Vec::with_capacity(length.min(BODY_BYTES_AT_ONCE));
    let mut from = from.take(length as u64);
    timeout_at(end, from.read_to_end(&mut body)).await.map_err(|_| LATE)?.map_err(|_| CUT)?;
    if body.len() < length {
        return Err(Error::new(Code::FrameTruncated, "the link was cut within a frame"));
    }
    decode(&body)
}

/// Writes one message, within a time.
///
/// # Errors
/// `E_UNREACHABLE`, `E_TIMEOUT`, and what [`encode`] says.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
    within: Duration,
) -> Result<()> {
    let frame = encode(message)?;
    write_frame(to, &frame, within).await
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8], within: Duration) -> Result<()> {
    let sent = timeout(within, async {
        to.write_all(frame).await?;
        to.flush().await
    });
    sent.await.map_err(|_| LATE)?.map_err(|_| CUT)
}

/// Frames on their way to a writer.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing(mpsc::Sender<Vec<u8>>);

/// Frames that wait for the writer: questions, answers, and records of claims, of each as many as a window has, and a few
/// that are alone of their kind.
const OUTGOING_FRAMES_MAX: usize = 3 * caps::limits::LINK_WINDOW_MAX + 8;
// What a link costs at most whose other end takes nothing, until its time is over. Few messages are so large: a policy and a
// page of quotas, of which there is one at a time, and receipts.
const _: () = assert!(OUTGOING_FRAMES_MAX * LINK_FRAME_BYTES_MAX <= 64 << 20);

impl Outgoing {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (send, receive) = mpsc::channel(OUTGOING_FRAMES_MAX);
        (Self(send), receive)
    }

    /// Has a message written after those before it.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if the link is over, or its other end takes nothing; what [`encode`] says.
    pub(crate) fn send(&self, message: &impl Message) -> Result<()> {
        let frame = encode(message)?;
        self.0.try_send(frame).map_err(|_| CUT)
    }
}

/// Writes what comes until the link is over, then its last words.
pub(crate) async fn write_all(
    mut to: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Vec<u8>>,
    end: End,
    bye: impl FnOnce(&Error) -> Option<Vec<u8>>,
    timings: &Timings,
) {
    let why = loop {
        let frame = tokio::select! {
            biased;
            why = end.over() => break why,
            frame = frames.recv() => frame,
        };
        let Some(frame) = frame else { break CUT };
        // A frame that was begun is written to its end, or nothing can follow it.
        if let Err(error) = write_frame(&mut to, &frame, timings.send).await {
            end.close(error);
            break CUT;
        }
    };
    if let Some(frame) = bye(&why) {
        let _ = write_frame(&mut to, &frame, timings.bye).await;
    }
    let _ = timeout(timings.bye, to.shutdown()).await;
}

/// After the last words: reads on until the other end closes, too, for a while, and throws away what comes. A socket that is
/// closed with bytes unread is reset, and who writes at that moment hears of nothing but the reset.
pub(crate) async fn linger(from: &mut (impl AsyncRead + Unpin), within: Duration) {
    let mut from = from.take(LINK_BYE_BYTES_MAX);
    // However it ends, nothing more can be done for the words.
    let _ = timeout(within, tokio::io::copy(&mut from, &mut tokio::io::sink())).await;
}

/// What a failed handshake or a failed read says: a certificate that is not believed, at either end, or a cut.
pub(crate) fn failed(error: &std::io::Error) -> Error {
    use transport::rustls::{self, AlertDescription};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => Error::with(
            Code::PeerIdentity,
            format!("the certificate at the other end is not believed: {why:?}"),
        ),
        Some(rustls::Error::NoCertificatesPresented) => {
            Error::new(Code::PeerIdentity, "the other end showed no certificate")
        }
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Error::new(
            Code::PeerIdentity,
            "what answers there does not speak leasehold-link/1; a broker has another port for providers than for clients",
        ),
        Some(rustls::Error::AlertReceived(alert)) if is_about_identity(*alert) => Error::with(
            Code::PeerIdentity,
            format!("the other end does not believe our certificate: {alert:?}"),
        ),
        _ => CUT,
    }
}

const fn is_about_identity(alert: transport::rustls::AlertDescription) -> bool {
    use transport::rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            // Of a certificate whose issuer only has the name of one that is believed.
            | Alert::DecryptError
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}
