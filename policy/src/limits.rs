//! Every bound of the system: one named constant each, unit in the name, reason in the doc comment.
//!
//! The bounds of tokens and frames stand in [`caps::limits`], because clients need them too; they are re-exported, so
//! that this page is the whole list. How the bounds depend on one another is asserted at the end of the file, at
//! compile time: change one and the build says which other it breaks.
//!
//! A constant that ends in `_DEFAULT` is what a node uses when its configuration is silent; the `_MIN` and `_MAX`
//! beside it are what the configuration may say.

pub use caps::limits::*;

/// Bytes of a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes of a GiB.
pub const GIB: u64 = 1 << 30;
/// Bytes of a TiB.
pub const TIB: u64 = 1 << 40;

// ---- Leases

/// Shortest life of a lease in milliseconds: ten times the bound within which an expiry is enforced, so that the
/// stated precision stays below a tenth of any life.
pub const LEASE_TTL_MS_MIN: u64 = 100;
/// Longest life that a configuration may allow, in milliseconds (7 days). A right without a near end is ownership.
pub const LEASE_TTL_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Longest life, where the configuration is silent, in milliseconds (24 hours).
pub const LEASE_TTL_MS_MAX_DEFAULT: u64 = 24 * 60 * 60 * 1_000;
/// Life of a lease whose request does not say, in milliseconds (10 minutes): long enough to work, short enough that a
/// forgotten lease gives its memory back within a coffee break.
pub const LEASE_TTL_MS_DEFAULT: u64 = 10 * 60 * 1_000;
/// Smallest lease in bytes. Sizes are rounded up to whole pages, so one byte costs a page.
pub const LEASE_BYTES_MIN: u64 = 1;
/// How long a reservation waits for its claim in milliseconds. Populating and pinning 1 GiB takes 0.25 s with huge
/// pages and 0.9 s without; a claim that needs more is lost and its capacity goes back.
pub const RESERVATION_MS_MAX: u64 = 5_000;
/// Bytes for which a reservation waits a millisecond longer: a machine with more to do than processors zeroes at least
/// 64 MiB a second.
pub const RESERVATION_BYTES_PER_MS: u64 = 64 * KIB;
/// Most leases of a node: the capacity of the lease table. 10,000 is what the benchmarks hold; the rest is room.
pub const LEASES_MAX: usize = 16_384;
/// Most leases of one principal, where the configuration is silent: a sixteenth of the table, so that sixteen
/// principals gone wrong still leave nobody else without a row.
pub const LEASES_PER_PRINCIPAL_DEFAULT: u32 = 1_024;
/// Ended leases and grants that a node remembers so that a list can say how they ended.
pub const ENDED_ROWS_MAX: usize = 1_024;

/// Bytes that one principal may lease, where the configuration is silent: room for a working set, not for the pool of
/// an ordinary server.
pub const QUOTA_LEASED_BYTES_DEFAULT: u64 = GIB;
/// Bytes of memory that one principal may hold, those being wiped included, where the configuration is silent: a full
/// set can be made while another is being taken back.
pub const QUOTA_RESIDENT_BYTES_DEFAULT: u64 = 2 * QUOTA_LEASED_BYTES_DEFAULT;
/// Bytes that one principal may share, summed over its grants, where the configuration is silent: all it may lease,
/// with four others.
pub const QUOTA_SHARED_BYTES_DEFAULT: u64 = 4 * QUOTA_LEASED_BYTES_DEFAULT;
/// Largest number of bytes that a quota may name: the largest pool, shared a thousandfold. The sums of all principals
/// stay far below 64 bits.
pub const QUOTA_BYTES_MAX: u64 = 1_024 * POOL_BYTES_MAX;

// ---- Grants, principals, revocations

/// Most live grants of a node: two for each lease.
pub const GRANTS_MAX: usize = 32_768;
/// Most live grants of one lease. A revoke of the lease visits each of them.
pub const GRANTS_PER_LEASE_MAX: usize = 256;
/// Most live grants that one principal may have issued, where the configuration is silent.
pub const GRANTS_PER_PRINCIPAL_DEFAULT: u32 = 2_048;
/// How long an offered grant waits for its acceptance in milliseconds (24 hours), if its own TTL is not shorter.
pub const GRANT_ACCEPT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How long an offer waits for its co-signer in milliseconds (24 hours): it is read by people, who sleep.
pub const GRANT_COSIGN_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Most registered principals.
pub const PRINCIPALS_MAX: usize = 4_096;
/// Most grants of one region that a provider remembers as revoked, narrowed or opened. An entry is dropped once the
/// right would have expired by itself; while none can be, a revoke ends the whole region.
pub const REVOCATIONS_PER_REGION_MAX: usize = 4_096;
/// Most marks of revoked tokens that one lease remembers, 100 KiB at each of broker and provider. An entry is dropped
/// once no token could use it; while none can be, a revoke ends the grant, or the lease, instead.
pub const MARKS_PER_REGION_MAX: usize = 1_024;
/// How many of these there may be before those who hold a delegated token, and are no party to the lease or the grant,
/// can add none: a delegate can make tokens without end, and whoever gave it the first must have room to end that.
pub const MARKS_OF_DELEGATES_MAX: usize = MARKS_PER_REGION_MAX / 2;
/// Most grants, each counted for reading and for writing, to whom the file of one segment is handed out: all live
/// ones of a lease, and its owner.
pub const EXPOSURES_PER_SEGMENT_MAX: usize = 2 * (GRANTS_PER_LEASE_MAX + 1);
/// Receipts that a node remembers, to give the same one to who revokes the same again.
pub const RECEIPTS_KEPT_MAX: usize = 1_024;
/// Leases that these receipts name, in all: every lease of a full table once, 256 KiB.
pub const RECEIPTS_LEASES_KEPT_MAX: usize = LEASES_MAX;

// ---- Sessions

