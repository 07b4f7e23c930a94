//! The configurations of both ends, made of one set of credentials.

use std::sync::Arc;

use caps::error::Result;
use caps::pop::Nonce;
use caps::{Code, Error};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, CommonState, ConnectionCommon, RootCertStore, ServerConfig, SideData, version};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::files::{Files, wrong};
use crate::identity::{Domain, PeerId, Role};
use crate::verify::Judge;

/// What both ends say they speak. A peer that does not say so is no part of this system.
pub const ALPN: &[u8] = b"leasehold/1";
/// What broker and provider say that they speak with each other. No client's session is a link, and no link a session.
pub const LINK_ALPN: &[u8] = b"leasehold-link/1";
/// What the exporter is asked for: see [`binding`]. RFC 8446 section 7.5.
const EXPORTER: &[u8] = b"EXPORTER-leasehold-session-v1";

/// Somebody's certificate and key with whom they believe, ready to be used.
#[derive(Clone)]
pub struct Credentials {
    id: PeerId,
    judge: Arc<Judge>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    link_server: Arc<ServerConfig>,
    link_client: Arc<ClientConfig>,
}

// By hand: the configurations hold a private key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.id)
    }
}

impl Credentials {
    /// Reads files and makes sure that they fit: the certificate is of `domain` and good now, it is believed by the same
    /// roots that its peers are held to, and the key is its.
    ///
    /// # Errors
    /// `E_CONFIG_TLS` with the name of the file and what is wrong with it.
    pub fn load(domain: &Domain, files: &Files) -> Result<Self> {
        let pems = files.read()?;
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for root in pems.roots {
            roots.add(root).map_err(|_| wrong(&files.roots, "one of its certificates is no root"))?;
        }
        let lists = pems.lists.iter().map(|list| OwnedCertRevocationList::from_der(list));
        let lists: Vec<CertRevocationList<'static>> =
            lists.map(|list| list.map(CertRevocationList::from)).collect::<Result<_, _>>().map_err(|_| {
                wrong(files.lists.as_deref().unwrap_or(&files.roots), "one of its lists is damaged")
            })?;
        let judge = Arc::new(Judge::new(domain.clone(), roots, lists, crypto.clone()));
        let id = judge.own(&pems.chain).map_err(|error| wrong(&files.chain, error.detail()))?;
        let fits = |_| wrong(&files.key, "it is not the key of the certificate");
        let server = server(crypto.clone(), judge.clone(), pems.chain.clone(), pems.key.clone_key());
        let server = Arc::new(server.map_err(fits)?);
        let client = Arc::new(client(crypto, judge.clone(), pems.chain, pems.key).map_err(fits)?);
        let (mut link_server, mut link_client) = ((*server).clone(), (*client).clone());
        link_server.alpn_protocols = vec![LINK_ALPN.to_vec()];
        link_client.alpn_protocols = vec![LINK_ALPN.to_vec()];
        let (link_server, link_client) = (Arc::new(link_server), Arc::new(link_client));
        Ok(Self { id, judge, server, client, link_server, link_client })
    }

    /// Who they say that their owner is.
    #[must_use]
    pub const fn id(&self) -> &PeerId {
        &self.id
    }

    /// For who accepts connections.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For who makes them.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// For a broker that accepts links.
    #[must_use]
    pub fn link_server(&self) -> Arc<ServerConfig> {
        self.link_server.clone()
    }

    /// For a provider that makes its link.
    #[must_use]
    pub fn link_client(&self) -> Arc<ClientConfig> {
        self.link_client.clone()
    }

    /// Who is at the other end of a session's connection whose handshake is over.
    ///
    /// # Errors
    /// `E_PEER_IDENTITY` if it is nobody, or does not speak this protocol.
    pub fn peer(&self, connection: &CommonState) -> Result<PeerId> {
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(Error::new(Code::PeerIdentity, "the other side does not speak leasehold/1"));
        }
        self.named(connection)
    }

    /// Who is at the other end of a link whose handshake is over: at a broker's end a provider, at a provider's a broker.
    ///
    /// # Errors
    /// `E_PEER_IDENTITY` if it is nobody, has another role, or does not speak the protocol of links.
    pub fn link_peer(&self, connection: &CommonState, role: Role) -> Result<PeerId> {
        if connection.alpn_protocol() != Some(LINK_ALPN) {
            return Err(Error::new(Code::PeerIdentity, "the other side does not speak leasehold-link/1"));
        }
        let peer = self.named(connection)?;
        if peer.role != role {
            let role = role.name();
            let detail = format!("the certificate at the other end of the link is not that of a {role}");
            return Err(Error::with(Code::PeerIdentity, detail));
        }
        Ok(peer)
    }

    fn named(&self, connection: &CommonState) -> Result<PeerId> {
        let leaf: &CertificateDer<'_> = connection
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(Error::new(Code::PeerIdentity, "the other side showed no certificate"))?;
        self.judge.identity(leaf)
    }
}

impl Credentials {
    /// Judges the certificate of a client anew, whose connection is open: its time may be over, or it may be on a list that
    /// was read since.
    ///
    /// # Errors
    /// `E_PEER_IDENTITY` if it would not be let in now.
    pub fn judge_again(&self, connection: &CommonState) -> Result<()> {
        self.judge_chain_again(connection.peer_certificates().unwrap_or_default(), Role::Principal)
    }

    /// The same for a chain that a connection showed, where that is not at hand: that of a server if `role` is a broker's,
    /// which accepts links, else that of a client.
    ///
    /// # Errors
    /// `E_PEER_IDENTITY` if it would not be believed now.
    pub fn judge_chain_again(&self, chain: &[CertificateDer<'_>], role: Role) -> Result<()> {
        let (leaf, between) = chain
            .split_first()
            .ok_or(Error::new(Code::PeerIdentity, "the other side showed no certificate"))?;
        self.judge.again(leaf, between, role == Role::Broker)
    }
}

/// 32 bytes that both ends of this connection know and nobody else does, and no other connection has: what a session
/// proves a key over, so that the proof of one connection is worth nothing on another.
///
/// # Errors
/// `E_INTERNAL` before the handshake is over.
pub fn binding<S: SideData>(connection: &ConnectionCommon<S>) -> Result<Nonce> {
    let early = |_| Error::new(Code::Internal, "the handshake is not over");
    connection.export_keying_material([0; 32], EXPORTER, None).map(Nonce).map_err(early)
}

type Key = rustls::pki_types::PrivateKeyDer<'static>;
type Chain = Vec<CertificateDer<'static>>;

fn server(
    crypto: Arc<CryptoProvider>,
    judge: Arc<Judge>,
    chain: Chain,
    key: Key,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(judge)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A ticket would let somebody in whose certificate was revoked since, and carry early data, which can be replayed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

fn client(
    crypto: Arc<CryptoProvider>,
    judge: Arc<Judge>,
    chain: Chain,
    key: Key,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // the library's word for a verifier that is not its own: ours asks its own and then the name
        .with_custom_certificate_verifier(judge)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // Whom it wants is not said in the clear.
    config.enable_sni = false;
    Ok(config)
}
