//! A peer that does not keep to the rules, and what honest nodes do about it.
//!
//! Owns a libp2p peer that speaks the node's protocols through the node's own codecs and does with
//! them what a test wants, and the tests in its submodules. Does not own honest nodes (`testing`).

#![expect(
    clippy::disallowed_methods,
    reason = "what a test tells its own peer is bounded by the test"
)]

mod children;
mod directory;
mod feeds;
mod leaving;
mod parents;
mod raw;
mod repair;
mod soak;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use astral_core::{
    announcement::Signature,
    ids::NodeId,
    media::{
        chunk::WireChunk,
        repair::{RepairAnswer, RepairWant},
    },
    overlay::{
        Addr, Contact, DirRequest, DirResponse, Register, Role, StreamStatus, TicketRequest,
        TicketResponse,
    },
};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm,
    futures::StreamExt,
    identity::Keypair,
    request_response::{Event as Exchange, Message, OutboundRequestId, ResponseChannel},
    swarm::SwarmEvent,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::{
    Event, NodeConfig,
    behaviour::{Behaviour, BehaviourEvent, announcements_topic},
    clock::Clock,
    codec::Asked,
    drowsy::Drowsy,
    feed::{
        behaviour::Event as FeedEvent,
        handler::{InboundStream, OpenId},
    },
    identity,
    repair::Read,
    swarm,
    testing::{Encoder, PATIENCE, Recorder, TestNode, Transport},
};

type Order = Box<dyn FnOnce(&mut Peer) + Send>;
type OnTicket = Box<dyn FnMut(NodeId, &TicketRequest) -> Option<TicketResponse> + Send>;
type OnDir = Box<dyn FnMut(NodeId, &DirRequest) -> Option<DirResponse> + Send>;
type OnRepair = Box<dyn FnMut(RepairWant) -> Option<RepairAnswer<WireChunk>> + Send>;
type Waiting<A> = HashMap<OutboundRequestId, oneshot::Sender<Result<A, String>>>;

/// The peer's own task.
struct Peer {
    swarm: Swarm<Drowsy<Behaviour>>,
    tickets: Waiting<TicketResponse>,
    dirs: Waiting<DirResponse>,
    repairs: Waiting<Read<RepairAnswer<WireChunk>>>,
    opens: BTreeMap<OpenId, oneshot::Sender<Result<Stream, String>>>,
    on_repair: OnRepair,
    on_ticket: OnTicket,
    on_dir: OnDir,
    /// Requests that are never answered.
    kept: (Vec<ResponseChannel<TicketResponse>>, Vec<ResponseChannel<DirResponse>>),
    feeds: mpsc::UnboundedSender<(NodeId, InboundStream)>,
    connected: watch::Sender<BTreeSet<PeerId>>,
    next_open: u64,
    frozen: bool,
}