/// Most sessions of a node. Each costs two descriptors (socket and pidfd) and its buffers.
pub const SESSIONS_MAX: usize = 1_024;
/// Most sessions of one user id: half of all, so that one user cannot lock the others out.
pub const SESSIONS_PER_UID_MAX: usize = 512;
/// Sessions kept free for the administrator's and the node's own user id, so that a full node can still be told to
/// revoke.
pub const SESSIONS_RESERVED: usize = 16;
/// Connections that wait to be accepted. More wait in `connect` itself, with the time that the client gives it.
pub const ACCEPT_BACKLOG_MAX: i32 = 128;
/// Most open rights of a node: the capacity of the slot table, 4 for each lease.
pub const SLOTS_MAX: usize = 65_536;
/// Most open rights of one session.
pub const SLOTS_PER_SESSION_MAX: usize = 16_384;
/// Rights that one principal may have open at one time, by itself and by those it delegated to, where the
/// configuration is silent: as many as one session, a quarter of the table.
pub const OPENS_PER_PRINCIPAL_DEFAULT: u32 = SLOTS_PER_SESSION_MAX as u32;
/// Those of them that may be mapped, where the configuration is silent: all.
pub const MAPPINGS_PER_PRINCIPAL_DEFAULT: u32 = OPENS_PER_PRINCIPAL_DEFAULT;
/// Most blocks with limits on use whose counts a provider keeps for one region: 16 for each of its live grants. A
/// count is dropped once every token below its block is over; while none can be, tokens with further such blocks are
/// refused with `E_BUSY`, and those that are counted go on.
/// Half of them are the owner's own, the other half of all who have something from it, by a grant or delegated.
pub const METERS_PER_REGION_MAX: usize = 16 * GRANTS_PER_LEASE_MAX;
/// Of these, the ones of one receiver, whatever it made of its grants and for whom: an eighth of its side's half. Beyond
/// it, its tokens with further such blocks are refused with `E_QUOTA`, and nobody else's are.
pub const METERS_PER_RECEIVER_MAX: usize = METERS_PER_REGION_MAX / 16;
/// Rights whose opening a session remembers as recorded, and whose closings it sums up in one entry. Beyond it each
/// opening and each closing is an entry again.
pub const SESSION_RIGHTS_MAX: usize = 256;
/// Bytes that remembering one such right takes, at most: its key in two tables, its sums.
pub const SESSION_RIGHT_BYTES_MAX: usize = 256;
/// Changing requests whose numbers and answers a session remembers, so that one that is asked again is answered again:
/// as many as a client of ours has unanswered at one time.
pub const SESSION_ANSWERS_MAX: usize = 32;
/// Bytes of these answers that a session keeps. The oldest make room; their numbers stay.
pub const SESSION_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Verified tokens that a session remembers: opening again costs no signatures.
pub const SESSION_TOKENS_MAX: usize = 16;
/// Bytes that all sessions' verified tokens take, in all: sixteen of ordinary size in each session. Without it, the
/// largest ones would take more than the node keeps for itself.
pub const VERIFIED_BYTES_MAX: usize = 16 << 20;
/// Bytes of these that one user id's sessions may take: a quarter, so that one user cannot make the others pay for
/// their signatures again.
pub const VERIFIED_BYTES_PER_UID_MAX: usize = VERIFIED_BYTES_MAX / 4;
/// What a verified token costs beyond its own bytes, at most: its terms, and of each block what it leaves, its keys, its
/// revocation ids and their marks.
pub const VERIFIED_TOKEN_EXTRA_BYTES: usize = 6 << 10;
/// Pause of the accepting task when no descriptor is left, in milliseconds: long enough not to spin, short enough
/// that nobody in the backlog notices.
pub const ACCEPT_PAUSE_MS: u64 = 20;
/// How long after its hang-up every process may still be seen to have died, in milliseconds: the socket closes before
/// the process is gone, by some microseconds where a core is free.
pub const EXIT_SOON_MS: u64 = 50;
/// How long after that a few sessions of each user go on looking, in milliseconds: for a machine that is very busy.
pub const EXIT_NOTICE_MS_MAX: u64 = 1_000;
/// Ended sessions of one user id that wait so long. They count as sessions until then.
pub const EXIT_WAITS_PER_UID_MAX: usize = 64;
/// How often a dead process' status is looked for: its parent has to reap it first.
pub const EXIT_LOOKS_MAX: u32 = 200;
/// Pause between two such looks, in milliseconds. Together: two seconds.
pub const EXIT_LOOK_MS: u64 = 10;
/// From accept to a proven key on the local socket, and from the end of the TLS handshake to one over TLS, in
/// milliseconds.
pub const HELLO_MS_MAX: u64 = 2_000;
/// From accept to the end of the TLS handshake in milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// How long a reply may wait for a client that takes nothing of it, in milliseconds. Then the session ends.
pub const SEND_MS_MAX: u64 = 1_000;
/// How long a session without requests is kept in milliseconds (1 hour); on the local socket, one without rights.
pub const SESSION_IDLE_MS_MAX: u64 = 60 * 60 * 1_000;
/// How long a client waits for an answer in milliseconds, where it does not say.
pub const REQUEST_MS_DEFAULT: u64 = 10_000;

// ---- Sessions over TLS

/// Most connections over TLS of a node that serves them: 10,000 that are idle, and room. Each costs two descriptors, its
/// keys, what it was answered last that cannot be done twice, and no buffer while it is idle between two frames.
pub const REMOTE_SESSIONS_MAX: usize = 16_384;
/// Of these, those of one network (24 bits of IPv4, 56 of IPv6): three quarters, so that one network cannot lock the
/// others out.
pub const REMOTE_SESSIONS_PER_NETWORK_MAX: usize = REMOTE_SESSIONS_MAX / 4 * 3;
/// Of these, those of one principal, from whatever networks.
pub const REMOTE_SESSIONS_PER_PRINCIPAL_MAX: usize = REMOTE_SESSIONS_PER_NETWORK_MAX;
/// Connections beyond these that are told so: telling takes a handshake. More are hung up on.
pub const REMOTE_REFUSALS_MAX: usize = 256;
/// Connections whose session has not begun, also those that wait for the turn of their network. One more takes the place
/// of the oldest.
pub const REMOTE_GREETINGS_MAX: usize = 1_024;
/// Pause between two accepted connections while there are so many, in milliseconds. So the oldest is about a second old
/// when another takes its place: whoever means it is through by then.
pub const REMOTE_GREETING_PACE_MS: u64 = 1;
/// Connections over TLS that wait to be accepted.
pub const REMOTE_BACKLOG_MAX: i32 = 1_024;
/// TLS handshakes that one network may have begun in a second, in the long run: half of a processor's time.
pub const REMOTE_HANDSHAKES_PER_S: u32 = 500;
/// Those of a network that are begun at once after a quiet time: as many as may be beginning.
pub const REMOTE_HANDSHAKES_BURST: u32 = REMOTE_GREETINGS_MAX as u32;
/// How long a connection whose ClientHello has come waits for the turn of its network, in milliseconds. One that would
/// wait longer is hung up on.
pub const REMOTE_HANDSHAKE_WAIT_MS_MAX: u64 = 1_000;
/// Networks whose handshakes are counted apart. Those beyond share one count until others have been quiet for a while.
pub const REMOTE_RATED_NETWORKS_MAX: usize = 4_096;
/// New connections that a thread takes in before it looks at its others.
pub const REMOTE_BEGUN_PER_ROUND: usize = 16;
/// Most threads that serve TLS: more than that would only take turns with those that do other work.
pub const REMOTE_SHARDS_MAX: usize = 4;
/// How long a frame may take from its first byte to its last, in milliseconds, while the node reads.
pub const REMOTE_FRAME_MS_MAX: u64 = 10_000;
/// Bytes of frames whose rest has not come, that all connections over TLS together may have sent. Beyond it the oldest
/// ends of the principal that has sent most of them. Each has less than a frame and a record: a frame is judged as a
/// whole, by its checksum among others, and what was cut off has had no effect. So it is held until it is whole, and it
/// has to have room for a chunk of 64 KiB and what says where that belongs.
///
/// Also of what has come and waits for the node. Nobody ends for that; beyond it [`REMOTE_SCARCE_READ_BYTES`] are read.
pub const REMOTE_PARTIALS_BYTES_MAX: usize = 64 << 20;
/// How long a request may have waited in the node when its turn comes, in milliseconds. Beyond it there is more to do than
/// can be done, and it is refused with `E_BUSY` at once instead of being served late.
pub const REMOTE_WAIT_MS_MAX: u64 = 500;
/// Bytes of ciphertext that are read from a connection at once.
pub const REMOTE_READ_BYTES: usize = 64 << 10;
/// The same while [`REMOTE_PARTIALS_BYTES_MAX`] wait for the node already.
pub const REMOTE_SCARCE_READ_BYTES: usize = 4 << 10;
/// How often a connection is read from before it is the next one's turn.
pub const REMOTE_READS_PER_TURN: usize = 4;
/// Bytes that a full read has to mean, of a hundred of its ciphertext, to be followed by another in the same turn. The
/// smallest request over TLS means 60.
pub const REMOTE_CRUMBS_PERCENT: usize = 25;
/// Bytes that the kernel may hold of what is sent on a connection. They have left when a right ends, and the take-back
/// waits for them.
pub const REMOTE_SEND_BYTES_MAX: usize = 256 << 10;
/// How long the node goes on reading after it has refused a connection's frame, in milliseconds: what is closed with bytes
/// unread is reset, and the reason with it.
pub const REMOTE_PARTING_MS_MAX: u64 = 500;
/// Pause between two looks whether the reason has arrived, in milliseconds.
pub const REMOTE_PARTING_LOOK_MS: u64 = 5;
/// After which silence a connection is asked whether it is still there, in milliseconds.
pub const REMOTE_KEEPALIVE_MS: u64 = 30_000;
/// Pause between such questions, in milliseconds.
pub const REMOTE_KEEPALIVE_STEP_MS: u64 = 10_000;
/// Questions without an answer after which a connection is gone: with those before, two spans of
/// [`REMOTE_KEEPALIVE_MS`].
pub const REMOTE_KEEPALIVES_MAX: u32 = 3;
/// Longest trust domain in bytes, as the SPIFFE specification has it.
pub const DOMAIN_BYTES_MAX: usize = 255;
/// How often certificates, keys and lists are looked at, in milliseconds.
pub const REMOTE_RELOAD_MS: u64 = 2_000;
/// How often the certificates of open connections are judged again though no file has changed, in milliseconds (5
/// minutes): so much longer than its certificate a connection lives at most.
pub const REMOTE_JUDGE_MS: u64 = 5 * 60 * 1_000;
/// Connections whose certificates a thread judges before it looks at its others: some milliseconds.
pub const REMOTE_JUDGED_PER_ROUND: usize = 8;
/// How long the end of the gate waits for requests that are being worked on, in milliseconds.
pub const REMOTE_STOP_MS_MAX: u64 = 1_000;
/// Descriptors of a connection: its socket, once more for those who take memory back.
pub const FDS_PER_REMOTE_SESSION: u64 = 2;

