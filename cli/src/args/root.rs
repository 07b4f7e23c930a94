//! `leasehold root`.

use clap::Subcommand;

use super::value;

#[derive(Debug, Subcommand)]
pub(crate) enum Root {
    /// Draws a new key that mints from now on; the old one is believed until its last token has expired
    #[command(after_help = "Example:\n  leasehold root rotate --as admin")]
    Rotate,
    /// Lists the keys that are believed, since when and until when
    #[command(after_help = "Example:\n  leasehold root list --as admin")]
    List,
    /// Believes a key no longer, at once: its tokens are refused, and what is open under them ends
    #[command(after_help = "Example:\n  leasehold root retire 0a1b2c3d --as admin")]
    Retire {
        /// Its id in the list
        #[arg(value_parser = value::root, value_name = "ID")]
        id: u32,
    },
}
