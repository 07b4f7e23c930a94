//! STAT: what a right reaches now.

use caps::error::Result;
use caps::wire::remote::Span;
use zerocopy::IntoBytes;

use super::job::{Answering, Sink, Went};
use crate::gate::visitor::Visitor;

/// A question about one right. Only the span's handle counts.
pub(super) struct Stat {
    span: Span,
}

impl Stat {
    pub(super) fn new(span: Span) -> Self {
        Self { span }
    }

    /// All of it. Who asks after the right's end is told so and has touched nothing: no fault.
    pub(super) fn step(
        &mut self,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<Went> {
        if !out.has_room() {
            return Ok(Went::Full);
        }
        let handle = self.span.handle();
        let standing = visitor.shared.provider.standing(visitor.opener.session, handle);
        let standing = standing.map_err(|refused| visitor.no_such_handle(handle, refused.error))?;
        // No byte of the region is in it, so nothing has to be waited for.
        let _ = answer.frame(out, false, 0, &[standing.as_bytes()], &[]); // nobody to tell is no failure
        Ok(Went::Done)
    }
}