// ---- The revocation canary

/// How often the canary revokes, where the configuration is silent, in milliseconds (30 s). A run writes eight
/// entries, 5 KB, so that this is 14 MB of logs a day; every second it would be 400.
pub const CANARY_EVERY_MS_DEFAULT: u64 = 30_000;
/// Most often that it may, in milliseconds.
pub const CANARY_EVERY_MS_MIN: u64 = 500;
/// Least often, in milliseconds (10 minutes): its sessions must not count as idle.
pub const CANARY_EVERY_MS_MAX: u64 = 10 * 60 * 1_000;
/// Life of the canary's lease in milliseconds (10 minutes), where leases may live so long. After half of it another is
/// made: a lease a run would double the entries.
pub const CANARY_LEASE_MS_MAX: u64 = 10 * 60 * 1_000;
/// How long after its time a run may be heard of, in milliseconds, before the canary counts as stopped: longer than
/// each request of one may wait.
pub const CANARY_LATE_MS_MAX: u64 = 15_000;
/// How long a request of the canary waits for its answer, in milliseconds.
pub const CANARY_REQUEST_MS_MAX: u64 = 5_000;
/// How long after a receipt the receiver may be without an answer, in milliseconds, before the run counts as failed.
pub const CANARY_DEATH_MS_MAX: u64 = 2_000;
/// Newest runs of which the percentiles are.
pub const CANARY_RUNS_KEPT: usize = 256;
/// Bytes of a line that the canary tells the node.
pub const CANARY_LINE_BYTES_MAX: usize = 512;
/// How long the node waits, when it starts, for the canary's keys, in milliseconds.
pub const CANARY_START_MS_MAX: u64 = 2_000;

// ---- Queues and batches

/// Commands that wait for the broker: one from each of 1,024 sessions, four times over.
pub const BROKER_QUEUE_MAX: usize = 4_096;
/// Commands that the broker applies and makes durable together. At 0.2 ms a sync this is far above the rate asked for.
pub const BROKER_BATCH_MAX: usize = 256;
/// Jobs of clients that wait for the provider.
pub const PROVIDER_QUEUE_MAX: usize = 4_096;
/// Take-backs that wait for the provider: every lease at once, because taking back is never refused.
pub const TAKE_QUEUE_MAX: usize = LEASES_MAX;
/// Threads that cut. A cut that the kernel holds up keeps its thread, and the next region gets another; usually one
/// does all the work.
pub const CUT_THREADS_MAX: usize = 64;
/// Threads that wipe. Wiping is bound by memory: more threads would only share its rate.
pub const WIPE_THREADS_MAX: usize = 4;
/// Most rotations that copy at one time: each waits for memory, and processors are few.
pub const ROTATION_THREADS_MAX: usize = 4;
/// How long a spare segment stays ready that no right needs any more, in milliseconds.
pub const SPARE_LINGER_MS: u64 = 10_000;
/// Entries that wait for the audit devices.
pub const AUDIT_QUEUE_MAX: usize = 8_192;
/// Entries that one sync makes durable.
pub const AUDIT_BATCH_MAX: usize = 1_024;
/// Bytes that one sync makes durable: a batch of ordinary entries of at most 1 KiB.
pub const AUDIT_BATCH_BYTES_MAX: usize = 1 << 20;
/// Policy decisions that may be worked on at once. Each is one bounded computation on its own thread's stack.
pub const POLICY_WORKERS_MAX: usize = 4;

// ---- Taking back

/// From a revoke's arrival, or an expiry, until no new operation can begin, in milliseconds.
pub const FENCE_MS_MAX: u64 = 10;
/// How long a take-back waits for operations in flight in milliseconds.
pub const DRAIN_MS_MAX: u64 = 100;
/// How often a take-back looks whether what was sent over the network has left, in microseconds: a tenth of what a reset
/// takes on a slow link, and no burden for a processor.
pub const SETTLE_LOOK_US: u64 = 100;
/// How often it is tried to give back a lease of a request that broke off.
pub const REMOTE_UNDO_TRIES_MAX: u32 = 8;
/// Between the first and the second time, in milliseconds; each later pause is twice the one before.
pub const REMOTE_UNDO_RETRY_MS: u64 = 100;
/// Most rights for which a connection over TLS knows apart which of its bytes are whose: those of two batches. Of more it
/// knows that there are bytes under way, and a take-back waits for all of them.
pub const OUTGOING_RIGHTS_MAX: usize = 2 * REMOTE_BATCH_ITEMS_MAX;
/// How long a data request over TLS may take that does not say, in milliseconds: a gibibyte at 18 MB/s.
pub const REMOTE_REQUEST_MS_DEFAULT: u64 = 60_000;
/// How long such a request may take at most, whatever it says, in milliseconds.
pub const REMOTE_REQUEST_MS_MAX: u64 = 10 * REMOTE_REQUEST_MS_DEFAULT;
/// Chunks that one data request moves before the others of its thread have their turn: 1 MiB, some 200 us.
pub const REMOTE_TURN_CHUNKS_MAX: u32 = 16;
/// Mappings under tokens that a client narrowed or delegated end on multiples of this time, in milliseconds since boot: at
/// the last one before the token's end. Such an end rotates segments that others map, and their number and times are the
/// client's to choose; so a region meets one for all of them in each of these spans, and no more.
pub const MAPPING_END_STEP_MS: u64 = 1_000;
/// How long a local holder may block a take-back, in milliseconds, before it is killed.
pub const KILL_MS_MAX: u64 = 1_000;
/// Expiries per second that are cut within their bound; the rest of a burst is queued in order.
pub const EXPIRIES_PER_S_MAX: usize = 1_000;
/// Most descriptors in flight to one client: the kernel counts them per user until they are received.
pub const DESCRIPTORS_IN_FLIGHT_MAX: usize = 1;
/// Rights that a session says it listens for, that it does not have, and of whose end it has not read yet. An honest one
/// has some for a moment: those that ended between their opening and its word.
pub const CHANNEL_STRANGERS_MAX: usize = 256;

// ---- Clocks

/// How far two machines' clocks may be apart in milliseconds. Tokens are judged with it; deadlines never are.
pub const CLOCK_SKEW_MS_MAX: u64 = 2_000;
/// Smallest step of the wall clock that is recorded, in milliseconds.
pub const CLOCK_STEP_MS_MIN: u64 = 500;

// ---- Memory

