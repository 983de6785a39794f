//! The API's port, on a real node.
//!
//! Owns nothing but translation between [`NodePort`] and [`Handle`], and the start of [`Local`] on
//! one. The only file of the API that knows the node's types.

use std::{sync::Arc, time::Duration};

use astral_core::{
    ids::{NodeId, StreamId},
    overlay::TicketId,
};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{
    local::{Local, LocalConfig, LocalError},
    port::{
        Encoded, Flow, Limits, NodePort, NodeState, OwnFlow, PortError, PublishRequest, Published,
        Texts,
    },
    publishing::Ingest,
};
use crate::{
    edge::rtmp::KeyError,
    node::{
        self, ControlError, DriverCounters, Handle, Ladder, Metadata, NodeGone, NodeSnapshot,
        PublishError, PublishSpec, Publisher,
    },
};

impl Local {
    /// Starts the local servers of a node.
    ///
    /// # Errors
    /// [`LocalError`] when an address is taken or the token can't be kept.
    pub async fn start(handle: Handle, config: LocalConfig) -> Result<Self, LocalError> {
        let panic_in = handle.panic_in();
        Self::start_on(Arc::new(handle.clone()), Arc::new(handle), config, panic_in).await
    }

    /// Opens a stream key for `publisher` and fills it from the encoder that comes with the key. A
    /// broadcast ends when no encoder has been there for `window`.
    ///
    /// # Errors
    /// [`KeyError`] when too many keys are open; the stream is ended then.
    pub fn ingest(&self, publisher: Publisher, window: Duration) -> Result<Ingest, KeyError> {
        let name = publisher.link().name.to_string();
        let ladder = Ladder { whole: publisher, lower: Vec::new() };
        self.ingest_into(&name, Box::new(ladder), window)
    }
}

impl From<NodeGone> for PortError {
    fn from(_gone: NodeGone) -> Self {
        Self::Gone
    }
}

impl From<PublishError> for PortError {
    fn from(error: PublishError) -> Self {
        let message = error.to_string();
        match error {
            PublishError::AlreadyPublished { .. } => Self::Conflict { message },
            PublishError::Name(_)
            | PublishError::Stripes { .. }
            | PublishError::Announcement { .. } => Self::Invalid { message },
            PublishError::Epoch { .. } => Self::Failed { message },
            PublishError::Gone(gone) => gone.into(),
        }
    }
}

impl From<ControlError> for PortError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotOurs { stream } => {
                Self::Unknown { what: format!("own stream {stream}") }
            }
            ControlError::Metadata(error) => error.into(),
            ControlError::Gone(gone) => gone.into(),
        }
    }
}

impl From<NodeSnapshot> for NodeState {
    fn from(now: NodeSnapshot) -> Self {
        let flows = now.streams.into_iter().map(|(id, status)| {
            let flow = Flow {
                k: status.stats.k.unwrap_or_default(),
                rate: status.stats.rate.unwrap_or_default(),
                bytes: status.bytes,
                forwarded_bytes: status.stats.forwarded_bytes,
                delivered_bytes: status.stats.delivered_bytes,
                chunks: status.stats.received_chunks,
                idle: status.stats.idle_ms.map(Duration::from_millis),
                paused: status.stats.paused,
                own: None,
                join: status.stats.join_ms.map(Duration::from_millis),
                first_frame: status.stats.first_frame_ms.map(Duration::from_millis),
                delay: status.stats.delay_ms.map(Duration::from_millis),
                children: status.children,
            };
            (id, flow)
        });
        let DriverCounters {
            forged_gossip,
            malformed_requests,
            feeds_dropped,
            feeds_refused,
            overflows,
            idle_closed,
            circuits_served,
            circuits_refused,
            circuit_bytes,
            ..
        } = now.driver;
        let limits = Limits {
            uplink: now.relay.ceiling,
            max_copies: now.overlay.capacity.max_copies,
            max_total_copies: now.overlay.capacity.max_total_copies,
        };
        Self {
            limits,
            flows: flows.collect(),
            lower: now.lower,
            relay: now.relay,
            reach: now.reach,
            driver: vec![
                ("forged_gossip", forged_gossip),
                ("malformed_requests", malformed_requests),
                ("feeds_dropped", feeds_dropped),
                ("feeds_refused", feeds_refused),
                ("overflows", overflows),
                ("idle_closed", idle_closed),
                ("circuits_served", circuits_served),
                ("circuits_refused", circuits_refused),
                ("circuit_bytes", circuit_bytes),
            ],
            overlay: now.overlay,
            uptime: now.uptime,
            sent_bytes: now.sent_bytes,
            sent_media_bytes: now.sent_media_bytes,
            received_bytes: now.received_bytes,
        }
    }
}

