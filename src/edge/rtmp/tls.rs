//! RTMPS: the same port inside TLS, for encoders on other machines.
//!
//! Owns the handshake's deadline. Does not own RTMP (see `connection`) nor reading the certificate (see
//! `edge::certificate`). No client certificates: the stream key says who may publish.

use std::{io, path::Path, sync::Arc};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;
use tracing::info;

use super::{
    connection::{Connection, Context},
    server::count,
};
use crate::edge::certificate::{CertificateError, server_config};

/// A certificate with its key, ready to be shown to encoders.
#[derive(Clone)]
pub struct Certificate(TlsAcceptor);

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Reads a chain of certificates, the server's own first, and its private key, both PEM.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let config = server_config(chain, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake, then the connection to its end; its number.
    pub(super) async fn serve(self, socket: TcpStream, context: Context) -> u64 {
        let (number, peer) = (context.number, context.peer);
        let shaken = timeout(context.limits.setup_max, self.0.accept(socket)).await;
        let error = match shaken {
            Ok(Ok(socket)) => return Box::pin(Connection::new(socket, context).run()).await,
            Ok(Err(error)) => {
                count(&context.counters.malformed);
                error
            }
            Err(_) => {
                count(&context.counters.timed_out);
                io::ErrorKind::TimedOut.into()
            }
        };
        info!(%peer, %error, "no TLS came about");
        number
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
