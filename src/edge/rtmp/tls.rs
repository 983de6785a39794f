//! RTMPS: the same port inside TLS, for encoders on other machines.
//!
//! Owns reading the certificate and the handshake's deadline. Does not own RTMP (see `connection`). TLS 1.2
//! and 1.3 by rustls; no client certificates: the stream key says who may publish.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};
use tracing::info;

use super::{
    connection::{Connection, Context},
    server::count,
};

/// A certificate with its key, ready to be shown to encoders.
#[derive(Clone)]
pub struct Certificate(TlsAcceptor);

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file can't be read, or is no PEM.
    #[error("can't use {}: {source}; a PEM file is needed, as Let's Encrypt writes it", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The two don't go together, or the key is of an unknown kind.
    #[error("this certificate and this key can't be used together: {0}")]
    Pair(#[from] rustls::Error),
}

impl Certificate {
    /// Reads a chain of certificates, the server's own first, and its private key, both PEM.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let fault = |path: &Path| {
            let path = path.to_owned();
            |source| CertificateError::Pem { path, source }
        };
        let certificates = CertificateDer::pem_file_iter(chain).map_err(fault(chain))?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(fault(chain))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(fault(key))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
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