/// Bytes of a page on the machines we support.
pub const PAGE_BYTES: u64 = 4 * KIB;
/// Bytes of a huge page. Mappings are aligned to it: 1 GiB cuts in 1 ms aligned and in 68 ms misaligned.
pub const HUGE_PAGE_BYTES: u64 = 2 * MIB;
/// Largest region in bytes. A bound so that every sum of sizes fits 64 bits; the pool is the bound that bites.
pub const REGION_BYTES_MAX: u64 = TIB;
/// Smallest segment in bytes, where an owner chooses: what can be mapped and cut on its own.
pub const SEGMENT_BYTES_MIN: u64 = PAGE_BYTES;
/// Largest segment in bytes: one registered buffer, so that a segment is pinned, copied and wiped by one buffer.
pub const SEGMENT_BYTES_MAX: u64 = PIN_PIECE_BYTES_MAX;
/// Most segments of one region: each is a file, a pin and a mapping of its own, and a cut takes a few microseconds of
/// time for every one of them.
pub const SEGMENTS_PER_REGION_MAX: u64 = 1_024;
/// Most segments of all regions together: every lease has one, and the table of descriptors is the bound.
pub const SEGMENTS_MAX: usize = LEASES_MAX;
/// Bytes of the pool that are kept populated and free so that one segment can always be rotated: the largest that is
/// in use, and never more than this.
pub const POOL_HEADROOM_BYTES_MAX: u64 = SEGMENT_BYTES_MAX;
/// Largest piece of memory in one io_uring registered buffer, in bytes: the kernel's bound.
pub const PIN_PIECE_BYTES_MAX: u64 = GIB;
/// Most registered buffers of one ring: the kernel's bound.
pub const PIN_PIECES_MAX: u64 = 16_384;
/// Smallest pool in bytes: eight huge pages. Below that there is nothing to share.
pub const POOL_BYTES_MIN: u64 = 16 * MIB;
/// Largest pool in bytes.
pub const POOL_BYTES_MAX: u64 = 16 * TIB;
/// Most of `MemAvailable` at start that the pool may take, in percent. The pool is pinned and cannot be swapped: what
/// is left is all that the rest of the machine has, and the OOM killer must never be our answer.
pub const POOL_RAM_PERCENT_MAX: u64 = 80;
/// What the pool takes of `MemAvailable` at start, where the configuration is silent, in percent.
pub const POOL_RAM_PERCENT_DEFAULT: u64 = 25;
/// Pages that are present in the provider's own mappings, for words that clients have changed, of all regions together. The
/// kernel counts a page, or the huge page that it is of, as the provider's own while it is, and takes the largest process
/// first when memory runs out.
pub const WORD_PAGES_MAX: usize = 64;
/// Bytes of RAM that a node keeps for itself: tables, buffers, queues and stacks, beyond the pool.
pub const NODE_RAM_BYTES_RESERVED: u64 = 128 * MIB;
/// Kernel memory of a region of 64 KiB in bytes, at most: a detached tmpfs, its inode, its pin.
pub const REGION_KERNEL_BYTES_MAX: u64 = 12 * KIB;
/// The node's own memory for a lease in bytes, at most: table rows, deadlines, names.
pub const LEASE_USER_BYTES_MAX: u64 = 4 * KIB;
/// How full the pool may be in percent before `status` warns.
pub const POOL_WATERMARK_PERCENT: u64 = 85;

// ---- Descriptors

/// Descriptors held for a region: its file, or its mount.
pub const FDS_PER_REGION: u64 = 1;
/// Descriptors held for a session: the socket, the peer's pidfd and the rotation channel.
pub const FDS_PER_SESSION: u64 = 3;
/// Descriptors kept free for audit files, timers, rings and logs, so that a flood of clients cannot take them.
pub const FDS_RESERVED: u64 = 128;
/// Descriptors that a node with full tables holds that serves no TLS; `doctor` compares it with RLIMIT_NOFILE.
pub const FDS_MAX: u64 =
    LEASES_MAX as u64 * FDS_PER_REGION + SESSIONS_MAX as u64 * FDS_PER_SESSION + FDS_RESERVED;
/// The same for one that does. One with fewer serves fewer connections and leases.
pub const FDS_REMOTE_MAX: u64 =
    FDS_MAX + (REMOTE_SESSIONS_MAX + REMOTE_REFUSALS_MAX) as u64 * FDS_PER_REMOTE_SESSION;

// ---- Audit

/// Largest entry in bytes: its length stands in 16 bits.
pub const AUDIT_ENTRY_BYTES_MAX: usize = 65_535;
/// Refused tokens of one peer user id that get an entry each in one window; the others are counted exactly.
pub const AUDIT_REJECTS_PER_PEER_MAX: u32 = 100;
/// The window of [`AUDIT_REJECTS_PER_PEER_MAX`] in milliseconds.
pub const AUDIT_REJECTS_WINDOW_MS: u64 = 10_000;
/// Peer user ids whose refusals are counted apart; beyond that they share one count.
pub const AUDIT_REJECT_PEERS_MAX: usize = 256;
/// Most audit devices.
pub const AUDIT_DEVICES_MAX: usize = 4;
/// A device that does not answer for so many milliseconds counts as failed.
pub const AUDIT_STALL_MS_MAX: u64 = 1_000;
/// How often a checkpoint is signed, where the configuration is silent, in milliseconds.
pub const CHECKPOINT_MS_DEFAULT: u64 = 1_000;
/// Most often that a checkpoint may be signed, in milliseconds.
pub const CHECKPOINT_MS_MIN: u64 = 10;
/// Least often, in milliseconds (1 hour): until a checkpoint, a thief of the machine can rewrite the end of the log.
pub const CHECKPOINT_MS_MAX: u64 = 60 * 60 * 1_000;
/// Entries after which a checkpoint is signed early, where the configuration is silent: one full tile.
pub const CHECKPOINT_ENTRIES_DEFAULT: u32 = 256;
/// Most entries between two checkpoints that a configuration may ask for: one tile of tiles.
pub const CHECKPOINT_ENTRIES_MAX: u32 = 65_536;

// ---- Faults

/// Faults of one session, of all kinds, that the reaction `log` forgives before the session ends. Not counted: use of
/// a right that the session had and that ended, which is how an honest holder learns of a revoke, and quotas.
pub const FAULTS_PER_SESSION_MAX: u32 = 16;
/// Handles that a session is remembered to have been given, so that a stale one of its own is told from a forged one.
/// Of those beyond, only the last right at each place of the slot table is known.
pub const SESSION_HANDLES_KEPT_MAX: usize = 1_024;
/// Refusals by quota that one principal may have in a window before they are a fault: a program that retries in a
/// loop passes it within a second, one that asks for what it needs never does.
pub const QUOTA_REFUSALS_MAX: u32 = 64;
/// That window in milliseconds, from the first refusal in it.
pub const QUOTA_REFUSALS_WINDOW_MS: u64 = 10_000;
/// Principals whose refusals by quota are counted at one time: every one that can be registered. When it is full, the
/// oldest window makes room.
pub const QUOTA_REFUSAL_ROWS_MAX: usize = PRINCIPALS_MAX;
/// How often a blocked cut's holders are looked for and killed, once every [`KILL_MS_MAX`]. After that only the end of
/// the process can help, which the operator is told.
pub const KILL_ROUNDS_MAX: u32 = 8;
/// Regions in quarantine at one time, a segment that a rotation could not wipe counted as one.
pub const QUARANTINE_REGIONS_MAX: usize = 64;
/// Most of the pool that regions in quarantine may hold, in percent: what breaks rules must not take the pool from
/// who keeps them.
pub const QUARANTINE_POOL_PERCENT_MAX: u64 = 25;

// ---- Donations of quota

