//! The command line: nouns first, verbs second.
//!
//! The help texts are part of the contract: each command's ends in one example that works as pasted, and a test reads
//! them back and parses them.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod id;
pub(crate) mod lease;
pub(crate) mod ownership;
pub(crate) mod pki;
pub(crate) mod quarantine;
pub(crate) mod quota;
pub(crate) mod remote;
pub(crate) mod revoke;
pub(crate) mod root;
pub(crate) mod run;
pub(crate) mod share;
pub(crate) mod token;
pub(crate) mod transfer;
pub(crate) mod up;
mod usage;
pub(crate) mod value;
pub(crate) mod wrap;

pub(crate) mod lease_key;

pub(crate) mod node;
pub(crate) mod role;

use std::ffi::OsString;
use std::path::PathBuf;

use caps::wire::Name;
use clap::{Args, Parser, Subcommand};

use crate::output::Style;
pub(crate) use usage::Stop;

/// Memory that is leased, shared and taken back by capability.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 110,
    after_help = "Example:\n  leasehold status"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Who I am: the name of an identity made with `leasehold id new`
    #[arg(
        long = "as",
        env = "LEASEHOLD_ID",
        hide_env_values = true,
        value_name = "NAME",
        global = true,
        value_parser = value::name
    )]
    pub(crate) identity: Option<Name>,
    /// The node's directory, which holds both runtime files and state
    #[arg(long, env = "LEASEHOLD_DIR", hide_env_values = true, value_name = "DIR", global = true)]
    pub(crate) dir: Option<PathBuf>,
    /// One JSON document on standard output, errors as JSON on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) remote: remote::Remote,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole story in one go: a node, two clients, a share, a revoke, a verified log
    #[command(after_help = "Example:\n  leasehold demo")]
    Demo,
    /// A node in the foreground: broker, provider and audit log in one
    Up(up::Up),
    /// A client process of the demo
    #[command(hide = true)]
    DemoClient(up::DemoClient),
    /// The node's own clients, which try whether revocations work
    #[command(hide = true)]
    Canary,
    /// A process that maps what a benchmark takes back
    #[command(hide = true)]
    BenchMapper,
    /// A server or a crowd of clients beside which a benchmark measures
    #[command(hide = true)]
    BenchPeer,
    /// What is running, in numbers
    #[command(after_help = "Example:\n  leasehold status --json")]
    Status,
    /// What this machine allows, and what is weaker here and why
    #[command(after_help = "Example:\n  leasehold doctor")]
    Doctor,
    /// Identities: the keys of principals
    #[command(subcommand, after_help = "Example:\n  leasehold id new alice")]
    Id(id::Id),
    /// Leases: memory of one's own, for a time
    #[command(
        subcommand,
        after_help = "Example:\n  leasehold lease create --as alice --size 64MiB --ttl 10m --name frames"
    )]
    Lease(lease::Lease),
    /// Writes standard input, or a file, into a lease
    Put(transfer::Put),
    /// Writes bytes of a lease to standard output, or to a file
    Get(transfer::Get),
    /// `MEM_SHARE`: grants from an owner to a receiver, which must accept
    #[command(
        subcommand,
        after_help = "Example:\n  leasehold share offer frames --as alice --to bob --rights r --ttl 5m"
    )]
    Share(share::Share),
    /// Takes rights back and prints the signed receipt
    Revoke(revoke::Revoke),
    /// Dead memory that is kept for an investigator instead of given back; for the administrator
    #[command(subcommand, after_help = "Example:\n  leasehold quarantine list --as admin")]
    Quarantine(quarantine::Quarantine),
    /// Root keys: which mints tokens, and whose tokens are believed; for the administrator
    #[command(subcommand, after_help = "Example:\n  leasehold root list --as admin")]
    Root(root::Root),
    /// Certificates for TLS, for people who have no certificate authority
    #[command(subcommand, after_help = "Example:\n  leasehold pki init --domain mem.example")]
    Pki(pki::Pki),
    /// A program in the sandbox, with the leases it may use and no way to anything else
    Run(run::Run),
    /// Capability tokens: narrowed and delegated offline, handed over through the node
    #[command(subcommand, after_help = "Example:\n  leasehold token inspect frames --as alice")]
    Token(token::Token),
    /// The audit log, from its files alone
    #[command(subcommand, after_help = "Example:\n  leasehold audit tail")]
    Audit(audit::Audit),
    /// The Datalog policy
    #[command(subcommand, after_help = "Example:\n  leasehold policy check policy.dl")]
    Policy(check::Policy),
    /// The node's configuration
    #[command(subcommand, after_help = "Example:\n  leasehold config check leasehold.toml")]
    Config(check::Config),
    /// Benchmarks that anyone can repeat, each beside its baseline in the same run
    #[command(after_help = "Example:\n  leasehold bench map --json")]
    Bench(crate::bench::Args),
    /// Quota of bytes, lent to somebody who leases memory on my behalf
    #[command(
        subcommand,
        after_help = "Example:\n  leasehold quota give bob --as alice --size 64MiB --ttl 10m"
    )]
    Quota(quota::Quota),
    /// Completions for a shell, to standard output
    #[command(after_help = "Example:\n  leasehold completions bash >leasehold.bash")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Leases that change their owner, who must accept; the bytes stay
    #[command(
        subcommand,
        after_help = "Example:\n  leasehold transfer offer frames --as alice --to bob --ttl 5m"
    )]
    Transfer(ownership::Transfer),
    /// A node in the foreground that providers of other machines come to: who has what, and none of the memory itself
    Broker(role::Broker),
    /// This machine's memory in the foreground, for the leases of a broker on another machine
    Provider(role::Provider),
    /// The providers of a broker; for the administrator
    #[command(subcommand, after_help = "Example:\n  leasehold node list --as admin")]
    Node(node::Node),
}

/// Reads the arguments. `Stop` is a help text, or what is wrong with them.
pub(crate) fn parse(arguments: &[OsString], style: Style) -> Result<Cli, Stop> {
    Cli::try_parse_from(arguments).map_err(|error| Stop::new(&error, arguments, style))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command that a help text lists, with the words that lead to it.
    fn each(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            each(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn every_help_ends_in_one_example_of_its_own_command_that_parses() {
        let mut commands = 0;
        each(&Cli::command(), "leasehold", &mut |path, command| {
            commands += 1;
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.strip_prefix("Example:\n  ").unwrap_or_else(|| panic!("{path}: no example"));
            assert!(!example.contains('\n'), "{path}: one example");
            assert!(example.starts_with(path), "{path}: {example}");
            // What the shell would take for itself, a redirection, is not an argument.
            let words = example.split(' ').filter(|word| !word.starts_with(['<', '>']));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{path}: {example}: {error}");
            }
        });
        assert!(commands > 25);
    }

    #[test]
    fn no_argument_takes_a_secret() {
        each(&Cli::command(), "leasehold", &mut |path, command| {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!["key", "secret", "seed", "password"].contains(&name), "{path} {name}");
            }
        });
    }
}
