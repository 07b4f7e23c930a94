//! A wire between provider and broker: carries bytes, is cut, carries nothing more, and leads somewhere else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use caps::wire::provider::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Wire {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
    _accept: JoinSet<()>,
}

struct State {
    to: SocketAddr,
    whole: bool,
    lines: JoinSet<()>,
    /// Of the lines there are; new ones carry.
    carry: watch::Sender<bool>,
    made: usize,
}

impl Wire {
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let carry = watch::Sender::new(true);
        let state = State { to, whole: true, lines: JoinSet::new(), carry, made: 0 };
        let state = Arc::new(Mutex::new(state));
        let mut accept = JoinSet::new();
        accept.spawn(run(listener, Arc::clone(&state)));
        Self { at, state, _accept: accept }
    }

    pub fn address(&self) -> Address {
        Address::new(&self.at.to_string()).unwrap()
    }

    /// Cuts every line. New ones lead nowhere until it is mended.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.whole = false;
        state.lines.abort_all();
    }

    pub fn mend(&self) {
        self.state.lock().unwrap().whole = true;
    }

    /// The lines that are there carry nothing any more, and nobody is told. New ones do carry.
    pub fn hush(&self) {
        let mut state = self.state.lock().unwrap();
        let silent = std::mem::replace(&mut state.carry, watch::Sender::new(true));
        silent.send_replace(false);
        // Kept: a line whose sender is gone would take it for cut.
        state.lines.spawn(async move {
            let _silent = silent;
            std::future::pending::<()>().await;
        });
    }

    /// New lines lead there.
    pub fn lead_to(&self, to: SocketAddr) {
        self.state.lock().unwrap().to = to;
    }

    /// Lines that were made.
    pub fn made(&self) -> usize {
        self.state.lock().unwrap().made
    }
}

async fn run(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let (to, whole) = {
            let state = state.lock().unwrap();
            (state.to, state.whole)
        };
        if !whole {
            continue;
        }
        let Ok(far) = TcpStream::connect(to).await else { continue };
        let (near_from, near_to) = near.into_split();
        let (far_from, far_to) = far.into_split();
        let mut state = state.lock().unwrap();
        let carry = state.carry.subscribe();
        state.made += 1;
        // One line is one task: cut, both of its ends close.
        state.lines.spawn(async move {
            tokio::select! {
                () = copy(near_from, far_to, carry.clone()) => {}
                () = copy(far_from, near_to, carry) => {}
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut carry: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        if carry.wait_for(|carry| *carry).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