impl NodePort for Handle {
    fn peer_id(&self) -> String {
        self.peer_id_text()
    }

    fn listen_addrs(&self) -> Vec<String> {
        Self::listen_addrs(self).iter().map(ToString::to_string).collect()
    }

    fn state(&self) -> BoxFuture<'_, Result<NodeState, PortError>> {
        Box::pin(async move {
            let mut state = NodeState::from(self.snapshot().await?);
            for (id, flow) in &mut state.flows {
                // For an own stream the wish is known before the relay hears of it.
                if let Some(own) = self.publish_state(*id) {
                    flow.paused = own.paused;
                    flow.own = Some(OwnFlow {
                        name: own.name,
                        preview: own.preview,
                        encoder: own.encoder,
                    });
                }
            }
            Ok(state)
        })
    }

    fn publish(
        &self,
        request: PublishRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Published>, PortError>> {
        let PublishRequest { name, title, description, tags, stripes, preview, encoded } = request;
        let Encoded { rate, adaptive, lower } = encoded;
        let named = PublishSpec::named(name);
        let spec =
            PublishSpec { title, description, tags, k: stripes, preview, rate, adaptive, ..named };
        Box::pin(async move {
            let ladder = self.publish_ladder(spec, &lower).await?;
            Ok(Box::new(ladder) as Box<dyn Published>)
        })
    }

    fn picture(&self, id: StreamId) -> BoxFuture<'_, Result<Option<Bytes>, PortError>> {
        Box::pin(async move { Ok(Self::picture(self, id).await?) })
    }

    fn seed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::seed(self, &id.into()).await?) })
    }

    fn unseed(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::unseed(self, id).await?) })
    }

    fn pause(&self, id: StreamId, paused: bool) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::pause(self, id, paused).await?) })
    }

    fn go_live(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::go_live(self, id)?) })
    }

    fn edit(&self, id: StreamId, texts: Texts) -> BoxFuture<'_, Result<(), PortError>> {
        let Texts { title, description, tags } = texts;
        let metadata = Metadata { title, description, tags };
        Box::pin(async move { Ok(Self::edit(self, id, metadata)?) })
    }

    fn end(&self, id: StreamId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::end(self, id)?) })
    }

    fn revoke(&self, ticket: TicketId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::revoke(self, ticket).await?) })
    }

    fn forget(&self, node: NodeId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { Ok(Self::forget(self, node).await?) })
    }

    fn limits(&self) -> BoxFuture<'_, Result<Limits, PortError>> {
        Box::pin(async move { Ok(NodePort::state(self).await?.limits) })
    }

    fn set_limits(&self, limits: Limits) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move {
            let limits = node::Limits {
                uplink: limits.uplink.into(),
                max_copies: limits.max_copies.into(),
                max_total_copies: limits.max_total_copies.into(),
            };
            Ok(Self::set_limits(self, limits).await?)
        })
    }

    fn events(&self) -> BoxStream<'static, Value> {
        Box::pin(futures::stream::unfold(Self::events(self), |mut events| async move {
            let event = match events.recv().await {
                Ok(event) => serde_json::to_value(&event).unwrap_or_default(),
                Err(RecvError::Lagged(count)) => json!({"event": "events_missed", "count": count}),
                Err(RecvError::Closed) => return None,
            };
            Some((event, events))
        }))
    }
}
