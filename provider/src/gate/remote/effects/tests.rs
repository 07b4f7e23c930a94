use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

fn holder(number: u8) -> PrincipalKey {
    PrincipalKey([number; 32])
}

fn client(number: usize) -> ClientId {
    ClientId((number as u128).to_be_bytes())
}

fn identity(number: u8) -> Identity {
    Identity::of_digest([number; 32])
}

/// Effects, and the hand of their clock in seconds.
fn effects() -> (Arc<Effects>, Arc<AtomicU64>) {
    let hand = Arc::new(AtomicU64::new(1));
    let clock = hand.clone();
    (Arc::new(Effects::new(move || BootNanos(clock.load(Ordering::SeqCst) * 1_000_000_000))), hand)
}

fn new(connected: &Connected, id: u64) -> UnderWay {
    match connected.begin(RequestId(id)) {
        Ok(Begun::New(under_way)) => under_way,
        Ok(Begun::Answered) => panic!("{id} was answered"),
        Err(error) => panic!("{id}: {error}"),
    }
}

fn code<T>(outcome: Result<T>) -> Option<Code> {
    outcome.err().map(|error| error.code())
}

fn again(connected: &Connected, id: u64, number: u8) -> Result<Vec<u8>, Code> {
    connected.again(RequestId(id), Some(identity(number))).map(|frames| frames.to_vec()).map_err(|e| e.code())
}

#[test]
fn what_was_answered_is_answered_the_same_on_another_connection() {
    let (effects, _) = effects();
    let first = effects.connect(holder(1), client(1)).unwrap();
    assert!(!first.is_known() && !first.has(RequestId(7)));
    let under_way = new(&first, 7);
    assert!(first.has(RequestId(7)), "it is under way");
    under_way.answered(identity(1), b"done");
    drop((first, under_way));
    let second = effects.connect(holder(1), client(1)).unwrap();
    assert!(second.is_known() && second.has(RequestId(7)) && !second.has(RequestId(8)));
    assert!(matches!(second.begin(RequestId(7)), Ok(Begun::Answered)));
    assert_eq!(again(&second, 7, 1), Ok(b"done".to_vec()));
    assert_eq!(again(&second, 7, 2), Err(Code::FrameDuplicate));
    assert_eq!(
        code(second.again(RequestId(7), None)),
        Some(Code::FrameDuplicate),
        "it is no reading request"
    );
    assert_eq!(code(second.refuse_known(RequestId(7))), Some(Code::FrameDuplicate));
    assert_eq!(code(second.refuse_known(RequestId(8))), None);
    // Neither another key with the same name nor another name of the same key is the same client.
    for (holder, client) in [(holder(2), client(1)), (holder(1), client(2))] {
        let other = effects.connect(holder, client).unwrap();
        assert!(matches!(other.begin(RequestId(7)), Ok(Begun::New(_))));
    }
    assert!(matches!(Connected::alone().begin(RequestId(7)), Ok(Begun::New(_))));
    // One that has not said who it is knows its own, which are counted while it is there.
    let alone = effects.alone(holder(1));
    let before = effects.bytes.load(Ordering::Relaxed);
    new(&alone, 7).answered(identity(1), &[0; 100]);
    assert_eq!(effects.bytes.load(Ordering::Relaxed), before + 100);
    drop(alone);
    assert_eq!(effects.bytes.load(Ordering::Relaxed), before);
}

#[test]
fn what_is_under_way_is_not_begun_twice_and_what_broke_off_is() {
    let (effects, _) = effects();
    let first = effects.connect(holder(1), client(1)).unwrap();
    let second = effects.connect(holder(1), client(1)).unwrap();
    let under_way = new(&first, 7);
    assert_eq!(code(second.begin(RequestId(7))), Some(Code::Busy));
    assert_eq!(code(second.refuse_known(RequestId(7))), Some(Code::FrameDuplicate));
    drop(first);
    assert_eq!(code(second.begin(RequestId(7))), Some(Code::Busy), "its connection is gone, and it goes on");
    drop(under_way);
    new(&second, 7).answered(identity(1), b"done");
    assert_eq!(again(&second, 7, 1), Ok(b"done".to_vec()));
}

