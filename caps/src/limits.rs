//! The bounds of tokens and frames. `policy::limits` re-exports them and asserts how they relate to the others.

/// Largest token in bytes. A token of 8 delegations has 3,987; the rest is room for longer narrowing.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most blocks in a token, the authority block included. Verification costs one or two signatures a block.
pub const TOKEN_BLOCKS_MAX: usize = 8;
/// Most symbols that one token may add to the default table. The vocabulary needs fewer than 20.
pub const TOKEN_SYMBOLS_MAX: usize = 32;
/// Longest symbol in bytes.
pub const TOKEN_SYMBOL_BYTES_MAX: usize = 64;
/// Most facts in the authority block; later blocks have at most one (`delegate`).
pub const TOKEN_FACTS_MAX: usize = 16;
/// Most checks in a block.
pub const TOKEN_CHECKS_MAX: usize = 8;
/// Most operations in the expressions of a check.
pub const TOKEN_OPS_MAX: usize = 16;
/// Most members of a set literal.
pub const TOKEN_SET_MAX: usize = 8;
/// Most delegations in a chain: each is a block, and the authority block is one.
pub const TOKEN_HOPS_MAX: u8 = (TOKEN_BLOCKS_MAX - 1) as u8;
/// Backstop for one Datalog decision in milliseconds. The gate bounds the work; this only ends a stuck machine's.
pub const TOKEN_DECISION_MS_MAX: u64 = 1_000;

/// Largest payload of one mediated read or write in bytes: what may still move after a revoke began.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Largest frame in bytes: a chunk, its CBOR and its header. Below the default socket buffer of Linux (208 KiB).
pub const FRAME_BYTES_MAX: usize = 128 * 1024;
/// Most items in one frame of a batch over TLS: with their bytes they fit a frame.
pub const REMOTE_BATCH_ITEMS_MAX: usize = 512;
/// Most leases in one request over TLS to make some or to give some back: the answers, with their tokens, fit a frame.
pub const REMOTE_LEASES_MAX: usize = 64;
/// Least bytes of a value made over TLS: smaller ones are not worth a region each.
pub const VALUE_BYTES_MIN: u64 = 64 * 1024;
/// Most requests of one connection over TLS that may be unanswered. A node that is sent more stops reading until it has
/// answered some.
pub const REMOTE_WINDOW_MAX: usize = 32;
/// How long who waits for the other end of a connection does so awake, in microseconds: a little more than an idle
/// processor of a virtual machine takes to wake up, so that who is waited for may have slept.
pub const EAGER_US_MAX: u64 = 100;
/// Waits that are slept at once after one that was awake for nothing, when that goes on. So who is never rewarded is awake
/// for [`EAGER_US_MAX`] in so many waits.
pub const EAGER_SKIPPED_MAX: u32 = 64;
/// Most bytes that one operation over TLS moves, and most bytes of a value.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;
/// Longest name of a principal, a lease or a reason text in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest reason of a revocation in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// Most rows in one page of a listing, so that a page fits a frame.
pub const PAGE_ROWS_MAX: usize = 256;

const _: () = assert!(TOKEN_BYTES_MAX + 4 * 1024 < FRAME_BYTES_MAX, "a token and its request fit one frame");
const _: () = assert!(CHUNK_BYTES_MAX + 4 * 1024 < FRAME_BYTES_MAX, "a chunk and its request fit one frame");
const _: () = assert!(
    REMOTE_BATCH_ITEMS_MAX * 24 + CHUNK_BYTES_MAX + 32 < FRAME_BYTES_MAX,
    "a batch's items and their bytes fit one frame"
);
const _: () =
    assert!(PAGE_ROWS_MAX * 384 < FRAME_BYTES_MAX, "a page of rows of at most 384 bytes fits one frame");
/// Most rows in one page of grants, which name up to three principals.
pub const PAGE_GRANTS_MAX: usize = 192;
const _: () = assert!(PAGE_GRANTS_MAX <= PAGE_ROWS_MAX, "a page of grants is a page");
/// Longest that a survivor of a rotation waits for a fresh segment before it takes the memory for lost, in
/// milliseconds. Copying the largest segment (1 GiB) takes about one second on a busy machine.
pub const ROTATION_WAIT_MS_MAX: u64 = 30_000;

/// Longest address of a provider in bytes: the longest name in the DNS, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;
/// Most providers of a cluster, those included that are lost and still listed. Each placement looks at all of them.
pub const PROVIDERS_MAX: usize = 64;
/// Most classes that a provider names.
pub const PROVIDER_CLASSES_MAX: usize = 8;
/// Providers of which a placement says how they were, so that what every lease remembers stays small.
pub const PLACEMENT_NODES_MAX: usize = 8;
const _: () = assert!(PLACEMENT_NODES_MAX <= PROVIDERS_MAX);
const _: () = assert!(
    PROVIDERS_MAX * (512 + ADDRESS_BYTES_MAX + (PROVIDER_CLASSES_MAX + 2) * (NAME_BYTES_MAX + 2)) + 4 * 1024
        < FRAME_BYTES_MAX,
    "a status with every provider fits one frame"
);

// ---- The link between broker and providers

/// Largest frame of a link in bytes, its prefix included: the largest policy, or a page of quotas.
pub const LINK_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest first frame of a provider in bytes: it is read before anybody has said who it is.
pub const LINK_HELLO_BYTES_MAX: usize = 4 * 1024;
/// Most questions of one side of a link that may have no answer. Whoever is asked more ends the link.
pub const LINK_WINDOW_MAX: usize = 64;
/// Most quotas, or names of principals, in one message.
pub const LINK_PAGE_MAX: usize = 1_024;
/// Largest policy in bytes, as a link carries it.
pub const LINK_POLICY_BYTES_MAX: usize = 64 * 1024;
/// Most root keys of which a provider is told that they have expired: of those before them nothing is open any more where
/// leases end, and what is left is taken back as that of a key that retired.
pub const LINK_EXPIRED_ROOTS_MAX: usize = 64;
/// Most notices in one message.
pub const LINK_NOTICES_PER_FRAME_MAX: usize = 512;
const _: () = assert!(
    LINK_PAGE_MAX * (2 * NAME_BYTES_MAX + 112) + 4 * 1024 < LINK_FRAME_BYTES_MAX
        && LINK_NOTICES_PER_FRAME_MAX * 96 + 4 * 1024 < LINK_FRAME_BYTES_MAX
        && LINK_POLICY_BYTES_MAX + 4 * 1024 < LINK_FRAME_BYTES_MAX
        && FRAME_BYTES_MAX + 4 * 1024 < LINK_FRAME_BYTES_MAX,
    "pages, policies and receipts fit a frame of a link"
);
const _: () = assert!(
    (PROVIDER_CLASSES_MAX + 2) * (NAME_BYTES_MAX + 2) + ADDRESS_BYTES_MAX + 512 < LINK_HELLO_BYTES_MAX,
    "the largest registration fits the first frame"
);
