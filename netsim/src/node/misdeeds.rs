//! How a node misbehaves: what becomes of what its honest machines say.
//!
//! Owns the lies and omissions. Does not own who misbehaves, nor anything an honest node does: the
//! production machines run here too, and do not know.

use std::sync::Arc;

use astral_core::{
    ids::STRIPES_MAX,
    media::{chunk::Payload, frame::DownFrame},
    overlay::{
        Candidate, Contact, DirRequest, DirResponse, Request, Response, TicketResponse, Verdict,
    },
};

use crate::{payload::SimChunk, random::mix};

/// Stripes that a liar says it could feed.
const CLAIMED_FREE: u16 = 200;
/// Accomplices that it names at most.
const NAMED_MAX: usize = 8;

/// How a node misbehaves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Misdeed {
    /// Not at all.
    #[default]
    Honest,
    /// Sends no chunks.
    Withholds,
    /// Turns a bit in every chunk.
    Pollutes,
    /// Drops this share of the chunks, in percent.
    Drops(u64),
    /// Says that it hangs on the source itself.
    LiesAboutDepth,
    /// Withholds, and names its accomplices only.
    Sybil(Arc<[Contact]>),
    /// Names its accomplices only, as a supernode.
    BadDirectory(Arc<[Contact]>),
}

impl Misdeed {
    /// Whether it does anything.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        *self == Self::Honest
    }

    /// What becomes of a frame for a child; `None`: it is not sent.
    #[must_use]
    pub fn frame(&self, frame: DownFrame<SimChunk>) -> Option<DownFrame<SimChunk>> {
        match (self, frame) {
            (Self::Withholds | Self::Sybil(_), DownFrame::Chunk(_)) => None,
            (Self::Pollutes, DownFrame::Chunk(chunk)) => Some(DownFrame::Chunk(chunk.polluted())),
            (Self::Drops(percent), DownFrame::Chunk(chunk))
                if mix(chunk.header().seq) % 100 < *percent =>
            {
                None
            }
            (Self::LiesAboutDepth, DownFrame::Keep { mut stripes, paused }) => {
                stripes.iter_mut().for_each(|entry| entry.depth = 0);
                Some(DownFrame::Keep { stripes, paused })
            }
            (Self::LiesAboutDepth, DownFrame::Path { stripe, mut path }) => {
                shorten(&mut path);
                Some(DownFrame::Path { stripe, path })
            }
            (_, frame) => Some(frame),
        }
    }

    /// What becomes of an answer.
    pub fn answer(&self, answer: &mut Response) {
        match (self, answer) {
            (Self::LiesAboutDepth, Response::Ticket(TicketResponse::Answer(answer))) => {
                for stripe in &mut answer.stripes {
                    if let Verdict::Grant { path, .. } = &mut stripe.verdict {
                        shorten(path);
                    }
                }
            }
            (Self::Sybil(friends), Response::Ticket(TicketResponse::Answer(answer))) => {
                answer.redirect = candidates(friends);
            }
            (
                Self::BadDirectory(friends),
                Response::Dir(DirResponse::Candidates { candidates: named, .. }),
            ) => *named = candidates(friends),
            _ => {}
        }
    }

    /// What becomes of a request.
    pub fn request(&self, request: &mut Request) {
        if let (
            Self::LiesAboutDepth | Self::Sybil(_),
            Request::Dir(DirRequest::Status { streams }),
        ) = (self, request)
        {
            for stream in streams {
                stream.depths.iter_mut().for_each(|depth| *depth = 1);
                stream.free = CLAIMED_FREE;
            }
        }
    }
}

/// The source and the liar itself.
fn shorten(path: &mut Vec<u64>) {
    if path.len() > 2 {
        path.drain(1..path.len() - 1);
    }
}

fn candidates(friends: &[Contact]) -> Vec<Candidate> {
    let candidate = |contact: &Contact| Candidate {
        contact: contact.clone(),
        depths: vec![1; usize::from(STRIPES_MAX)],
        free: CLAIMED_FREE,
        source: false,
    };
    friends.iter().take(NAMED_MAX).map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liar_cuts_everybody_out_between_the_source_and_itself() {
        let told =
            Misdeed::LiesAboutDepth.frame(DownFrame::Path { stripe: 1, path: vec![1, 2, 3, 4] });
        assert_eq!(told, Some(DownFrame::Path { stripe: 1, path: vec![1, 4] }));
        let told = Misdeed::Honest.frame(DownFrame::Path { stripe: 1, path: vec![1, 2, 3] });
        assert_eq!(told, Some(DownFrame::Path { stripe: 1, path: vec![1, 2, 3] }));
    }
}