#[test]
fn it_is_known_for_a_while_after_the_last_connection() {
    let (effects, hand) = effects();
    let first = effects.connect(holder(1), client(1)).unwrap();
    let second = effects.connect(holder(1), client(1)).unwrap();
    new(&first, 7).answered(identity(1), b"done");
    hand.fetch_add(EFFECTS_KEPT_MS, Ordering::SeqCst);
    drop(first);
    hand.fetch_add(EFFECTS_KEPT_MS, Ordering::SeqCst);
    assert_eq!(again(&second, 7, 1), Ok(b"done".to_vec()), "a connection is there");
    drop(second);
    hand.fetch_add(EFFECTS_KEPT_MS / 1_000 - 1, Ordering::SeqCst);
    let third = effects.connect(holder(1), client(1)).unwrap();
    assert_eq!(again(&third, 7, 1), Ok(b"done".to_vec()));
    drop(third);
    let end = effects.lock().drop_due((effects.boot)()).unwrap();
    assert_eq!(end.0, (effects.boot)().0 + KEPT_NS);
    hand.fetch_add(EFFECTS_KEPT_MS / 1_000, Ordering::SeqCst);
    assert_eq!(effects.lock().drop_due((effects.boot)()), None);
    assert!(effects.lock().0.is_empty());
    assert_eq!(effects.bytes.load(Ordering::SeqCst), 0);
    let fourth = effects.connect(holder(1), client(1)).unwrap();
    assert!(!fourth.is_known(), "it was forgotten");
    assert!(matches!(fourth.begin(RequestId(7)), Ok(Begun::New(_))));
}

