//! Handshakes between two ends in memory: who gets in, and who does not.

use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caps::Code;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;
use transport::{Credentials, Domain, Files, PeerId, Reload, Reloaded, Role, binding, rustls};

const ALICE: &str = "spiffe://mem.example/principal/alice";
const NODE: &str = "spiffe://mem.example/provider/node-1";

/// A CA, and a directory for what it issues.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// How a certificate differs from a good one.
#[derive(Default)]
struct Flaws {
    uris: Option<Vec<&'static str>>,
    usage: Option<Vec<ExtendedKeyUsagePurpose>>,
    is_ca: bool,
    expired: bool,
    not_yet: bool,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, directory: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Issues a certificate with its key, and says where it all lies.
    fn issue(&self, name: &str, uri: &'static str, serial: u64, flaws: Flaws) -> Files {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uris = flaws.uris.unwrap_or_else(|| vec![uri]);
        params.subject_alt_names =
            uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())).collect();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = flaws.usage.unwrap_or_else(|| {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        });
        if flaws.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if flaws.expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        if flaws.not_yet {
            params.not_before = date_time_ymd(2200, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            chain: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            roots: self.path("roots.pem"),
            lists: None,
        };
        put(&files.chain, &certificate.pem());
        put(&files.key, &key.serialize_pem());
        put(&files.roots, &self.issuer.pem());
        files
    }

    /// A list of what was revoked, in time or not.
    fn list(&self, name: &str, revoked: &[u64], in_time: bool) -> PathBuf {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(if in_time { 2200 } else { 2021 }, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path(name);
        put(&path, &params.signed_by(&self.issuer).unwrap().pem().unwrap());
        path
    }
}

/// Writes a file that only its owner reads, anew, as whoever rotates a certificate should.
fn put(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new();
    file.write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    std::fs::rename(fresh, path).unwrap();
}

fn domain() -> Domain {
    Domain::new("mem.example").unwrap()
}

fn load(files: &Files) -> Credentials {
    Credentials::load(&domain(), files).unwrap()
}

