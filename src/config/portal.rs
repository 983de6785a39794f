//! What a node shows to the public, as flags and settings files write it.
//!
//! Owns its six settings and what they need of each other. Does not own the portal (see `api::portal`),
//! nor reading its certificate.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// What is asked for; nothing is shown to the public unless it is.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
#[command(next_help_heading = "Portal")]
pub struct Portal {
    /// Show to everybody, on an address of its own, what is live, and the supernodes to join through
    /// (--bootstrap https://NAME); no control of this node is there [default address: 0.0.0.0:8080]
    #[arg(long, env = "ASTRAL_PORTAL", value_name = "ADDR", num_args = 0..=1, default_missing_value = "0.0.0.0:8080")]
    pub portal: Option<SocketAddr>,
    /// A host name of the portal; may be given several times. Literal addresses always count
    #[arg(long, env = "ASTRAL_PORTAL_NAME", value_name = "NAME", value_delimiter = ',')]
    pub portal_name: Vec<String>,
    /// Viewers who may watch through the portal at the same time, each with a whole copy of this
    /// node's uplink [default: 0]
    #[arg(long, env = "ASTRAL_PORTAL_VIEWERS", value_name = "N")]
    pub portal_viewers: Option<usize>,
    /// Serve HTTPS with this certificate chain (PEM); it is read again when it changes
    #[arg(long, env = "ASTRAL_PORTAL_CERT", value_name = "FILE")]
    pub portal_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "ASTRAL_PORTAL_KEY", value_name = "FILE")]
    pub portal_key: Option<PathBuf>,
    /// A proxy stands before the portal: believe its X-Forwarded-For
    #[arg(long, env = "ASTRAL_PORTAL_PROXY", num_args = 0..=1, default_missing_value = "true")]
    pub portal_proxy: Option<bool>,
}

/// Settings of a portal that do not go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PortalError {
    /// There is no portal.
    #[error("the settings of a portal are for a node with --portal")]
    None,
    /// Half of what HTTPS needs.
    #[error("HTTPS needs both --portal-cert FILE and --portal-key FILE")]
    Certificate,
}

impl Portal {
    /// With what `file` says where this says nothing.
    ///
    /// # Errors
    /// [`PortalError`] when the two together are no portal.
    pub fn or(self, file: Self) -> Result<Self, PortalError> {
        let flags = self.portal_name;
        let settled = Self {
            portal: self.portal.or(file.portal),
            portal_name: if flags.is_empty() { file.portal_name } else { flags },
            portal_viewers: self.portal_viewers.or(file.portal_viewers),
            portal_cert: self.portal_cert.or(file.portal_cert),
            portal_key: self.portal_key.or(file.portal_key),
            portal_proxy: self.portal_proxy.or(file.portal_proxy),
        };
        if settled.portal.is_none() && settled != Self::default() {
            return Err(PortalError::None);
        }
        if settled.portal_cert.is_some() != settled.portal_key.is_some() {
            return Err(PortalError::Certificate);
        }
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_a_portal_and_half_a_certificate_are_refused() {
        let viewers = Portal { portal_viewers: Some(3), ..Portal::default() };
        let there = Portal { portal: "127.0.0.1:8080".parse().ok(), ..Portal::default() };
        assert_eq!(viewers.clone().or(Portal::default()), Err(PortalError::None));
        let both = viewers.or(there.clone()).unwrap();
        assert_eq!((both.portal, both.portal_viewers), (there.portal, Some(3)));
        let half = Portal { portal_key: Some("key.pem".into()), ..there.clone() };
        assert_eq!(half.or(Portal::default()), Err(PortalError::Certificate));
        assert_eq!(there.clone().or(Portal::default()), Ok(there));
        assert_eq!(Portal::default().or(Portal::default()), Ok(Portal::default()));
    }
}