#[test]
fn who_is_at_work_is_not_forgotten() {
    let (effects, hand) = effects();
    let first = effects.connect(holder(1), client(1)).unwrap();
    let under_way = new(&first, 7);
    drop(first);
    hand.fetch_add(10 * EFFECTS_KEPT_MS, Ordering::SeqCst);
    let now = (effects.boot)();
    assert!(effects.lock().drop_due(now).is_some_and(|next| next > now), "it is looked at again");
    under_way.answered(identity(1), b"done");
    effects.lock().drop_due(now);
    assert!(effects.lock().0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_task_forgets_without_being_asked() {
    let began = tokio::time::Instant::now();
    let effects = Effects::start(move || BootNanos(began.elapsed().as_nanos() as u64));
    let connected = effects.connect(holder(1), client(1)).unwrap();
    new(&connected, 7).answered(identity(1), b"done");
    drop(connected);
    tokio::time::sleep(Duration::from_millis(EFFECTS_KEPT_MS - 1)).await;
    assert_eq!(effects.bytes.load(Ordering::SeqCst), 4);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(effects.bytes.load(Ordering::SeqCst), 0);
    assert!(effects.lock().0.is_empty());
}

#[test]
fn nobody_has_more_clients_or_connections_than_it_may() {
    let (effects, hand) = effects();
    let mut own: Vec<_> = (0..EFFECTS_CLIENTS_PER_HOLDER_MAX)
        .map(|number| effects.connect(holder(1), client(number)).unwrap())
        .collect();
    assert_eq!(code(effects.connect(holder(1), client(EFFECTS_CLIENTS_PER_HOLDER_MAX))), Some(Code::Busy));
    let others: Vec<_> =
        (1..EFFECTS_CONNECTIONS_MAX).map(|_| effects.connect(holder(1), client(0)).unwrap()).collect();
    assert_eq!(code(effects.connect(holder(1), client(0))), Some(Code::Busy));
    drop(others);
    // The one that has been away the longest makes room.
    new(&own[3], 7).answered(identity(1), b"done");
    new(&own[5], 7).answered(identity(1), b"done");
    drop(own.remove(5));
    hand.fetch_add(1, Ordering::SeqCst);
    drop(own.remove(3));
    own.push(effects.connect(holder(1), client(EFFECTS_CLIENTS_PER_HOLDER_MAX)).unwrap());
    assert_eq!(effects.lock().0.len(), EFFECTS_CLIENTS_PER_HOLDER_MAX);
    own.push(effects.connect(holder(1), client(3)).unwrap());
    assert_eq!(again(own.last().unwrap(), 7, 1), Ok(b"done".to_vec()), "and no other");
    // Nobody else is concerned, until the node has its most.
    for number in 2..=(EFFECTS_CLIENTS_MAX / EFFECTS_CLIENTS_PER_HOLDER_MAX) as u8 {
        for one in 0..EFFECTS_CLIENTS_PER_HOLDER_MAX {
            own.push(effects.connect(holder(number), client(one)).unwrap());
        }
    }
    assert_eq!(effects.lock().0.len(), EFFECTS_CLIENTS_MAX);
    assert_eq!(code(effects.connect(holder(200), client(0))), Some(Code::Busy));
    drop(own.pop());
    own.push(effects.connect(holder(200), client(0)).unwrap());
    assert_eq!(effects.lock().0.len(), EFFECTS_CLIENTS_MAX);
}

#[test]
fn answers_take_no_more_bytes_than_they_may() {
    let (effects, hand) = effects();
    let large = vec![1; EFFECTS_CLIENT_BYTES_MAX / 2];
    let used = || effects.bytes.load(Ordering::SeqCst);
    let clients = EFFECTS_BYTES_MAX / EFFECTS_CLIENT_BYTES_MAX;
    let mut connected: Vec<_> = (0..=clients)
        .map(|number| effects.connect(holder((number / 8) as u8), client(number)).unwrap())
        .collect();
    for (number, one) in connected[..clients].iter().enumerate() {
        for id in 0..3 {
            new(one, id).answered(identity(1), &large);
            assert_eq!(used(), large.len() * (2 * number + 2.min(id as usize + 1)), "the oldest made room");
        }
        assert!(again(one, 0, 1) == Err(Code::Uncertain), "its number stays");
        assert!(again(one, 2, 1).as_deref() == Ok(&large[..]));
    }
    // Everybody is there, so nobody makes room: the last one's answer is not kept, and its number is.
    assert_eq!(used(), EFFECTS_BYTES_MAX);
    let last = connected.pop().unwrap();
    new(&last, 0).answered(identity(1), b"small");
    assert_eq!(again(&last, 0, 1), Err(Code::Uncertain));
    assert_eq!(again(&last, 0, 2), Err(Code::FrameDuplicate));
    // Who is away does.
    drop(connected.remove(1));
    hand.fetch_add(1, Ordering::SeqCst);
    drop(connected.remove(0));
    new(&last, 1).answered(identity(1), b"small");
    assert_eq!(again(&last, 1, 1), Ok(b"small".to_vec()));
    assert_eq!(used(), EFFECTS_BYTES_MAX - 2 * large.len() + 5);
    let first = effects.connect(holder(0), client(0)).unwrap();
    assert!(again(&first, 2, 1).as_deref() == Ok(&large[..]), "the one that was away for less stays");
    drop((connected, first, last));
    hand.fetch_add(EFFECTS_KEPT_MS, Ordering::SeqCst);
    effects.lock().drop_due((effects.boot)());
    assert_eq!(used(), 0);
}

#[test]
fn one_principal_does_not_take_the_bytes_of_others() {
    let (effects, hand) = effects();
    let large = vec![1; EFFECTS_CLIENT_BYTES_MAX];
    let clients = EFFECTS_HOLDER_BYTES_MAX / EFFECTS_CLIENT_BYTES_MAX;
    let mut own: Vec<_> =
        (0..=clients).map(|number| effects.connect(holder(1), client(number)).unwrap()).collect();
    let away = effects.connect(holder(2), client(1)).unwrap();
    new(&away, 1).answered(identity(1), b"theirs");
    drop(away);
    hand.fetch_add(1, Ordering::SeqCst);
    for one in &own[..clients] {
        new(one, 1).answered(identity(1), &large);
    }
    // Nobody of its own is away, and others do not make room.
    new(&own[clients], 1).answered(identity(1), b"small");
    assert_eq!(again(&own[clients], 1, 1), Err(Code::Uncertain));
    let back = effects.connect(holder(2), client(1)).unwrap();
    assert_eq!(again(&back, 1, 1), Ok(b"theirs".to_vec()));
    drop(own.remove(0));
    new(&own[clients - 1], 2).answered(identity(1), b"small");
    assert_eq!(again(&own[clients - 1], 2, 1), Ok(b"small".to_vec()), "its own makes room");
    let bytes = effects.bytes.load(Ordering::SeqCst);
    assert_eq!(bytes, EFFECTS_HOLDER_BYTES_MAX - large.len() + 5 + 6);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Connect(u8, usize),
    Disconnect(prop::sample::Index),
    Begin(prop::sample::Index, u64),
    Answer(prop::sample::Index, u8, usize),
    BreakOff(prop::sample::Index),
    Again(prop::sample::Index, u64, u8),
    Tick(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let any = any::<prop::sample::Index>;
    // Mostly few numbers, so that they meet, and now and then enough to push others out.
    let id = || prop_oneof![4 => 0_u64..6, 1 => 0_u64..400];
    let length = prop_oneof![
        8 => 0_usize..200,
        1 => EFFECTS_CLIENT_BYTES_MAX / 3..EFFECTS_CLIENT_BYTES_MAX + 2
    ];
    prop_oneof![
        3 => (0_u8..3, 0_usize..20).prop_map(|(holder, client)| Act::Connect(holder, client)),
        2 => any().prop_map(Act::Disconnect),
        8 => (any(), id()).prop_map(|(on, id)| Act::Begin(on, id)),
        6 => (any(), 0_u8..2, length).prop_map(|(of, identity, length)| Act::Answer(of, identity, length)),
        1 => any().prop_map(Act::BreakOff),
        6 => (any(), id(), 0_u8..2).prop_map(|(on, id, identity)| Act::Again(on, id, identity)),
        2 => (0_u64..2 * EFFECTS_KEPT_MS / 1_000).prop_map(Act::Tick),
    ]
}

/// An answer as it was given, and whether its bytes still are to be had.
#[derive(Clone)]
struct Given {
    id: u64,
    identity: u8,
    frames: Option<Vec<u8>>,
}

/// The rules once more, as lists that are searched. Clients that were forgotten stay in it, under a number of their own.
#[derive(Default)]
struct Model {
    clients: Vec<Naive>,
}

struct Naive {
    key: (u8, usize),
    connections: usize,
    away: Option<u64>,
    given: Vec<Given>,
    under_way: Vec<u64>,
    forgotten: bool,
}

impl Model {
    fn known(&self) -> impl Iterator<Item = usize> {
        (0..self.clients.len()).filter(|&at| !self.clients[at].forgotten)
    }

    fn forget_due(&mut self, now: u64) {
        for client in &mut self.clients {
            let is_over = client.away.is_some_and(|away| away + EFFECTS_KEPT_MS / 1_000 <= now);
            client.forgotten |= is_over && client.under_way.is_empty();
        }
    }

    fn connect(&mut self, now: u64, key: (u8, usize)) -> Option<usize> {
        self.forget_due(now);
        let known = self.known().find(|&at| self.clients[at].key == key);
        if let Some(at) = known {
            let client = &mut self.clients[at];
            if client.connections == EFFECTS_CONNECTIONS_MAX {
                return None;
            }
            (client.connections, client.away) = (client.connections + 1, None);
            return Some(at);
        }
        let of_holder: Vec<_> = self.known().filter(|&at| self.clients[at].key.0 == key.0).collect();
        if of_holder.len() == EFFECTS_CLIENTS_PER_HOLDER_MAX {
            let resting = of_holder
                .into_iter()
                .filter(|&at| self.clients[at].connections == 0 && self.clients[at].under_way.is_empty());
            let oldest = resting.min_by_key(|&at| (self.clients[at].away, self.clients[at].key))?;
            self.clients[oldest].forgotten = true;
        }
        self.clients.push(Naive {
            key,
            connections: 1,
            away: None,
            given: vec![],
            under_way: vec![],
            forgotten: false,
        });
        Some(self.clients.len() - 1)
    }
}

impl Naive {
    fn answer(&mut self, given: Given) {
        self.under_way.retain(|&id| id != given.id);
        self.given.push(given);
        if self.given.len() > EFFECTS_ANSWERS_MAX {
            self.given.remove(0);
        }
        let newest = self.given.last_mut().unwrap();
        if newest.frames.as_ref().is_some_and(|frames| frames.len() > EFFECTS_CLIENT_BYTES_MAX) {
            newest.frames = None;
        }
        while self.bytes() > EFFECTS_CLIENT_BYTES_MAX {
            self.given.iter_mut().find(|given| given.frames.is_some()).unwrap().frames = None;
        }
    }

    fn bytes(&self) -> usize {
        self.given.iter().filter_map(|given| given.frames.as_ref().map(Vec::len)).sum()
    }

    fn again(&self, id: u64, identity: u8) -> Result<Vec<u8>, Code> {
        match self.given.iter().find(|given| given.id == id) {
            None => Err(Code::Uncertain),
            Some(given) if given.identity != identity => Err(Code::FrameDuplicate),
            Some(given) => given.frames.clone().ok_or(Code::Uncertain),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens in whatever order, the tables answer as the lists do, and their bytes are those of the lists.
    #[test]
    fn it_is_the_naive_model_in_lockstep(acts in prop::collection::vec(act(), 1..300)) {
        let (effects, hand) = effects();
        let mut model = Model::default();
        let mut connected: Vec<(usize, Connected)> = vec![];
        let mut working: Vec<(usize, u64, UnderWay)> = vec![];
        for act in acts {
            let now = hand.load(Ordering::SeqCst);
            match act {
                Act::Connect(number, name) => {
                    let expected = model.connect(now, (number, name));
                    let got = effects.connect(holder(number), client(name));
                    prop_assert_eq!(code_of(&got), expected.is_none().then_some(Code::Busy));
                    if let (Some(at), Ok(got)) = (expected, got) {
                        connected.push((at, got));
                    }
                }
                Act::Disconnect(which) if !connected.is_empty() => {
                    let (at, _) = connected.swap_remove(which.index(connected.len()));
                    let client = &mut model.clients[at];
                    client.connections -= 1;
                    client.away = (client.connections == 0).then_some(now);
                }
                Act::Begin(on, id) if !connected.is_empty() => {
                    let (at, connection) = &connected[on.index(connected.len())];
                    let client = &mut model.clients[*at];
                    let was_answered = client.given.iter().any(|given| given.id == id);
                    let is_busy = client.under_way.contains(&id);
                    match connection.begin(RequestId(id)) {
                        Ok(Begun::Answered) => prop_assert!(was_answered),
                        Ok(Begun::New(under_way)) => {
                            prop_assert!(!was_answered && !is_busy);
                            client.under_way.push(id);
                            working.push((*at, id, under_way));
                        }
                        Err(error) => {
                            prop_assert_eq!(error.code(), Code::Busy);
                            prop_assert!(!was_answered && is_busy);
                        }
                    }
                }
                Act::Answer(of, number, length) if !working.is_empty() => {
                    let (at, id, under_way) = working.swap_remove(of.index(working.len()));
                    let frames = vec![id as u8; length];
                    under_way.answered(identity(number), &frames);
                    model.clients[at].answer(Given { id, identity: number, frames: Some(frames) });
                }
                Act::BreakOff(which) if !working.is_empty() => {
                    let (at, id, under_way) = working.swap_remove(which.index(working.len()));
                    drop(under_way);
                    model.clients[at].under_way.retain(|&other| other != id);
                }
                Act::Again(on, id, number) if !connected.is_empty() => {
                    let (at, connection) = &connected[on.index(connected.len())];
                    prop_assert!(again(connection, id, number) == model.clients[*at].again(id, number), "{}", id);
                }
                Act::Tick(seconds) => {
                    let now = now + seconds;
                    hand.store(now, Ordering::SeqCst);
                    model.forget_due(now);
                    effects.lock().drop_due((effects.boot)());
                }
                _ => {}
            }
            let bytes: usize = model.known().map(|at| model.clients[at].bytes()).sum();
            prop_assert!(bytes <= EFFECTS_BYTES_MAX);
            prop_assert_eq!(effects.bytes.load(Ordering::SeqCst), bytes);
            prop_assert_eq!(effects.lock().0.len(), model.known().count());
        }
    }
}

fn code_of<T>(outcome: &Result<T>) -> Option<Code> {
    outcome.as_ref().err().map(caps::error::Error::code)
}