/// Donations of quota at one time, those included that are over and not wholly back: as many as there are principals. A
/// command looks at those of the principals that it changes, one of which may have been given all of them, and of one
/// that ends for many leases at once each of their owners comes once.
pub const DONATIONS_MAX: usize = PRINCIPALS_MAX;
/// Donations of one giver at one time: a sixty-fourth of the table, so that givers gone wrong leave room for others.
pub const DONATIONS_PER_GIVER_MAX: usize = 64;

// ---- The operator's files

/// Largest configuration file in bytes. The default one has 3 KiB.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Most mistakes that are listed for one file; a count of the others follows.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Most user ids on the allow-list.
pub const ALLOW_UIDS_MAX: usize = 256;
/// Most quotas with a name: one for each principal.
pub const QUOTAS_MAX: usize = PRINCIPALS_MAX;

// ---- The policy

/// Largest policy in bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Largest file that is read as a policy, in bytes: enough to say where the bound falls in one that is too large.
pub const POLICY_FILE_BYTES_MAX: usize = 4 << 20;
/// Longest line of a policy in bytes. Nobody reviews a longer one.
pub const POLICY_LINE_BYTES_MAX: usize = 1_024;
/// Longest statement of a policy in bytes, comments left out.
pub const POLICY_STATEMENT_BYTES_MAX: usize = 4_096;
/// Most statements of a policy.
pub const POLICY_STATEMENTS_MAX: usize = 256;
/// Deepest nesting of brackets in a policy, and most `!` in a statement. The parser recurses on each: at 10,000 it
/// overflows the stack, which no program survives.
pub const POLICY_NESTING_MAX: usize = 16;
/// Most words and signs in a statement. The parser builds, and drops, one nested box for each operator.
pub const POLICY_TOKENS_MAX: usize = 512;
/// Most alternatives (`or`) of a statement.
pub const POLICY_QUERIES_MAX: usize = 16;
/// Most predicates in the body of a rule or a query. Each multiplies the combinations that are tried.
pub const POLICY_BODY_MAX: usize = 5;
/// Most arguments of a predicate.
pub const POLICY_ARITY_MAX: usize = 8;
/// Most facts that a policy may state. The engine looks through all of them for every predicate.
pub const POLICY_FACTS_MAX: usize = 64;
/// Most combinations of facts that all rules and queries of a policy together may have to try for one decision. The
/// engine looks at the clock only between queries, so this is the bound that holds: at most some 10 ms.
pub const POLICY_COMBINATIONS_MAX: u64 = 16_384;
/// Longest chain of rules on rules. Rules that lead back to themselves are refused.
pub const POLICY_RULE_DEPTH_MAX: usize = 4;
/// Most facts in one decision, derived ones included.
pub const POLICY_DECISION_FACTS_MAX: u64 = 1_024;
/// Most rounds of rules in one decision: the longest chain, the round that finds nothing new, and one to spare.
pub const POLICY_DECISION_ROUNDS_MAX: u64 = 8;
/// Backstop for one decision in milliseconds. Reaching it is an error, never a "no".
pub const POLICY_DECISION_MS_MAX: u64 = 1_000;
/// Most pairs of alternatives that the lint compares: beyond a thousand of each it says so and stops.
pub const POLICY_LINT_PAIRS_MAX: usize = 1 << 20;
/// Decisions remembered, in two generations of half of it each. One is about half a KiB.
pub const POLICY_MEMO_MAX: usize = 2_048;

// How the bounds hang together. Each line names what would break.

const _: () =
    assert!(LEASE_TTL_MS_MIN <= LEASE_TTL_MS_DEFAULT && LEASE_TTL_MS_DEFAULT <= LEASE_TTL_MS_MAX_DEFAULT);
const _: () =
    assert!(LEASE_TTL_MS_MAX_DEFAULT <= LEASE_TTL_MS_MAX, "the default is within what may be configured");
const _: () = assert!(FENCE_MS_MAX * 10 <= LEASE_TTL_MS_MIN, "an expiry is precise to a tenth of any life");
const _: () =
    assert!(FENCE_MS_MAX < DRAIN_MS_MAX && DRAIN_MS_MAX < KILL_MS_MAX, "fence, then drain, then kill");
const _: () = assert!(
    DRAIN_MS_MAX * 10 <= MAPPING_END_STEP_MS,
    "rotations that clients cause take a tenth of the time"
);
const _: () = assert!(SETTLE_LOOK_US * 100 < DRAIN_MS_MAX * 1_000, "many looks fit the bound");
const _: () = assert!(REMOTE_REQUEST_MS_DEFAULT > ROTATION_WAIT_MS_MAX, "a rotation is waited for");
const _: () =
    assert!(KILL_MS_MAX + DRAIN_MS_MAX < RESERVATION_MS_MAX, "a take-back can make room for a claim");
const _: () =
    assert!(RESERVATION_MS_MAX < REQUEST_MS_DEFAULT, "a client waits longer than a reservation lasts");
const _: () = assert!(EXIT_SOON_MS < EXIT_NOTICE_MS_MAX && EXIT_WAITS_PER_UID_MAX * 4 < SESSIONS_PER_UID_MAX);
const _: () = assert!(HELLO_MS_MAX < HANDSHAKE_MS_MAX && HANDSHAKE_MS_MAX < REQUEST_MS_DEFAULT);
const _: () =
    assert!(AUDIT_STALL_MS_MAX < RESERVATION_MS_MAX, "a hung device is given up before its request is");
const _: () =
    assert!(POLICY_DECISION_MS_MAX < RESERVATION_MS_MAX && TOKEN_DECISION_MS_MAX < RESERVATION_MS_MAX);
const _: () = assert!(CLOCK_STEP_MS_MIN < CLOCK_SKEW_MS_MAX, "a step is recorded before it could matter");
const _: () = assert!(GRANT_ACCEPT_MS_MAX <= LEASE_TTL_MS_MAX, "no offer outlives its lease");
const _: () = assert!(GRANT_COSIGN_MS_MAX <= LEASE_TTL_MS_MAX, "nor does one that waits for its co-signer");
const _: () = assert!(LEASES_MAX >= 16_000, "what the benchmarks hold, with room");
const _: () = assert!(LEASES_PER_PRINCIPAL_DEFAULT as usize * 16 <= LEASES_MAX);
const _: () =
    assert!(QUOTA_LEASED_BYTES_DEFAULT < QUOTA_RESIDENT_BYTES_DEFAULT, "a burst of ends does not block");
const _: () = assert!(QUOTA_SHARED_BYTES_DEFAULT <= QUOTA_BYTES_MAX && POOL_BYTES_MAX <= QUOTA_BYTES_MAX);
const _: () =
    assert!((QUOTA_BYTES_MAX as u128) * 2 < i64::MAX as u128, "and so does any quota, booked twice");
const _: () = assert!(GRANTS_PER_PRINCIPAL_DEFAULT as usize * 16 <= GRANTS_MAX);
const _: () = assert!(GRANTS_PER_LEASE_MAX <= GRANTS_MAX && LEASES_MAX <= GRANTS_MAX);
const _: () = assert!(DONATIONS_PER_GIVER_MAX * 64 <= DONATIONS_MAX);
const _: () = assert!(
    QUOTA_BYTES_MAX as u128 + DONATIONS_MAX as u128 * POOL_BYTES_MAX as u128 <= i64::MAX as u128,
    "a quota with all that can be lent to it fits 64 bits"
);
const _: () = assert!(SLOTS_MAX >= LEASES_MAX + GRANTS_MAX, "every holder of a right can have it open");
const _: () = assert!(SLOTS_PER_SESSION_MAX >= LEASES_MAX, "one benchmark client can open all of its leases");
const _: () = assert!(SLOTS_MAX <= u32::MAX as usize, "a slot's index has 32 bits");
const _: () =
    assert!(REVOCATIONS_PER_REGION_MAX >= 4 * GRANTS_PER_LEASE_MAX, "all grants can be replaced a few times");
