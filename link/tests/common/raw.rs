//! A provider that says whatever a test has it say.

use caps::limits::LINK_FRAME_BYTES_MAX;
use caps::wire::cluster::{
    BrokerAsks, Hello, PREFIX_BYTES, PROTOCOL, ProviderAsks, ProviderSays, Pulse, Refusal, ToBroker,
    ToProvider, decode, encode, length,
};
use caps::wire::provider::Registration;
use caps::wire::row::Tier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use transport::Reload;
use transport::rustls::pki_types::ServerName;

use super::soon;
use super::world::World;

pub struct Raw {
    pub stream: TlsStream<TcpStream>,
    asked: u64,
}

impl Raw {
    /// With the certificate of a role and a name.
    pub async fn connect(world: &World, who: &str) -> Self {
        Self::with(world, &world.ca.issue(who)).await
    }

    pub async fn with(world: &World, credentials: &Reload) -> Self {
        let credentials = credentials.now();
        let stream = TcpStream::connect(world.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(credentials.link_client());
        let stream = connector.connect(ServerName::try_from("b").unwrap(), stream).await.unwrap();
        Self { stream, asked: 0 }
    }

    pub async fn say(&mut self, message: &ToBroker) {
        self.bytes(&encode(message).unwrap()).await;
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        // A broker that closed already is heard by whoever reads.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next message; `None` at the end.
    pub async fn hear(&mut self) -> Option<ToProvider> {
        soon("the broker says nothing", async {
            let mut prefix = [0; PREFIX_BYTES];
            self.stream.read_exact(&mut prefix).await.ok()?;
            let mut body = vec![0; length(prefix, LINK_FRAME_BYTES_MAX).unwrap()];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(decode(&body).unwrap())
        })
        .await
    }

    /// Waits for the end, and says what was said last, if anything was.
    pub async fn bye(&mut self) -> Option<Refusal> {
        let mut last = None;
        while let Some(message) = self.hear().await {
            last = match message {
                ToProvider::Bye(refusal) => Some(refusal),
                _ => None,
            };
        }
        last
    }

    pub async fn hello(&mut self, registration: Registration, cluster: Option<caps::id::ClusterEpoch>) {
        let hello = Hello { protocol: PROTOCOL, registration, cluster };
        self.say(&ToBroker::Hello(Box::new(hello))).await;
    }

    /// From hello to joined; the place of the next notice.
    pub async fn join(&mut self, world: &World, registration: Registration, again: bool) -> u64 {
        self.hello(registration, again.then_some(world.cluster)).await;
        loop {
            match self.hear().await.unwrap() {
                ToProvider::Welcome(_) | ToProvider::Fact(_) => {}
                ToProvider::Told => self.say(&ToBroker::Ready).await,
                ToProvider::Joined { noted } => return noted,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks, and answers what is asked meanwhile as a provider does that has nothing.
    pub async fn ask(&mut self, ask: ProviderAsks) -> ToProvider {
        self.asked += 1;
        let mine = self.asked;
        self.say(&ToBroker::Ask { number: mine, ask }).await;
        loop {
            match self.hear().await.expect("the link is there") {
                ToProvider::Ask { number, ask } => self.answer(number, &ask).await,
                ToProvider::Answer { number, .. } | ToProvider::Failed { number, .. } if number != mine => {
                    panic!("the answer to another question")
                }
                answer => return answer,
            }
        }
    }

    /// Waits for a question of the broker that is no heartbeat.
    pub async fn asked(&mut self) -> (u64, BrokerAsks) {
        loop {
            match self.hear().await.expect("the link is there") {
                ToProvider::Ask { number, ask: ask @ BrokerAsks::Status } => self.answer(number, &ask).await,
                ToProvider::Ask { number, ask } => return (number, ask),
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn answer(&mut self, number: u64, ask: &BrokerAsks) {
        let says = match ask {
            BrokerAsks::Status => {
                ProviderSays::Status(Pulse { committed_bytes: 0, sessions: 7, tier: Tier::Open, entries: 0 })
            }
            BrokerAsks::Memory { .. } => ProviderSays::Memory(None),
            BrokerAsks::Claim { ticket } => {
                let says = ProviderSays::Claimed { bytes: ticket.bytes };
                self.say(&ToBroker::Answer { number, says }).await;
                return self.say(&ToBroker::Recorded { number, why: None }).await;
            }
            BrokerAsks::Renew { .. } | BrokerAsks::Fact(_) => ProviderSays::Done,
            BrokerAsks::Take { .. } => ProviderSays::Taken(caps::wire::link::Taken::default()),
        };
        self.say(&ToBroker::Answer { number, says }).await;
    }
}
