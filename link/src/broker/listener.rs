//! Accepts connections, one task each, and serves them until they are over.
//!
//! ```text
//! accept ──▶ door ──▶ TLS ──▶ Hello ──▶ registry ──▶ facts, Ready ──▶ joined ──▶ over
//!              │        └──── greeting time ───┘         ready time
//!              └ too many: closed
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::runtime::Handle;
use caps::error::{Code, Error, Result};
use caps::wire::cluster::{Hello, ToProvider};
use policy::limits::LINKS_MAX;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use transport::Reload;

use super::FactsSource;
use super::admission::{AtDoor, Door};
use super::desk::Desk;
use super::greeting::{hear, meet, tell};
use super::refusals::Refusals;
use super::registry::Registry;
use super::remote::{Asked, RemoteProvider};
use super::serve::{Joined, serve};
use super::source::Known;
use crate::Timings;
use crate::end::End;
use crate::line::{Outgoing, linger, write};

/// How long accepting rests after it failed, for want of descriptors most likely.
const REST: Duration = Duration::from_millis(100);

/// Where providers come.
pub struct Listener {
    socket: TcpListener,
    desk: Arc<Shared>,
}

/// What all links share.
struct Shared {
    credentials: Arc<Reload>,
    handle: Handle,
    source: Arc<FactsSource>,
    timings: Timings,
    registry: Arc<Registry>,
    /// Links that have said who they are.
    places: Arc<Semaphore>,
    /// Lines of the node's own log about connections that came to nothing: who is let in nowhere must not fill it.
    strangers: Refusals,
}

impl Listener {
    /// Binds an address. Nobody is accepted before [`Self::serve`]. The files of `credentials` are looked at by whoever has
    /// them; connections that are open are judged again by what they are.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if the address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        credentials: Arc<Reload>,
        handle: Handle,
        source: Arc<FactsSource>,
        timings: Timings,
    ) -> Result<Self> {
        let socket = TcpListener::bind(address).await.map_err(|error| {
            Error::with(Code::ConfigValue, format!("cannot accept providers at {address}: {error}"))
        })?;
        let registry = Arc::new(Registry::new(handle.clone()));
        let places = Arc::new(Semaphore::new(LINKS_MAX));
        let strangers = Refusals::default();
        let desk = Arc::new(Shared { credentials, handle, source, timings, registry, places, strangers });
        Ok(Self { socket, desk })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// `E_SYSTEM`.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(|_| Error::new(Code::System, "the socket has no address"))
    }

    /// Accepts providers, for ever. Dropping the future cuts every link.
    pub async fn serve(self) {
        let door = Arc::new(Door::default());
        let mut links = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = links.join_next() => continue,
            };
            match accepted {
                Ok((stream, from)) => match door.enter(from.ip(), Instant::now().into_std()) {
                    Some(at_door) => {
                        links.spawn(link(Arc::clone(&self.desk), stream, from, at_door));
                    }
                    None => self.desk.turned_away(from, &"there are too many, or too many of that address"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting providers failed");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

impl Shared {
    fn turned_away(&self, from: SocketAddr, why: &dyn std::fmt::Display) {
        if let Some(left_out) = self.strangers.count(self.handle.now()) {
            tracing::warn!(%from, %why, left_out, "a connection of a provider, or of whoever it is, came to nothing");
        }
    }
}

/// One connection.
async fn link(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, at_door: AtDoor) {
    if let Err(error) = run(&shared, stream, at_door).await {
        shared.turned_away(from, &error);
    }
}

/// An error: it never became a link.
async fn run(shared: &Arc<Shared>, stream: TcpStream, at_door: AtDoor) -> Result<()> {
    let timings = &shared.timings;
    let by = Instant::now() + timings.greeting;
    let late = |_| Error::new(Code::Timeout, "the connection took too long to say who it is");
    let _ = stream.set_nodelay(true); // slower without, and no worse
    let met = timeout_at(by, meet(stream, &shared.credentials, timings)).await.map_err(late)??;
    let (mut reader, mut writer) = tokio::io::split(met.stream);
    let hello = async {
        let peer = met.peer?;
        timeout_at(by, hear(&mut reader, &peer, &shared.source, timings)).await.map_err(late)?
    };
    let hello = hello.await;
    let (joined, at_door) = match hello {
        Ok(hello) => {
            drop(at_door);
            (join(shared, hello, &mut reader, &mut writer).await, None)
        }
        // At the door until it is told: nobody knows who it is.
        Err(error) => (Err(error), Some(at_door)),
    };
    let Halves { out, frames, desk, known, _place } = match joined {
        Ok(halves) => halves,
        Err(error) => {
            let _ = write(&mut writer, &ToProvider::Bye((&error).into()), timings.bye).await;
            let _ = timeout(timings.bye, writer.shutdown()).await;
            linger(&mut reader, timings.bye).await;
            drop(at_door);
            return Err(error);
        }
    };
    let (provider, life) = (desk.life.registration.name.clone(), desk.life.registration.id);
    tracing::info!(%provider, %life, "a provider has joined");
    let joined = Joined { from: reader, to: writer, chain: met.chain, out, frames, desk, known };
    let why = serve(joined, &shared.credentials, timings).await;
    tracing::warn!(%provider, %life, %why, "a provider's link is over");
    Ok(())
}

/// What a link that has joined has beside its stream.
struct Halves {
    out: Outgoing,
    frames: mpsc::Receiver<Vec<u8>>,
    desk: Desk,
    known: Known,
    _place: OwnedSemaphorePermit,
}

/// From a hello to joined.
async fn join(
    shared: &Shared,
    hello: Hello,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Halves> {
    let Shared { handle, source, timings, registry, places, .. } = shared;
    let Hello { registration, cluster, .. } = hello;
    let full = |_| Error::new(Code::Busy, "there are as many links as there may be");
    let place = Arc::clone(places).try_acquire_owned().map_err(full)?;
    let end = End::new();
    let greeting = registry.greets(&registration.name, &end);
    let known = tokio::select! {
        why = end.over() => return Err(why),
        known = tell(reader, writer, source, timings) => known?,
    };
    // Before it is registered: a change of now is waited for.
    let known = source.joins(known);
    let (out, frames) = Outgoing::new();
    let asked = Asked::new(out.clone(), end.clone(), timings.clone());
    let link = Arc::new(RemoteProvider::new(Arc::clone(&asked), handle.clone(), registration.bytes));
    let life = registry.join(&registration, cluster.is_some(), &end, link).await?;
    known.joined(registration.id);
    drop(greeting);
    // First of all that is written: what the runtime asked meanwhile waits for its lane.
    out.send(&ToProvider::Joined { noted: life.noted() })?;
    asked.open();
    let desk = Desk::new(handle.clone(), source.cluster().1, life, asked);
    // A look that the link before did not live to see whole.
    desk.look();
    Ok(Halves { out, frames, desk, known, _place: place })
}
