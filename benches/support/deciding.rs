//! The overlay in the middle of its work: a source whose children have tickets for all stripes.
//!
//! Owns that state and a second of what happens in it. Does not own media, nor what is measured.

use std::{sync::Arc, time::Duration};

use astral_core::{
    announcement::{AnnouncementDraft, Scheme, SignedAnnouncement},
    ids::{Direction, FeedKey, NodeId, SourceKey, StreamId, StreamName, StripeSet},
    overlay::{
        Ask, AskStripe, Command, Contact, InboundId, Input, Output, Overlay, OverlayConfig,
        Request, Response, RoleChoice, TicketRequest, TicketResponse, Verdict,
    },
    time::Timestamp,
    units::Bitrate,
};

/// Stripes of the stream.
const K: u8 = 8;
/// How often a child says that its stripes are still wanted.
const SAYS: u32 = 10;

/// A source's overlay and its children.
pub struct Deciding {
    overlay: Overlay,
    feeds: Vec<FeedKey>,
    now: Timestamp,
}

impl Deciding {
    /// With so many children.
    pub fn with(children: u16) -> Self {
        let now = Timestamp::ZERO;
        let config = OverlayConfig {
            role: RoleChoice::Supernode,
            scheme: Scheme::Tag,
            uplink: Some(Bitrate::from_mbps(10_000)),
            ..OverlayConfig::default()
        };
        let overlay = Overlay::new(NodeId([1; 32]), config, [2; 32], now);
        let mut this = Self { overlay, feeds: Vec::new(), now };
        let (source, name) = (SourceKey([3; 32]), StreamName::new("bench").expect("a lawful name"));
        let stream = StreamId::derive(&source, &name);
        let announcement = Box::new(AnnouncementDraft {
            source,
            name,
            title: String::new(),
            description: String::new(),
            tags: Vec::new(),
            codecs: Vec::new(),
            resolution: None,
            rate: Bitrate::from_mbps(4),
            k: K,
            epoch: 1,
            thumbnail: None,
            renditions: Vec::new(),
            rendition_of: None,
            floor: None,
        });
        this.hear(Input::Command(Command::Publish { announcement }));
        for number in 0..children {
            this.admit(stream, number);
        }
        this
    }

    fn admit(&mut self, stream: StreamId, number: u16) {
        let mut id = [9; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let contact = Contact::new(NodeId(id), Vec::new());
        let from = contact.node;
        self.hear(Input::LinkUp { contact: contact.clone(), private: false });
        let ask = Ask {
            stream,
            stripes: (0..K).map(AskStripe::live).collect(),
            contact,
            free: 0,
            attempt: 0,
            slots: 0,
            displace: 0,
        };
        let body = Request::Ticket(TicketRequest::Ask(ask));
        let granted = self.hear(Input::Request { id: InboundId(u64::from(number)), from, body });
        assert_eq!(granted, usize::from(K), "every stripe is granted");
        let feed = FeedKey { stream, peer: from, direction: Direction::ToChild };
        self.hear(Input::FeedUp { feed });
        for stripe in 0..K {
            self.hear(Input::PromoteAsked { feed, stripe });
        }
        self.feeds.push(feed);
    }

    /// A second passes; how many inputs there were.
    pub fn second(&mut self) -> u64 {
        let mut inputs = 0;
        for _ in 0..SAYS {
            self.now += Duration::from_secs(1) / SAYS;
            for at in 0..self.feeds.len() {
                let feed = self.feeds[at];
                self.hear(Input::ChildAlive { feed, stripes: StripeSet::first(K) });
                inputs += 1;
            }
            if self.overlay.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                self.overlay.handle_timeout(self.now);
                inputs += 1;
            }
            self.carry_out();
        }
        for at in 0..self.feeds.len() {
            let node = self.feeds[at].peer;
            self.hear(Input::Rtt { node, rtt: Duration::from_millis(20) });
            inputs += 1;
        }
        inputs
    }

    /// Hears something, and does what follows from it; how many stripes were granted.
    fn hear(&mut self, input: Input) -> usize {
        self.overlay.handle_input(input, self.now);
        self.carry_out()
    }

    fn carry_out(&mut self) -> usize {
        let mut granted = 0;
        while let Some(output) = self.overlay.poll_output() {
            match output {
                Output::Sign { draft } => {
                    let key = *draft.source.as_bytes();
                    let sealed = SignedAnnouncement::seal(*draft, |it| Scheme::tag(&key, it));
                    let announcement = Arc::new(sealed.expect("a short announcement"));
                    self.overlay.handle_input(Input::Signed { announcement }, self.now);
                }
                Output::Respond {
                    body: Response::Ticket(TicketResponse::Answer(answer)), ..
                } => {
                    let grants = |verdict: &Verdict| matches!(verdict, Verdict::Grant { .. });
                    granted += answer.stripes.iter().filter(|it| grants(&it.verdict)).count();
                }
                _ => {}
            }
        }
        granted
    }
}
