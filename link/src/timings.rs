//! How long everything may take. [`Default`] is what nodes use; tests wait less.

use std::time::Duration;

use policy::limits;

/// The times of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// From an accepted connection to a whole `Hello`, and from a connected one to all that a provider is told.
    pub greeting: Duration,
    /// From the welcome until a provider is ready.
    pub ready: Duration,
    /// A frame, from its first byte to its last.
    pub frame: Duration,
    /// A frame that the other end does not take.
    pub send: Duration,
    /// A question.
    pub ask: Duration,
    /// Taking back.
    pub take: Duration,
    /// The record of a claim.
    pub record: Duration,
    /// A revocation that a provider asks for.
    pub revoke: Duration,
    /// After which silence a provider dials again. More than the broker's heartbeat.
    pub silent: Duration,
    /// The least pause between two dials.
    pub redial_min: Duration,
    /// The longest pause between two dials.
    pub redial_max: Duration,
    /// A connection that is being made.
    pub connect: Duration,
    /// Until notices for which a broker had no room are told again.
    pub notice_again: Duration,
    /// The last words of a link.
    pub bye: Duration,
    /// How often it is looked whether credentials changed, and open links have to be judged again.
    pub judge: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            greeting: ms(limits::LINK_GREETING_MS_MAX),
            ready: ms(limits::LINK_READY_MS_MAX),
            frame: ms(limits::LINK_FRAME_MS_MAX),
            send: ms(limits::LINK_SEND_MS_MAX),
            ask: ms(limits::LINK_ASK_MS_MAX),
            take: ms(limits::LINK_TAKE_MS_MAX),
            record: ms(limits::LINK_RECORD_MS_MAX),
            revoke: ms(limits::LINK_REVOKE_MS_MAX),
            silent: ms(limits::LINK_SILENT_MS_MAX),
            redial_min: ms(limits::LINK_REDIAL_MS_MIN),
            redial_max: ms(limits::LINK_REDIAL_MS_MAX),
            connect: ms(limits::LINK_CONNECT_MS_MAX),
            notice_again: ms(limits::LINK_NOTICE_AGAIN_MS),
            bye: ms(limits::LINK_BYE_MS_MAX),
            judge: ms(limits::REMOTE_RELOAD_MS),
        }
    }
}
