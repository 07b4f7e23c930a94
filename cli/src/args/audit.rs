//! `leasehold audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Verifies every log in or below a directory, from its files and public keys alone
    Verify(Verify),
    /// Shows the last entries of a log
    Tail(Tail),
    /// Proves that an entry is in a log: writes the entry and its proof
    Prove(Prove),
    /// Verifies the receipt of a revocation, and that the log has the revocation
    Receipt(Receipt),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold audit receipt receipt.json --issuer /var/lib/leasehold/audit/issuer --log \
                  /var/lib/leasehold/audit --vkey /var/lib/leasehold/audit/vkeys"
)]
pub(crate) struct Receipt {
    /// What `leasehold revoke --json` printed
    pub(crate) file: PathBuf,
    /// The public key that signs the node's receipts, or a file with it: `issuer` beside the logs
    #[arg(long, value_name = "K")]
    pub(crate) issuer: String,
    /// The directory of the node's logs, or the broker's log: the receipt's entry is looked for there
    #[arg(long, value_name = "DIR", requires = "vkeys")]
    pub(crate) log: Option<PathBuf>,
    /// The public key of the broker's log, or a file with one a line; more than once for several
    #[arg(long = "vkey", id = "vkeys", value_name = "K", requires = "log")]
    pub(crate) vkeys: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold audit verify /var/lib/leasehold/audit --vkey /var/lib/leasehold/audit/vkeys"
)]
pub(crate) struct Verify {
    /// A log, or a directory with logs below it
    pub(crate) dir: PathBuf,
    /// The public key of a log or a witness, or a file with one a line; more than once for several
    #[arg(long = "vkey", value_name = "K", required = true)]
    pub(crate) vkeys: Vec<String>,
    /// A checkpoint kept from earlier, which the log must still contain; more than once for several
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold audit tail --lines 5")]
pub(crate) struct Tail {
    /// The log's directory; without it, the broker's of this node
    pub(crate) log: Option<PathBuf>,
    /// How many entries
    #[arg(short = 'n', long, default_value_t = 10)]
    pub(crate) lines: u64,
    /// Goes on as entries come, until interrupted
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold audit prove 0 -o first")]
pub(crate) struct Prove {
    /// The entry's index
    pub(crate) index: u64,
    /// The log's directory; without it, the broker's of this node
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// Writes FILE.entry and FILE.tlog-proof; without it, both go to standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