const _: () =
    assert!(SESSIONS_PER_UID_MAX + SESSIONS_RESERVED < SESSIONS_MAX, "one user cannot lock others out");
const _: () = assert!(
    REMOTE_SESSIONS_PER_NETWORK_MAX >= 10_500 && REMOTE_SESSIONS_PER_NETWORK_MAX < REMOTE_SESSIONS_MAX,
    "10,000 idle connections and 500 busy ones of one network, and room for others"
);
const _: () = assert!(REMOTE_GREETINGS_MAX as u64 * REMOTE_GREETING_PACE_MS * 2 < HANDSHAKE_MS_MAX);
const _: () = assert!(
    REMOTE_HANDSHAKES_PER_S as u64 * REMOTE_GREETING_PACE_MS * 2 <= 1_000,
    "one network's handshakes leave half of the pace to others"
);
const _: () = assert!(
    REMOTE_HANDSHAKE_WAIT_MS_MAX * 2 < HANDSHAKE_MS_MAX,
    "whoever waits for a turn is through before an honest client gives up"
);
const _: () = assert!(
    REMOTE_HANDSHAKES_PER_S as u64 * REMOTE_HANDSHAKE_WAIT_MS_MAX / 1_000 < REMOTE_SESSIONS_MAX as u64 / 16,
    "those of one network that wait take few of the seats"
);
const _: () = assert!(
    REMOTE_KEEPALIVE_STEP_MS * REMOTE_KEEPALIVES_MAX as u64 <= REMOTE_KEEPALIVE_MS,
    "who is gone is found out within two spans"
);
const _: () = assert!(
    REMOTE_PARTIALS_BYTES_MAX as u64 <= NODE_RAM_BYTES_RESERVED / 2,
    "what is held of frames fits what the node keeps for itself"
);
const _: () = assert!(
    REMOTE_PARTIALS_BYTES_MAX >= 500 * FRAME_BYTES_MAX,
    "500 busy connections may all be in the middle of the largest frame"
);
const _: () = assert!(REMOTE_SEND_BYTES_MAX >= FRAME_BYTES_MAX && REMOTE_WAIT_MS_MAX < REQUEST_MS_DEFAULT);
const _: () = assert!(BROKER_QUEUE_MAX >= SESSIONS_MAX && PROVIDER_QUEUE_MAX >= SESSIONS_MAX);
const _: () = assert!(BROKER_BATCH_MAX <= BROKER_QUEUE_MAX && AUDIT_BATCH_MAX <= AUDIT_QUEUE_MAX);
const _: () =
    assert!(BROKER_BATCH_MAX * 4 <= AUDIT_BATCH_MAX, "a batch of commands syncs once: four entries each");
const _: () = assert!(AUDIT_QUEUE_MAX >= BROKER_QUEUE_MAX, "what the broker accepted can be recorded");
const _: () = assert!(AUDIT_ENTRY_BYTES_MAX < AUDIT_BATCH_BYTES_MAX, "the largest entry fits a batch");
const _: () = assert!(TAKE_QUEUE_MAX >= LEASES_MAX, "taking back is never refused");
const _: () = assert!(EXPIRIES_PER_S_MAX <= TAKE_QUEUE_MAX);
const _: () =
    assert!(REGION_BYTES_MAX / PIN_PIECE_BYTES_MAX <= PIN_PIECES_MAX, "one ring pins the largest region");
