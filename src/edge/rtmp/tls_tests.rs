//! Certificates of every kind that people have, and a real TLS client.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::*;
use crate::edge::{
    certificate::CertificateError,
    rtmp::{IngestKeys, RtmpCounters, RtmpLimits, RtmpServer, fuzz::client_handshake},
};

const SOON: Duration = Duration::from_secs(20);

/// A folder with a certificate of `localhost` and its key.
fn files(name: &str, key: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("astral-tls-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", key, "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args([
            "-pkeyopt",
            if key == "ec" { "ec_paramgen_curve:P-256" } else { "rsa_keygen_bits:2048" },
        ])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&folder)
        .output()
        .expect("openssl is installed by the test command");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

#[test]
fn what_is_no_certificate_is_named_and_so_is_a_key_of_another() {
    let (one, two) = (files("one", "ec"), files("two", "rsa"));
    Certificate::load(&one.join("cert.pem"), &one.join("key.pem")).unwrap();
    Certificate::load(&two.join("cert.pem"), &two.join("key.pem")).unwrap();
    let absent = Certificate::load(&one.join("absent"), &one.join("key.pem")).unwrap_err();
    assert!(absent.to_string().contains("absent"), "{absent}");
    fs::write(one.join("text"), "no PEM").unwrap();
    let text = Certificate::load(&one.join("cert.pem"), &one.join("text")).unwrap_err();
    assert!(text.to_string().contains("text"), "{text}");
    let swapped = Certificate::load(&one.join("cert.pem"), &two.join("key.pem")).unwrap_err();
    assert!(matches!(swapped, CertificateError::Pair(_)), "{swapped}");
    for folder in [one, two] {
        fs::remove_dir_all(folder).unwrap();
    }
}

/// A server inside TLS on a port of its own, which runs for as long as the set of tasks; and what
/// its clients trust.
async fn server(
    name: &str,
    limits: RtmpLimits,
    tasks: &mut JoinSet<()>,
) -> (SocketAddr, Arc<RtmpCounters>, RootCertStore) {
    let folder = files(name, "ec");
    let certificate = Certificate::load(&folder.join("cert.pem"), &folder.join("key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    fs::remove_dir_all(folder).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = RtmpServer::new(listener, IngestKeys::default(), limits).secured(certificate);
    let counters = server.counters();
    tasks.spawn(server.run());
    (addr, counters, roots)
}

/// The server closes, perhaps after an alert; a reset is an end too.
async fn is_closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, socket.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() < 64);
}

#[tokio::test]
async fn inside_tls_is_rtmp_and_who_speaks_no_tls_costs_only_its_own_connection() {
    let mut tasks = JoinSet::new();
    // Nobody is given up for being slow here.
    let limits = RtmpLimits { setup_max: 3 * SOON, ..RtmpLimits::default() };
    let (addr, counters, roots) = server("server", limits, &mut tasks).await;

    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(&client_handshake()).await.unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    tls.write_all(&client_handshake()).await.unwrap();
    let mut answer = [0; 1 + 1_536];
    timeout(SOON, tls.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[0], 3, "the version of RTMP");

    is_closed(plain).await;
    let counts = counters.snapshot();
    assert_eq!((counts.malformed, counts.timed_out), (1, 0));
}

#[tokio::test]
async fn who_never_begins_tls_is_given_up() {
    let mut tasks = JoinSet::new();
    let limits = RtmpLimits { setup_max: Duration::from_millis(200), ..RtmpLimits::default() };
    let (addr, counters, _) = server("silent", limits, &mut tasks).await;
    is_closed(TcpStream::connect(addr).await.unwrap()).await;
    let counts = counters.snapshot();
    assert_eq!((counts.malformed, counts.timed_out), (0, 1));
}