/// Two ends, after as much of the handshake as they let each other have.
fn meet(
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, "node".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut wire = vec![];
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut coming = &wire[..];
        while !coming.is_empty() {
            server.read_tls(&mut coming).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = vec![];
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut coming = &wire[..];
        while !coming.is_empty() {
            client.read_tls(&mut coming).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn met(client: &Credentials, server: &Credentials) -> Result<(PeerId, PeerId), rustls::Error> {
    let (at_client, at_server) = meet(client.client(), server.server())?;
    Ok((client.peer(&at_client).unwrap(), server.peer(&at_server).unwrap()))
}

#[test]
fn both_ends_learn_who_the_other_is_and_share_a_secret_of_this_connection() {
    let ca = Authority::new();
    let alice = load(&ca.issue("alice", ALICE, 1, Flaws::default()));
    let node = load(&ca.issue("node", NODE, 2, Flaws::default()));
    let (mut client, mut server) = meet(alice.client(), node.server()).unwrap();
    assert_eq!(alice.peer(&client).unwrap().to_string(), NODE);
    assert_eq!(node.peer(&server).unwrap().to_string(), ALICE);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(binding(&client).unwrap(), binding(&server).unwrap());
    let (other, _) = meet(alice.client(), node.server()).unwrap();
    assert_ne!(binding(&client).unwrap(), binding(&other).unwrap());

    client.writer().write_all(b"hello").unwrap();
    let mut wire = vec![];
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets().unwrap();
    let mut heard = [0; 5];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    // The same bytes on another connection are nothing.
    let (_, mut again) = meet(alice.client(), node.server()).unwrap();
    again.read_tls(&mut &wire[..]).unwrap();
    assert!(again.process_new_packets().is_err(), "h3: a recorded message is refused");
}

#[test]
fn d1_a_client_without_a_certificate_is_refused() {
    let ca = Authority::new();
    let files = ca.issue("node", NODE, 1, Flaws::default());
    let node = load(&files);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.issuer.der().clone()).unwrap();
    let nobody = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(meet(Arc::new(nobody), node.server()).is_err());
}

#[test]
fn d2_d3_d4_flawed_certificates_are_refused_by_either_end() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    let good = load(&ca.issue("good", NODE, 1, Flaws::default()));
    let files = |name, flaws| ca.issue(name, ALICE, 2, flaws);
    let client_only = Some(vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let server_only = Some(vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let bad = [
        ("of another CA", stranger.issue("x", ALICE, 2, Flaws::default())),
        ("expired", files("expired", Flaws { expired: true, ..Flaws::default() })),
        ("not yet valid", files("not_yet", Flaws { not_yet: true, ..Flaws::default() })),
        ("a CA's own", files("ca", Flaws { is_ca: true, ..Flaws::default() })),
    ];
    for (what, files) in &bad {
        let refused = Credentials::load(&domain(), &Files { roots: ca.path("roots.pem"), ..files.clone() });
        assert_eq!(refused.unwrap_err().code(), Code::ConfigTls, "{what}, by its owner");
        assert!(meet(Arc::new(careless_client(files)), good.server()).is_err(), "{what}, at a server");
        assert!(meet(good.client(), Arc::new(careless_server(files))).is_err(), "{what}, at a client");
    }
    let fine = ca.issue("fine", NODE, 3, Flaws::default());
    assert!(meet(good.client(), Arc::new(careless_server(&fine))).is_ok(), "it is not the carelessness");
    let client_only = load(&files("client_only", Flaws { usage: client_only, ..Flaws::default() }));
    let server_only = load(&files("server_only", Flaws { usage: server_only, ..Flaws::default() }));
    assert!(met(&client_only, &good).is_ok() && met(&good, &server_only).is_ok());
    assert!(met(&good, &client_only).is_err(), "a client's certificate at a server");
    assert!(met(&server_only, &good).is_err(), "a server's certificate at a client");
}

#[test]
fn d4_a_certificate_that_names_nobody_or_several_is_refused() {
    let ca = Authority::new();
    let good = load(&ca.issue("good", NODE, 1, Flaws::default()));
    let odd: [&[&str]; 6] = [
        &[],
        &[ALICE, "spiffe://mem.example/principal/bob"],
        &["spiffe://other.example/principal/alice"],
        &["spiffe://mem.example/principal/*"],
        &["https://mem.example/principal/alice"],
        &["spiffe://mem.example/principal/alice\0"],
    ];
    for uris in odd {
        let files = ca.issue("odd", ALICE, 2, Flaws { uris: Some(uris.to_vec()), ..Flaws::default() });
        let refused = Credentials::load(&domain(), &files).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigTls, "{uris:?}");
        assert!(refused.detail().contains("odd.pem"), "{refused:?}");
        // Whoever is not told so by its own side is told by the other.
        assert!(meet(Arc::new(careless_client(&files)), good.server()).is_err(), "{uris:?}");
    }
    // It is the certificate that is refused: the same carelessness with a good one gets in.
    let files = ca.issue("fine", ALICE, 2, Flaws::default());
    assert!(meet(Arc::new(careless_client(&files)), good.server()).is_ok());
}

#[test]
fn d6_who_speaks_something_else_is_refused() {
    let ca = Authority::new();
    let (files, node) =
        (ca.issue("alice", ALICE, 1, Flaws::default()), load(&ca.issue("node", NODE, 2, Flaws::default())));
    for protocols in [vec![], vec![b"h2".to_vec()], vec![b"leasehold/2".to_vec()]] {
        let mut client = careless_client(&files);
        client.alpn_protocols = protocols.clone();
        let heard = meet(Arc::new(client), node.server()).map(|(_, at_server)| node.peer(&at_server));
        assert!(!matches!(heard, Ok(Ok(_))), "{protocols:?}");
    }
}

#[test]
fn d8_nothing_is_resumed_and_nothing_is_early() {
    let ca = Authority::new();
    let files = ca.issue("alice", ALICE, 1, Flaws::default());
    let node = load(&ca.issue("node", NODE, 2, Flaws::default()));
    let mut eager = careless_client(&files);
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let (mut client, _) = meet(eager.clone(), node.server()).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert!(!client.is_early_data_accepted() && client.early_data().is_none());
    }
}

/// A client that believes anybody.
fn careless_client(files: &Files) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut client = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.alpn_protocols = vec![transport::ALPN.to_vec()];
    client
}

/// A server that asks nobody who he is.
fn careless_server(files: &Files) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut server = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![transport::ALPN.to_vec()];
    server
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let crypto = rustls::crypto::aws_lc_rs::default_provider();
        crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn d3_lists_are_asked_and_no_list_is_no_excuse() {
    let ca = Authority::new();
    let alice = load(&ca.issue("alice", ALICE, 7, Flaws::default()));
    let node = |list: PathBuf| Files { lists: Some(list), ..ca.issue("node", NODE, 2, Flaws::default()) };
    assert!(met(&alice, &load(&node(ca.list("fine.crl", &[8], true)))).is_ok());
    assert!(met(&alice, &load(&node(ca.list("revoked.crl", &[7], true)))).is_err());
    // A list whose time is over, or that somebody else signed, says nothing of anybody: not of oneself either.
    let elsewhere = Authority::new();
    let other = std::fs::read_to_string(elsewhere.list("other.crl", &[], true)).unwrap();
    put(&ca.path("other.crl"), &other);
    for list in [ca.list("late.crl", &[8], false), ca.path("other.crl")] {
        let refused = Credentials::load(&domain(), &node(list)).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigTls);
    }
    for (name, content) in [("empty.crl", ""), ("rubbish.crl", "rubbish")] {
        put(&ca.path(name), content);
        let refused = Credentials::load(&domain(), &node(ca.path(name))).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigTls);
    }
    let refused = Credentials::load(&domain(), &node(ca.path("missing.crl"))).unwrap_err();
    assert_eq!(refused.code(), Code::ConfigTls);
}