const _: () = assert!(SEGMENT_BYTES_MIN.is_power_of_two() && SEGMENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(
    REGION_BYTES_MAX / SEGMENT_BYTES_MAX <= SEGMENTS_PER_REGION_MAX,
    "the largest region has a segment size"
);
const _: () = assert!(SEGMENTS_MAX >= LEASES_MAX, "every lease has at least one segment");
const _: () = assert!(SEGMENT_BYTES_MAX <= REGION_BYTES_MAX && SEGMENT_BYTES_MAX <= PIN_PIECE_BYTES_MAX);
const _: () =
    assert!(POOL_HEADROOM_BYTES_MAX >= SEGMENT_BYTES_MAX, "a full pool can still rotate, and so revoke");
const _: () = assert!(REGION_BYTES_MAX <= POOL_BYTES_MAX && POOL_BYTES_MIN <= POOL_BYTES_MAX);
const _: () =
    assert!(REGION_BYTES_MAX.is_multiple_of(HUGE_PAGE_BYTES) && HUGE_PAGE_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(
    (REGION_BYTES_MAX as u128) * (LEASES_MAX as u128) < i64::MAX as u128,
    "sums fit Datalog's integer"
);
const _: () = assert!((CHUNK_BYTES_MAX as u64).is_multiple_of(PAGE_BYTES));
const _: () = assert!(POOL_RAM_PERCENT_DEFAULT <= POOL_RAM_PERCENT_MAX && POOL_RAM_PERCENT_MAX <= 80);
const _: () = assert!(POOL_WATERMARK_PERCENT < 100);
const _: () = assert!(
    LEASES_MAX as u64 * LEASE_USER_BYTES_MAX <= NODE_RAM_BYTES_RESERVED,
    "full tables fit what the node keeps for itself"
);
const _: () = assert!(
    WORD_PAGES_MAX as u64 * HUGE_PAGE_BYTES <= NODE_RAM_BYTES_RESERVED,
    "words that clients change do not make the node look larger than what it keeps for itself"
);
const _: () =
    assert!(CHECKPOINT_MS_MIN <= CHECKPOINT_MS_DEFAULT && CHECKPOINT_MS_DEFAULT <= CHECKPOINT_MS_MAX);
const _: () = assert!(CHECKPOINT_ENTRIES_DEFAULT <= CHECKPOINT_ENTRIES_MAX);
const _: () = assert!(
    CANARY_EVERY_MS_MIN <= CANARY_EVERY_MS_DEFAULT
        && CANARY_EVERY_MS_DEFAULT <= CANARY_EVERY_MS_MAX
        && CANARY_EVERY_MS_MAX + CANARY_LATE_MS_MAX < SESSION_IDLE_MS_MAX
        && CANARY_REQUEST_MS_MAX < CANARY_LATE_MS_MAX
);
const _: () = assert!(POLICY_LINE_BYTES_MAX <= POLICY_STATEMENT_BYTES_MAX);
const _: () =
    assert!(POLICY_STATEMENT_BYTES_MAX <= POLICY_BYTES_MAX && POLICY_BYTES_MAX <= POLICY_FILE_BYTES_MAX);
const _: () = assert!(POLICY_FACTS_MAX <= POLICY_STATEMENTS_MAX);
const _: () = assert!(
    POLICY_RULE_DEPTH_MAX as u64 + 2 < POLICY_DECISION_ROUNDS_MAX,
    "no honest policy hits the rounds"
);
const _: () = assert!(POLICY_ARITY_MAX >= 2 && POLICY_MEMO_MAX.is_multiple_of(2));

const _: () = assert!(
    VERIFIED_BYTES_MAX as u64 <= NODE_RAM_BYTES_RESERVED / 4,
    "remembered tokens fit what the node keeps for itself"
);
const _: () = assert!(
    VERIFIED_BYTES_PER_UID_MAX >= SESSION_TOKENS_MAX * (TOKEN_BYTES_MAX + VERIFIED_TOKEN_EXTRA_BYTES),
    "a session on its own remembers its most tokens, whatever their size"
);

const _: () = assert!(
    METERS_PER_RECEIVER_MAX >= 16 * TOKEN_BLOCKS_MAX && METERS_PER_RECEIVER_MAX < METERS_PER_REGION_MAX / 2,
    "a receiver opens many limited tokens, and leaves room for others"
);
const _: () = assert!(
    (SESSIONS_MAX * SESSION_RIGHTS_MAX * SESSION_RIGHT_BYTES_MAX) as u64 <= NODE_RAM_BYTES_RESERVED / 2,
    "remembered rights fit what the node keeps for itself"
);
const _: () = assert!(
    (SESSIONS_MAX * (SESSION_ANSWER_BYTES_MAX + SESSION_ANSWERS_MAX * 128)) as u64
        <= NODE_RAM_BYTES_RESERVED / 4,
    "remembered answers fit what the node keeps for itself"
);
const _: () = assert!(
    SESSION_ANSWER_BYTES_MAX >= TOKEN_BYTES_MAX + 4 * 1024,
    "the largest answer with a token is remembered"
);
/// Tokens that wait in a node to be fetched, and those that were fetched and whose time is not over, in all.
pub const WRAPS_MAX: usize = 1_024;
/// Of these, how many one key may have put in.
pub const WRAPS_PER_WRAPPER_MAX: usize = 64;
/// Of these, how many may be tokens of one first holder, whoever put them in: keys to delegate to cost nothing.
pub const WRAPS_PER_HOLDER_MAX: usize = 2 * WRAPS_PER_WRAPPER_MAX;
/// Shortest time for which a token is wrapped, in milliseconds.
pub const WRAP_TTL_MS_MIN: u64 = 1;
/// Longest time, in milliseconds (10 minutes): a hand-over is something that two do now.
pub const WRAP_TTL_MS_MAX: u64 = 10 * 60 * 1_000;
/// How long a node waits at most, in milliseconds, before it looks again which wraps are over. Their deadlines count the
/// time in which the machine sleeps, and waiting does not.
pub const WRAP_LOOK_MS_MAX: u64 = 10_000;

const _: () = assert!(
    (WRAPS_MAX * (TOKEN_BYTES_MAX + 1_024)) as u64 <= NODE_RAM_BYTES_RESERVED / 8,
    "tokens of the largest size, in every row, fit what the node keeps for itself"
);
const _: () = assert!(WRAPS_PER_HOLDER_MAX * 8 <= WRAPS_MAX, "one client cannot take the room of others");
const _: () = assert!(WRAP_TTL_MS_MIN <= WRAP_TTL_MS_MAX && WRAP_TTL_MS_MAX <= LEASE_TTL_MS_MAX);
/// How long a node waits at most, in milliseconds, before it looks again whether a root key's time is over. Until then
/// it believes a key whose last token has expired, which lets nobody in.
pub const ROOT_LOOK_MS_MAX: u64 = 60_000;

// ---- What is asked again over the network

/// How long a node knows what a client asked of it last after the client's last connection went, in milliseconds: a
/// client that has lost its connection is back within that, or begins anew.
pub const EFFECTS_KEPT_MS: u64 = 60_000;
/// How long a node waits at most before it looks again which of them are over, in milliseconds: their time counts while the
/// machine sleeps, and waiting does not.
pub const EFFECTS_LOOK_MS_MAX: u64 = 10_000;
/// Clients whose last requests a node knows, in all.
pub const EFFECTS_CLIENTS_MAX: usize = 4_096;
/// Of these, the ones of one principal: programs that it runs side by side.
pub const EFFECTS_CLIENTS_PER_HOLDER_MAX: usize = 256;
/// Connections of one client that share what is known of it: a lost one that the node has not noticed yet beside its next.
pub const EFFECTS_CONNECTIONS_MAX: usize = 4;
/// Changing requests that are known of one client: as many as it has unanswered. A client asks over one connection at a
/// time; what it asked over a lost one is what it asks again over the next.
pub const EFFECTS_ANSWERS_MAX: usize = REMOTE_WINDOW_MAX;
/// Bytes of these requests' answers, of one client. The oldest make room; their numbers stay.
pub const EFFECTS_CLIENT_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Bytes of all clients' answers. Clients without a connection are forgotten to make room, the oldest first.
pub const EFFECTS_BYTES_MAX: usize = 16 << 20;
/// Of these, the ones of one principal's clients.
pub const EFFECTS_HOLDER_BYTES_MAX: usize = EFFECTS_BYTES_MAX / 4;

const _: () = assert!(
    EFFECTS_CLIENTS_PER_HOLDER_MAX * 16 <= EFFECTS_CLIENTS_MAX
        && EFFECTS_CLIENT_BYTES_MAX * 16 <= EFFECTS_HOLDER_BYTES_MAX
        && EFFECTS_HOLDER_BYTES_MAX * 4 <= EFFECTS_BYTES_MAX,
    "one principal cannot take the room of others"
);
const _: () = assert!(
    (EFFECTS_BYTES_MAX + EFFECTS_CLIENTS_MAX * EFFECTS_ANSWERS_MAX * 128) as u64
        <= NODE_RAM_BYTES_RESERVED / 4,
    "remembered answers of remote clients fit what the node keeps for itself"
);
const _: () = assert!(EFFECTS_LOOK_MS_MAX < EFFECTS_KEPT_MS && REQUEST_MS_DEFAULT < EFFECTS_KEPT_MS);

// ---- Providers

/// How often a provider in another process is asked how it is, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;
/// From which silence on a provider is given no new leases, in milliseconds: two answers may be late.
pub const PROVIDER_SILENT_MS: u64 = 3_000;
/// From which silence on a provider is lost, and all its leases with it, in milliseconds: longer than a network that is
/// being switched over, shorter than anybody waits for memory that is gone.
pub const PROVIDER_LOST_MS: u64 = 10_000;
/// Lives of providers that are remembered when they have no row any more, so that none begins again: every provider may
/// have restarted a few times while one that was given up still tries.
pub const PROVIDERS_PAST_MAX: usize = 4 * PROVIDERS_MAX;
/// Of these, the lives of one name: a provider that starts over and over pushes out its own.
pub const PROVIDERS_PAST_PER_NAME_MAX: usize = 4;
/// Names of providers that drain and have no row any more.
pub const PROVIDERS_DRAINED_MAX: usize = 4 * PROVIDERS_MAX;
/// Take-backs below one lease that wait until its provider answers again. Beyond it the whole lease goes: not before the
/// delegates' part of the marks fits, so that it is its owner's doing.
pub const UNTOLD_PER_LEASE_MAX: usize = 1_024;
const _: () = assert!(UNTOLD_PER_LEASE_MAX > MARKS_OF_DELEGATES_MAX);
/// Of all leases at one provider. Beyond it a lease goes of the owner of whose leases most waits.
pub const UNTOLD_PER_PROVIDER_MAX: usize = 4 * UNTOLD_PER_LEASE_MAX;
/// After how long something that must be ordered is tried again where the broker's urgent lane is full, in milliseconds.
pub const URGENT_AGAIN_MS: u64 = 5;
/// Of what waits, that which is told after one heartbeat.
pub const UNTOLD_PER_BEAT_MAX: usize = 64;
/// How long a provider may take to answer a question that it does nothing for, in milliseconds: longer than its link waits.
pub const PROVIDER_ANSWER_MS_MAX: u64 = 4_000;
/// How long a provider may take to take something back, in milliseconds, the wiping of its bytes not counted.
pub const PROVIDER_TAKE_MS_MAX: u64 = 30_000;
/// How long a node that starts waits for the lock of its directory, in milliseconds: the life of a provider whose upper
/// process was killed has it until it has taken everything back and told the broker so, and whoever starts nodes again does
/// it at once.
pub const NODE_LOCK_MS_MAX: u64 = 5_000;
/// Pause between two tries, in milliseconds.
pub const NODE_LOCK_LOOK_MS: u64 = 10;
/// How often a lease that a provider refused is tried at another one.
pub const PLACEMENT_RETRIES_MAX: usize = 1;
const _: () = assert!(2 * HEARTBEAT_MS <= PROVIDER_SILENT_MS && PROVIDER_SILENT_MS < PROVIDER_LOST_MS);
const _: () = assert!(PROVIDER_ANSWER_MS_MAX < REQUEST_MS_DEFAULT, "a client waits for a provider's answer");
const _: () =
    assert!(PROVIDER_LOST_MS.is_multiple_of(HEARTBEAT_MS), "so many heartbeats are missed before that");

// ---- The link between broker and providers

/// How long a connection may take, from its first byte to a whole `Hello`, in milliseconds.
pub const LINK_GREETING_MS_MAX: u64 = 5_000;
/// How long a provider may take from the welcome until it is ready, in milliseconds: it may have gigabytes to set up.
pub const LINK_READY_MS_MAX: u64 = 60_000;
/// Connections that have not said who they are, of all peers. More are closed at once.
pub const LINK_GREETINGS_MAX: usize = 64;
/// Of these, the ones from one network address.
pub const LINK_GREETINGS_PER_ADDRESS_MAX: usize = 16;
/// Connections that have said who they are: every provider once, and once more while it comes back.
pub const LINKS_MAX: usize = 2 * PROVIDERS_MAX;
/// How long a frame may take from its first byte to its last, in milliseconds.
pub const LINK_FRAME_MS_MAX: u64 = 5_000;
/// How long the other end may not take what it is sent, in milliseconds.
pub const LINK_SEND_MS_MAX: u64 = 5_000;
/// How long a question waits for its answer, in milliseconds. A renewal that takes longer is carried out no more.
pub const LINK_ASK_MS_MAX: u64 = 3_000;
/// How long taking back is waited for, in milliseconds: it copies what a rotation keeps.
pub const LINK_TAKE_MS_MAX: u64 = ROTATION_WAIT_MS_MAX;
/// How long the record of a claim is waited for, in milliseconds: the device of a log may be busy.
pub const LINK_RECORD_MS_MAX: u64 = 30_000;
/// How long a revocation that a provider asks for is waited for, in milliseconds: the broker has it taken back first, at
/// the very provider.
pub const LINK_REVOKE_MS_MAX: u64 = LINK_TAKE_MS_MAX + LINK_ASK_MS_MAX;
/// Of the questions of a broker that may have no answer, those how a provider is: they wait for no other.
pub const LINK_PULSES_MAX: usize = 4;
/// Of these, what is to be taken back: it waits for no claim.
pub const LINK_TAKES_MAX: usize = 32;
/// Of these, claims: each keeps its place until it is recorded, and no renewal and no root key waits for that.
pub const LINK_CLAIMS_MAX: usize = 16;
/// Of these, all others.
pub const LINK_OTHERS_MAX: usize = LINK_WINDOW_MAX - LINK_PULSES_MAX - LINK_TAKES_MAX - LINK_CLAIMS_MAX;
/// After which silence a provider takes its link for cut and dials again, in milliseconds: several questions how it is have
/// not come, and it can be back before it is lost.
pub const LINK_SILENT_MS_MAX: u64 = 5_000;
/// How long a provider waits at least before it dials again, in milliseconds.
pub const LINK_REDIAL_MS_MIN: u64 = 50;
/// How long it waits at most, in milliseconds: a few tries fit before it is lost.
pub const LINK_REDIAL_MS_MAX: u64 = 2_000;
/// How long a provider waits for a connection, in milliseconds.
pub const LINK_CONNECT_MS_MAX: u64 = 3_000;
/// Notices that a provider keeps until the broker has noted them: every lease that it may have ends once, every grant is
/// opened once and ends once, and while the broker is away nothing new comes. The oldest make room.
pub const LINK_NOTICES_MAX: usize = LEASES_MAX + 2 * GRANTS_MAX;
/// Notices about what is not its own that a provider may tell over one link: after a long cut it tells of leases that the
/// broker has forgotten, and goes on after them over the next link.
pub const LINK_BAD_NOTICES_MAX: usize = 1_024;
/// How long a provider waits before it tells again what a broker had no room for, in milliseconds.
pub const LINK_NOTICE_AGAIN_MS: u64 = 50;
/// How long a node that stops waits for the last words of its links, in milliseconds.
pub const LINK_BYE_MS_MAX: u64 = 500;
/// Bytes that are read and thrown away after the last words of a link, so that these arrive: what is closed with bytes
/// unread is reset.
pub const LINK_BYE_BYTES_MAX: u64 = 16 * LINK_FRAME_BYTES_MAX as u64;
/// Connections of one network address to the providers' door in a second, in the long run: each costs a handshake before
/// anything is known of who comes, and all of these together a twentieth of a processor's time.
pub const LINK_GREETINGS_PER_S: u32 = 50;
/// Those of an address after a quiet time: every provider, should all be behind it, and once more.
pub const LINK_GREETINGS_BURST: u32 = 2 * PROVIDERS_MAX as u32;
/// Addresses whose connections are counted apart. Those beyond share one count until others have been quiet for a while.
pub const LINK_RATED_ADDRESSES_MAX: usize = 1_024;
const _: () = assert!(LINK_GREETINGS_BURST as usize >= LINK_GREETINGS_PER_ADDRESS_MAX);
// Who waits gives up in this order: the link, which from then on lets nothing arrive of what was asked; then the broker,
// which undoes it in its books. The other way around a renewal that the books have undone, and whose owner was told so,
// would still be carried out: `by` in it is the link's time. A claim that nobody waits for would take memory likewise.
const _: () = assert!(LINK_ASK_MS_MAX < PROVIDER_ANSWER_MS_MAX, "the link gives a question up first");
const _: () = assert!(CLOCK_SKEW_MS_MAX < PROVIDER_ANSWER_MS_MAX, "and a claim, after the end of its ticket");
const _: () =
    assert!(LINK_ASK_MS_MAX < NODE_LOCK_MS_MAX, "a provider that stops waits so long for its broker");
const _: () = assert!(LINK_TAKE_MS_MAX <= PROVIDER_TAKE_MS_MAX, "a take-back is given up together");
const _: () = assert!(POLICY_BYTES_MAX <= LINK_POLICY_BYTES_MAX, "every policy fits a link");
const _: () = assert!(LINK_PULSES_MAX + LINK_TAKES_MAX + LINK_CLAIMS_MAX < LINK_WINDOW_MAX);
const _: () = assert!(
    LINK_ASK_MS_MAX < RESERVATION_MS_MAX,
    "a renewal that arrives late is within the end that the books have"
);
const _: () = assert!(
    3 * HEARTBEAT_MS < LINK_SILENT_MS_MAX
        && LINK_SILENT_MS_MAX + LINK_REDIAL_MS_MAX + LINK_ASK_MS_MAX <= PROVIDER_LOST_MS,
    "a provider whose link was cut is back before it is lost"
);
const _: () =
    assert!(LINK_REDIAL_MS_MIN < LINK_REDIAL_MS_MAX && LINK_GREETINGS_PER_ADDRESS_MAX < LINK_GREETINGS_MAX);

// ---- Roles

/// The time that a life of a provider takes at least, in milliseconds: one that ended sooner is followed by the next only
/// then, so that a broker that refuses it is not asked all the time.
pub const LIFE_MS_MIN: u64 = 1_000;
/// How long a rotation of the root keys waits for the providers that are connected to believe the new one, in
/// milliseconds. One that has not said so by then is hung up on, and hears of it when it comes back.
pub const ROOTS_TOLD_MS_MAX: u64 = 5_000;

#[cfg(test)]
mod tests {
    /// Every bound says its unit and its reason: a doc comment of its own stands above it.
    #[test]
    fn every_constant_is_documented() {
        let lines: Vec<_> = include_str!("limits.rs").lines().collect();
        let mut seen = 0;
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const ")) {
            seen += 1;
            let doc = lines[at - 1];
            assert!(doc.starts_with("///") && lines[at - 1].len() > 10, "line {}: {line}", at + 1);
        }
        assert!(seen > 80, "the file is the list of bounds: {seen}");
    }
}
