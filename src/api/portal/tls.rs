//! HTTPS for a portal.
//!
//! Owns when the certificate is read again, and the handshakes, none of which holds up another. Does not
//! own how it is read (see `edge::certificate`), nor where it comes from.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::serve::Listener;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    api::listener::{BoundedListener, Connection},
    edge::certificate::{CertificateError, server_config},
};

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further connections wait.
const HANDSHAKES_MAX: usize = 64;
/// How often the certificate's file is looked at.
const RENEWED: Duration = Duration::from_secs(60);

/// A certificate chain and its key, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The certificate, then those that lead to its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Identity {
    fn load(&self) -> Result<TlsAcceptor, CertificateError> {
        let mut config = server_config(&self.cert, &self.key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// When the certificate was written.
    fn written(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.cert).and_then(|file| file.modified()).ok()
    }
}

/// The certificate in use.
pub(super) struct Acceptor {
    identity: Identity,
    acceptor: TlsAcceptor,
    written: Option<SystemTime>,
    looked: Instant,
}

impl Acceptor {
    pub(super) fn new(identity: Identity) -> Result<Self, CertificateError> {
        let (acceptor, written) = (identity.load()?, identity.written());
        Ok(Self { identity, acceptor, written, looked: Instant::now() })
    }

    /// The acceptor for the next connection, with the certificate that is there by now.
    fn current(&mut self) -> TlsAcceptor {
        if self.looked.elapsed() >= RENEWED {
            self.looked = Instant::now();
            let written = self.identity.written();
            if written != self.written {
                match self.identity.load() {
                    Ok(acceptor) => {
                        tracing::info!("the portal's certificate was renewed");
                        (self.acceptor, self.written) = (acceptor, written);
                    }
                    // Half-written, perhaps: the next look tells.
                    Err(error) => tracing::warn!(%error, "the old certificate stays"),
                }
            }
        }
        self.acceptor.clone()
    }
}

type Secure = TlsStream<Connection>;
type Handshake = BoxFuture<'static, Option<(Secure, SocketAddr)>>;

/// Accepts connections whose handshake is done.
pub(super) struct TlsListener {
    listener: BoundedListener,
    acceptor: Acceptor,
    handshakes: FuturesUnordered<Handshake>,
}

impl TlsListener {
    pub(super) fn new(listener: BoundedListener, acceptor: Acceptor) -> Self {
        Self { listener, acceptor, handshakes: FuturesUnordered::new() }
    }
}

impl Listener for TlsListener {
    type Io = Secure;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Secure, SocketAddr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.next() => {
                    if let Some(accepted) = done {
                        return accepted;
                    }
                }
                (socket, addr) = self.listener.accept(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    let shake = self.acceptor.current().accept(socket);
                    self.handshakes.push(Box::pin(async move {
                        let secure = timeout(HANDSHAKE_MAX, shake).await.ok()?.ok()?;
                        Some((secure, addr))
                    }));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