#[test]
fn d9_files_are_read_again_and_bad_ones_change_nothing() {
    let ca = Authority::new();
    let alice = load(&ca.issue("alice", ALICE, 1, Flaws::default()));
    let files = ca.issue("node", NODE, 2, Flaws::default());
    let reload = Reload::load(domain(), files.clone()).unwrap();
    assert!(matches!(reload.look(), Reloaded::Same));
    let kept = |what: &str| {
        match reload.look() {
            Reloaded::Kept(error) => assert_eq!(error.code(), Code::ConfigTls, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(met(&alice, &reload.now()).is_ok(), "{what}: the one before is still in use");
        assert!(matches!(reload.look(), Reloaded::Same), "{what}: it is said once");
    };
    let good = std::fs::read_to_string(&files.chain).unwrap();
    put(&files.chain, &good[..good.len() / 2]);
    kept("half of a certificate");
    put(&files.chain, "");
    kept("nothing");
    std::fs::remove_file(&files.chain).unwrap();
    kept("no file");
    std::fs::create_dir(&files.chain).unwrap();
    kept("a directory");
    std::fs::remove_dir(&files.chain).unwrap();
    // Into which nobody writes: it is not waited for.
    mknodat(CWD, &files.chain, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    kept("a pipe");
    std::fs::remove_file(&files.chain).unwrap();
    put(&files.chain, &good);
    assert!(matches!(reload.look(), Reloaded::New(_)));

    let key = std::fs::read_to_string(&files.key).unwrap();
    put(&files.key, &KeyPair::generate().unwrap().serialize_pem());
    kept("another key");
    put(&files.key, &key);
    assert!(matches!(reload.look(), Reloaded::New(_)));
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o640)).unwrap();
    kept("a key that others may read");
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(reload.look(), Reloaded::New(_)), "its mode was put right");

    ca.issue("node", "spiffe://mem.example/provider/node-2", 3, Flaws::default());
    kept("somebody else's certificate");
    ca.issue("node", NODE, 4, Flaws::default());
    assert!(matches!(reload.look(), Reloaded::New(_)));
    assert!(met(&alice, &reload.now()).is_ok());
}

#[test]
fn a_link_is_between_a_broker_and_a_provider_and_is_no_session() {
    let ca = Authority::new();
    let broker = load(&ca.issue("broker", "spiffe://mem.example/broker/b", 1, Flaws::default()));
    let node = load(&ca.issue("node", NODE, 2, Flaws::default()));
    let alice = load(&ca.issue("alice", ALICE, 3, Flaws::default()));
    let (at_node, at_broker) = meet(node.link_client(), broker.link_server()).unwrap();
    assert_eq!(node.link_peer(&at_node, Role::Broker).unwrap().name.as_str(), "b");
    assert_eq!(broker.link_peer(&at_broker, Role::Provider).unwrap().to_string(), NODE);
    let refused = |peer: caps::Result<PeerId>| assert_eq!(peer.unwrap_err().code(), Code::PeerIdentity);
    refused(node.link_peer(&at_node, Role::Provider));
    refused(broker.link_peer(&at_broker, Role::Broker));
    // It is no session, at either end.
    refused(node.peer(&at_node));
    refused(broker.peer(&at_broker));
    // A client believes the certificate, and has another role; nor does a provider stand in for a broker.
    let (_, at_broker) = meet(alice.link_client(), broker.link_server()).unwrap();
    refused(broker.link_peer(&at_broker, Role::Provider));
    let (at_node, _) = meet(node.link_client(), node.link_server()).unwrap();
    refused(node.link_peer(&at_node, Role::Broker));
    // Sessions and links do not meet.
    assert!(meet(alice.client(), broker.link_server()).is_err());
    assert!(meet(node.link_client(), broker.server()).is_err());
    let (at_alice, at_broker) = meet(alice.client(), broker.server()).unwrap();
    refused(broker.link_peer(&at_broker, Role::Provider));
    refused(alice.link_peer(&at_alice, Role::Broker));
}

#[test]
fn d9_the_chains_of_open_links_are_judged_again() {
    let ca = Authority::new();
    let files = ca.issue("broker", "spiffe://mem.example/broker/b", 1, Flaws::default());
    let listed = |serial| {
        let list = ca.list(&format!("{serial}.crl"), &[serial], true);
        load(&Files { lists: Some(list), ..files.clone() })
    };
    let node = load(&ca.issue("node", NODE, 2, Flaws::default()));
    let (at_node, at_broker) = meet(node.link_client(), listed(7).link_server()).unwrap();
    let (provider, broker) = (at_broker.peer_certificates().unwrap(), at_node.peer_certificates().unwrap());
    listed(7).judge_chain_again(provider, Role::Provider).unwrap();
    listed(7).judge_chain_again(broker, Role::Broker).unwrap();
    let refused = listed(2).judge_chain_again(provider, Role::Provider).unwrap_err();
    assert_eq!(refused.code(), Code::PeerIdentity);
    let refused = listed(7).judge_chain_again(&[], Role::Broker).unwrap_err();
    assert_eq!(refused.code(), Code::PeerIdentity);
}
