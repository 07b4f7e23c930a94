//! `[cluster]`: a broker that providers of other machines come to, or a provider that goes to one.
//!
//! ```text
//! listen   ── the broker's side: where providers come
//! broker   ── the provider's side: where it goes ── broker_name, name, address, locality, classes
//! ```
//! A node is one of both or neither: what is said of the other side has no meaning, and is a mistake.

use std::net::SocketAddr;

use caps::limits::PROVIDER_CLASSES_MAX;
use caps::wire::Name;
use caps::wire::provider::Address;
use toml::de::DeTable;

use super::read::{Reader, Value};
use super::{Config, Remote};
use crate::diagnostic::quote;

/// The keys.
pub(super) const KEYS: &[&str] =
    &["listen", "broker", "broker_name", "name", "address", "locality", "classes"];
/// Those that say something of a provider, and nothing without `broker`.
const OF_A_PROVIDER: [&str; 5] = ["broker_name", "name", "address", "locality", "classes"];

/// `[cluster]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Where providers of other machines come; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// The broker that this provider goes to; `None`: it is none.
    pub broker: Option<Address>,
    /// The name that the broker's certificate must have; `None`: any broker of the trust domain.
    pub broker_name: Option<Name>,
    /// The provider's name; `None`: that of its certificate, which it has to be in any case.
    pub name: Option<Name>,
    /// Where clients are told to come; `None`: where [`Remote::listen`] says.
    pub address: Option<Address>,
    /// Where the provider stands: a label.
    pub locality: Option<Name>,
    /// The only classes whose leases the provider takes, each once; none: all.
    pub classes: Vec<Name>,
}

impl Cluster {
    /// Where clients of other machines are told to come: what is said, or where the gate listens. `None` for a provider
    /// that only clients of its own machine reach, and where `listen` names no place to come to.
    #[must_use]
    pub fn told(&self, remote: &Remote) -> Option<Address> {
        let listen = remote.listen.filter(|listen| !listen.ip().is_unspecified());
        self.address.clone().or_else(|| Address::new(&listen?.to_string()).ok())
    }
}

/// Reads one key.
pub(super) fn read(
    cluster: &mut Cluster,
    reader: &mut Reader<'_, '_>,
    name: &str,
    key: &str,
    value: &Value<'_>,
) {
    match key {
        "listen" => cluster.listen = reader.listen(name, value),
        "broker" => cluster.broker = address(reader, name, value),
        "broker_name" => cluster.broker_name = reader.name(name, value),
        "name" => cluster.name = reader.name(name, value),
        "address" => cluster.address = address(reader, name, value),
        "locality" => cluster.locality = reader.name(name, value),
        _ => {
            let Some(classes) = reader.list(name, value, PROVIDER_CLASSES_MAX, |reader, value| {
                Some((reader.name(name, value)?, value.span().start))
            }) else {
                return;
            };
            for (at, (class, offset)) in classes.iter().enumerate() {
                if classes[..at].iter().any(|(other, _)| other == class) {
                    reader.wrong(*offset, format!("`{name}` names a class twice"), "name each once");
                }
            }
            cluster.classes = classes.into_iter().map(|(class, _)| class).collect();
        }
    }
}

fn address(reader: &mut Reader<'_, '_>, name: &str, value: &Value<'_>) -> Option<Address> {
    let text = reader.text(name, value)?;
    let read = Address::new(text).ok();
    if read.is_none() {
        let message = format!("`{name}`: `{}` is no host with a port", quote(text));
        let help = "write it as in \"mem-1.example:7171\", \"10.0.0.5:7171\" or \"[::1]:7171\"";
        reader.wrong(value.span().start, message, help);
    }
    read
}

/// What must hold between these keys, and between them and others.
pub(super) fn relations(config: &Config, root: &DeTable<'_>, reader: &mut Reader<'_, '_>) {
    let place = |table: &str, key: &str| {
        root.get(table)?.get_ref().as_table()?.get(key).map(|value| value.span().start)
    };
    let cluster = &config.cluster;
    // One that is there and could not be read has been named already.
    let (listens, goes) = (place("cluster", "listen"), place("cluster", "broker"));
    if let (Some(_), Some(offset)) = (listens, goes) {
        reader.wrong(
            offset,
            "`cluster.broker` and `cluster.listen` exclude each other",
            "a node accepts providers, or is one; remove the key of the other",
        );
    }
    if goes.is_none() {
        for key in OF_A_PROVIDER {
            if let Some(offset) = place("cluster", key) {
                let message = format!("`cluster.{key}` says something of a provider, and this node is none");
                reader.wrong(offset, message, "write `cluster.broker`, or remove the key");
            }
        }
    }
    if config.node.pool == Some(0)
        && listens.is_none()
        && let Some(offset) = place("node", "pool")
    {
        let help = "write a size from 16MiB on, or `cluster.listen` where providers come";
        reader.wrong(offset, "`node.pool` is nothing, and no provider can come either", help);
    }
    // What clients are told has to lead somewhere, and is told before the gate is open.
    if cluster.broker.is_some()
        && config.remote.listen.is_some()
        && cluster.told(&config.remote).is_none()
        && let Some(offset) = place("remote", "listen")
    {
        let help = "write an address and a port of this machine here, or `cluster.address`";
        reader.wrong(offset, "`remote.listen` is nowhere that clients could be told to come", help);
    }
}

/// As TOML again.
pub(super) fn write(f: &mut std::fmt::Formatter<'_>, cluster: &Cluster) -> std::fmt::Result {
    writeln!(f, "\n[cluster]")?;
    if let Some(listen) = cluster.listen {
        writeln!(f, "listen = \"{listen}\"")?;
    }
    for (key, address) in [("broker", &cluster.broker), ("address", &cluster.address)] {
        if let Some(address) = address {
            writeln!(f, "{key} = \"{address}\"")?;
        }
    }
    for (key, name) in
        [("broker_name", &cluster.broker_name), ("name", &cluster.name), ("locality", &cluster.locality)]
    {
        if let Some(name) = name {
            writeln!(f, "{key} = \"{name}\"")?;
        }
    }
    if !cluster.classes.is_empty() {
        let classes: Vec<_> = cluster.classes.iter().map(|class| format!("\"{class}\"")).collect();
        writeln!(f, "classes = [{}]", classes.join(", "))?;
    }
    Ok(())
}
