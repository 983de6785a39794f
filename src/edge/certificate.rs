//! The certificate that a TLS listener shows: to encoders (`rtmp`) and to a portal's visitors.
//!
//! Owns reading it with its key and what a server does with both. Does not own handshakes, nor where a
//! certificate comes from. TLS 1.2 and 1.3 by rustls; nobody is asked for a certificate of their own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

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

/// Reads a chain of certificates, the server's own first, and its private key, both PEM.
///
/// # Errors
/// [`CertificateError`].
pub fn server_config(chain: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
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
    Ok(config)
}