impl Peer {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while !self.frozen {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => order(&mut self),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        // Connections stay open, and nothing moves on them any more.
        std::future::pending::<()>().await;
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                self.connected.send_modify(|all| all.extend([peer_id]));
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.connected.send_modify(|all| all.retain(|peer| *peer != peer_id));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ticket(event)) => {
                let kept = (&mut self.kept.0, &mut self.tickets);
                if let Some((channel, answer)) = exchange(event, &mut self.on_ticket, kept) {
                    drop(self.swarm.behaviour_mut().ticket.send_response(channel, answer));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Dir(event)) => {
                let kept = (&mut self.kept.1, &mut self.dirs);
                if let Some((channel, answer)) = exchange(event, &mut self.on_dir, kept) {
                    drop(self.swarm.behaviour_mut().dir.send_response(channel, answer));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Repair(Exchange::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => {
                if let Some(answer) = request.ok().and_then(&mut self.on_repair) {
                    let repair = &mut self.swarm.behaviour_mut().repair;
                    drop(repair.send_response(channel, Ok(answer)));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Repair(event)) => {
                finish(&mut self.repairs, event);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Feed(event)) => match event {
                FeedEvent::Inbound { peer, stream } => {
                    let node = identity::node_id(&peer).unwrap();
                    drop(self.feeds.send((node, stream)));
                }
                FeedEvent::Opened { id, stream } => {
                    drop(self.opens.remove(&id).unwrap().send(Ok(stream)));
                }
                FeedEvent::Failed { id, error } => {
                    drop(self.opens.remove(&id).unwrap().send(Err(error.to_string())));
                }
            },
            _ => {}
        }
    }
}

fn event_peer<Q, A>(event: &Exchange<Q, A>) -> NodeId {
    let (Exchange::Message { peer, .. }
    | Exchange::OutboundFailure { peer, .. }
    | Exchange::InboundFailure { peer, .. }
    | Exchange::ResponseSent { peer, .. }) = event;
    identity::node_id(peer).unwrap()
}

/// What a request is to be answered; whatever else came is kept or handed to who waits for it.
fn exchange<Q, A>(
    event: Exchange<Asked<Q>, A>,
    answer: &mut dyn FnMut(NodeId, &Q) -> Option<A>,
    (kept, waiting): (&mut Vec<ResponseChannel<A>>, &mut Waiting<A>),
) -> Option<(ResponseChannel<A>, A)> {
    let peer = event_peer(&event);
    match event {
        Exchange::Message { message: Message::Request { request, channel, .. }, .. } => {
            let Asked::Sound(request) = request else { return None };
            match answer(peer, &request) {
                Some(answer) => return Some((channel, answer)),
                None => kept.push(channel),
            }
        }
        other => finish(waiting, other),
    }
    None
}

fn finish<Q, A>(waiting: &mut Waiting<A>, event: Exchange<Q, A>) {
    let (id, outcome) = match event {
        Exchange::Message { message: Message::Response { request_id, response }, .. } => {
            (request_id, Ok(response))
        }
        Exchange::OutboundFailure { request_id, error, .. } => (request_id, Err(error.to_string())),
        _ => return,
    };
    if let Some(reply) = waiting.remove(&id) {
        drop(reply.send(outcome));
    }
}

/// A hostile peer; dies with this value.
pub struct Hostile {
    node: NodeId,
    contact: Contact,
    orders: mpsc::UnboundedSender<Order>,
    feeds: Mutex<Option<mpsc::UnboundedReceiver<(NodeId, InboundStream)>>>,
    connected: watch::Receiver<BTreeSet<PeerId>>,
    addrs: Vec<Multiaddr>,
    task: JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    /// Listens on loopback and answers nobody.
    pub async fn start(seed: u8) -> Self {
        let key = identity::keypair([seed; 32]).unwrap();
        let config = NodeConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            mdns: false,
            ..NodeConfig::default()
        };
        let mut swarm = swarm::build(key.clone(), &config, Clock::start()).unwrap().0;
        let listen = swarm::listen(&mut swarm, &config).await.unwrap();
        let peer = key.public().to_peer_id();
        let node = identity::node_id(&peer).unwrap();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (feeds_in, feeds) = mpsc::unbounded_channel();
        let (connected_in, connected) = watch::channel(BTreeSet::new());
        let task = Peer {
            swarm,
            tickets: HashMap::new(),
            dirs: HashMap::new(),
            repairs: HashMap::new(),
            opens: BTreeMap::new(),
            on_repair: Box::new(|_| None),
            on_ticket: Box::new(|_, _| None),
            on_dir: Box::new(|_, _| None),
            kept: (Vec::new(), Vec::new()),
            feeds: feeds_in,
            connected: connected_in,
            next_open: 0,
            frozen: false,
        };
        Self {
            node,
            contact: contact(&key, node, &listen),
            orders,
            feeds: Mutex::new(Some(feeds)),
            connected,
            addrs: listen.iter().map(|addr| addr.clone().with_p2p(peer).unwrap()).collect(),
            task: tokio::spawn(task.run(inbox)),
        }
    }

    fn order(&self, order: impl FnOnce(&mut Peer) + Send + 'static) {
        assert!(self.orders.send(Box::new(order)).is_ok(), "the hostile peer has gone");
    }

    /// Connects to a node.
    async fn meet(&self, node: &TestNode) {
        let addr = node.handle.listen_addrs().remove(0);
        self.order(move |peer| peer.swarm.dial(addr).unwrap());
        self.connected_to(node, true).await;
    }

    /// Until there is a connection to a node, or none any more.
    async fn connected_to(&self, node: &TestNode, wanted: bool) {
        let peer = peer_of(node);
        let mut connected = self.connected.clone();
        let change = connected.wait_for(|all| all.contains(&peer) == wanted);
        timeout(PATIENCE, change).await.expect("in time").unwrap();
    }

    async fn ticket(&self, to: &TestNode, body: TicketRequest) -> Result<TicketResponse, String> {
        let (reply, answer) = oneshot::channel();
        let to = peer_of(to);
        self.order(move |peer| {
            let id = peer.swarm.behaviour_mut().ticket.send_request(&to, Asked::Sound(body));
            peer.tickets.insert(id, reply);
        });
        timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    async fn dir(&self, to: &TestNode, body: DirRequest) -> Result<DirResponse, String> {
        let (reply, answer) = oneshot::channel();
        let to = peer_of(to);
        self.order(move |peer| {
            let id = peer.swarm.behaviour_mut().dir.send_request(&to, Asked::Sound(body));
            peer.dirs.insert(id, reply);
        });
        timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    async fn repair(
        &self,
        to: &TestNode,
        want: Read<RepairWant>,
    ) -> Result<Read<RepairAnswer<WireChunk>>, String> {
        let (reply, answer) = oneshot::channel();
        let to = peer_of(to);
        self.order(move |peer| {
            let id = peer.swarm.behaviour_mut().repair.send_request(&to, want);
            peer.repairs.insert(id, reply);
        });
        timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    /// Answers questions of repair from now on.
    fn on_repair(
        &self,
        answer: impl FnMut(RepairWant) -> Option<RepairAnswer<WireChunk>> + Send + 'static,
    ) {
        self.order(move |peer| peer.on_repair = Box::new(answer));
    }

    /// A raw stream of the feed protocol, nothing said yet.
    async fn open(&self, to: &TestNode) -> Result<Compat<Stream>, String> {
        let (reply, opened) = oneshot::channel();
        let to = peer_of(to);
        self.order(move |peer| {
            peer.next_open += 1;
            let id = OpenId(peer.next_open);
            peer.opens.insert(id, reply);
            peer.swarm.behaviour_mut().feed.open(to, id);
        });
        let opened = timeout(PATIENCE, opened).await.unwrap().unwrap();
        opened.map(FuturesAsyncReadCompatExt::compat)
    }

    /// Answers tickets from now on; `None` keeps the asker waiting.
    fn on_ticket(
        &self,
        answer: impl FnMut(NodeId, &TicketRequest) -> Option<TicketResponse> + Send + 'static,
    ) {
        self.order(move |peer| peer.on_ticket = Box::new(answer));
    }

    /// Serves Kademlia, by which others tell a supernode.
    fn pose_as_supernode(&self) {
        self.order(|peer| {
            let behaviour = peer.swarm.behaviour_mut();
            behaviour.kad.set_mode(Some(libp2p::kad::Mode::Server));
        });
    }

    /// Like a process that was stopped: its sockets stay open and nobody serves them.
    fn freeze(&self) {
        self.order(|peer| peer.frozen = true);
    }

    fn on_dir(
        &self,
        answer: impl FnMut(NodeId, &DirRequest) -> Option<DirResponse> + Send + 'static,
    ) {
        self.order(move |peer| peer.on_dir = Box::new(answer));
    }

    /// The feeds that others open to this peer; once.
    fn take_feeds(&self) -> mpsc::UnboundedReceiver<(NodeId, InboundStream)> {
        self.feeds.lock().unwrap().take().expect("taken once")
    }

    /// Registers as a member of a supernode, like an honest node.
    async fn register(&self, supernode: &TestNode) {
        let (contact, role) = (self.contact.clone(), Role::Member);
        let register = Register { contact, role, digest: 0, standby: false, load: None };
        let answer = self.dir(supernode, DirRequest::Register(register)).await.unwrap();
        assert!(matches!(answer, DirResponse::Accepted { .. }), "{answer:?}");
    }

    /// Claims at its supernode to carry streams.
    async fn claim(&self, supernode: &TestNode, streams: Vec<StreamStatus>) {
        let answer = self.dir(supernode, DirRequest::Status { streams }).await.unwrap();
        assert_eq!(answer, DirResponse::Done);
    }

    /// Gossips bytes, as soon as somebody listens.
    async fn gossip(&self, bytes: Vec<u8>) {
        let said = async {
            let mut again = tokio::time::interval(Duration::from_millis(50));
            loop {
                again.tick().await;
                let (reply, outcome) = oneshot::channel();
                let bytes = bytes.clone();
                self.order(move |peer| {
                    let gossip = &mut peer.swarm.behaviour_mut().gossip;
                    gossip.subscribe(&announcements_topic()).unwrap();
                    let said = gossip.publish(announcements_topic(), bytes).is_ok();
                    reply.send(said).unwrap();
                });
                if outcome.await.unwrap() {
                    return;
                }
            }
        };
        timeout(PATIENCE, said).await.expect("somebody listens to gossip");
    }
}

fn peer_of(node: &TestNode) -> PeerId {
    identity::peer_id(&node.handle.node_id()).unwrap()
}

fn contact(key: &Keypair, node: NodeId, listen: &[Multiaddr]) -> Contact {
    let addrs = listen.iter().filter_map(|addr| Addr::new(addr.to_string())).collect();
    let mut contact = Contact::new(node, addrs);
    contact.seq = 1;
    let signed = key.sign(&contact.signing_input()).unwrap();
    contact.proof = Some(Signature(signed.try_into().unwrap()));
    contact
}

/// A source that publishes `k` stripes, and a viewer that plays them.
async fn source_and_viewer(k: u8, kbps: usize) -> (TestNode, Encoder, TestNode, Recorder) {
    let mut source = TestNode::start(Transport::Tcp, &[], |_| {}).await;
    source.event(|event| matches!(event, Event::Promoted { .. }).then_some(())).await;
    let encoder = Encoder::start(&source, "garden", k, kbps).await;
    let mut viewer = TestNode::start(Transport::Tcp, &[&source], |_| {}).await;
    viewer.listed(encoder.stream).await;
    let seen = Recorder::start(viewer.watch(encoder.stream).await);
    viewer.event(|event| matches!(event, Event::Playing { .. }).then_some(())).await;
    seen.has(10_000).await;
    (source, encoder, viewer, seen)
}

/// Until `holds`, asked again and again; the deadline says what was waited for.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut look = tokio::time::interval(Duration::from_millis(25));
    let waiting = async {
        while !holds().await {
            look.tick().await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

/// What a test changes while a task of the hostile peer reads it.
type Switch = Arc<std::sync::atomic::AtomicBool>;
