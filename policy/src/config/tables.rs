//! The tables of a configuration, their keys, and what each may be.

use caps::Code;
use caps::wire::Name;
use toml::de::DeTable;

use super::cluster;
use super::read::{Key, Reader, Table, Value, join};
use super::{Config, OnFull, Quotas};
use crate::diagnostic::{Collector, quote};
use crate::fault::{FaultKind, Reaction};
use crate::limits::*;
use crate::machine::Machine;
use crate::quota::Quota;
use crate::units::{Bytes, Span};

const TABLES: &[&str] =
    &["node", "lease", "quota", "audit", "faults", "policy", "canary", "remote", "cluster"];
const NODE: &[&str] = &["cluster", "pool", "allow_uids", "allow_swap", "root"];
const LEASE: &[&str] = &["ttl_default", "ttl_max", "bytes_min", "bytes_max", "per_principal"];
const QUOTA: &[&str] =
    &["leases", "leased_bytes", "resident_bytes", "shared_bytes", "grants", "opens", "mappings"];
const AUDIT: &[&str] = &["devices", "on_full", "checkpoint_every", "checkpoint_entries"];
const FAULTS: &[&str] = &["access", "right", "protocol", "quota", "quarantine"];
const POLICY: &[&str] = &["file", "allow_all"];
const CANARY: &[&str] = &["every"];
const REMOTE: &[&str] = &["listen", "domain", "certificate", "key", "roots", "lists"];
/// The word for no time at all.
const OFF: &str = "off";

/// Reads a whole file. What is wrong goes to `found`; where something is, the default stands in the result.
pub(super) fn config(text: &str, machine: &Machine, found: &mut Collector<'_>) -> Config {
    let (root, errors) = DeTable::parse_recoverable(text);
    // After a broken header its keys seem to stand at the top, where they are unknown; or to be the header's name.
    let displaced = |key: &Key<'_>, value: &Value<'_>| {
        let header =
            text.get(value.span().start..key.span().start).is_some_and(|between| !between.contains('\n'));
        !(errors.is_empty() || value.get_ref().is_table() && header)
    };
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        found.error(
            Code::ConfigSyntax,
            offset,
            quote(error.message()),
            "see https://toml.io for the form of the file",
        );
    }
    let mut config = Config::default();
    let mut reader = Reader::new(found);
    let mut quotas = None;
    for (key, value) in root.get_ref() {
        match &**key.get_ref() {
            "node" => each(&mut reader, key, value, NODE, |reader, name, key, value| {
                node(&mut config.node, machine, reader, name, key, value);
            }),
            "lease" => each(&mut reader, key, value, LEASE, |reader, name, key, value| {
                lease(&mut config.lease, reader, name, key, value);
            }),
            "audit" => each(&mut reader, key, value, AUDIT, |reader, name, key, value| {
                audit(&mut config.audit, reader, name, key, value);
            }),
            "faults" => each(&mut reader, key, value, FAULTS, |reader, name, key, value| {
                if key == "quarantine" {
                    let kinds = reader.list(name, value, FaultKind::ALL.len(), |reader, value| {
                        reader.choice(name, value, &FaultKind::ALL, FaultKind::name)
                    });
                    kinds.into_iter().flatten().for_each(|kind| config.faults.quarantine.insert(kind));
                    return;
                }
                let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == key);
                let reaction = reader.choice(name, value, &Reaction::ALL, Reaction::name);
                if let (Some(kind), Some(reaction)) = (kind, reaction) {
                    config.faults.set(kind, reaction);
                }
            }),
            "policy" => each(&mut reader, key, value, POLICY, |reader, name, key, value| match key {
                "file" => config.policy.file = reader.path(name, value),
                _ => set(&mut config.policy.allow_all, reader.truth(name, value)),
            }),
            "canary" => each(&mut reader, key, value, CANARY, |reader, name, _, value| {
                if value.get_ref().as_str() == Some(OFF) {
                    config.canary.every = None;
                } else if let Some(every) =
                    reader.span(name, value, CANARY_EVERY_MS_MIN..=CANARY_EVERY_MS_MAX)
                {
                    config.canary.every = Some(every);
                }
            }),
            "remote" => each(&mut reader, key, value, REMOTE, |reader, name, key, value| {
                remote(&mut config.remote, reader, name, key, value);
            }),
            "cluster" => each(&mut reader, key, value, cluster::KEYS, |reader, name, key, value| {
                cluster::read(&mut config.cluster, reader, name, key, value);
            }),
            // After [lease], whose `per_principal` is a default of it.
            "quota" => quotas = reader.table("", key, value),
            _ if displaced(key, value) => {}
            _ => reader.unknown("", key, TABLES),
        }
    }
    let leases = config.lease.per_principal;
    config.quotas.default.leases = leases;
    if let Some(table) = quotas {
        config.quotas = read_quotas(config.quotas, &table, &mut reader);
    }
    relations(&config, root.get_ref(), &mut reader);
    config
}

/// Calls `read` with each known key of a table, and notes the others.
fn each(
    reader: &mut Reader<'_, '_>,
    key: &Key<'_>,
    value: &Value<'_>,
    known: &[&str],
    mut read: impl FnMut(&mut Reader<'_, '_>, &str, &str, &Value<'_>),
) {
    let Some(table) = reader.table("", key, value) else { return };
    each_of(reader, &table, known, &mut read);
}

fn each_of(
    reader: &mut Reader<'_, '_>,
    table: &Table<'_, '_>,
    known: &[&str],
    read: &mut impl FnMut(&mut Reader<'_, '_>, &str, &str, &Value<'_>),
) {
    for (key, value) in table.entries {
        if known.contains(&&**key.get_ref()) {
            read(reader, &join(&table.name, key.get_ref()), key.get_ref(), value);
        } else {
            reader.unknown(&table.name, key, known);
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn node(
    node: &mut super::Node,
    machine: &Machine,
    reader: &mut Reader<'_, '_>,
    name: &str,
    key: &str,
    value: &Value<'_>,
) {
    match key {
        "cluster" => set(&mut node.cluster, reader.name(name, value)),
        "pool" => {
            node.pool = reader.pool(name, value);
            let Some(pool) = node.pool else { return };
            let most = machine.pool_bytes_max();
            if pool > most {
                let message =
                    format!("`{name}` is {}, and this machine can give {}", Bytes(pool), Bytes(most));
                let help = format!(
                    "the pool may take {POOL_RAM_PERCENT_MAX} % of the available RAM, so that nothing else starves"
                );
                reader.wrong(value.span().start, message, help);
            }
        }
        "allow_uids" => {
            node.allow_uids = reader.list(name, value, ALLOW_UIDS_MAX, |reader, value| {
                // 2^32 - 1 is "no user" to the kernel.
                reader.count(name, value, 0..=u32::MAX - 1)
            });
        }
        "root" => node.root = reader.path(name, value),
        _ => set(&mut node.allow_swap, reader.truth(name, value)),
    }
}

fn lease(lease: &mut super::Lease, reader: &mut Reader<'_, '_>, name: &str, key: &str, value: &Value<'_>) {
    match key {
        "ttl_default" => {
            set(&mut lease.ttl_default, reader.span(name, value, LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX))
        }
        "ttl_max" => set(&mut lease.ttl_max, reader.span(name, value, LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX)),
        "bytes_min" => {
            set(&mut lease.bytes_min, reader.bytes(name, value, LEASE_BYTES_MIN..=REGION_BYTES_MAX))
        }
        "bytes_max" => {
            set(&mut lease.bytes_max, reader.bytes(name, value, LEASE_BYTES_MIN..=REGION_BYTES_MAX))
        }
        _ => set(&mut lease.per_principal, reader.count(name, value, 0..=LEASES_MAX as u32)),
    }
}

fn audit(audit: &mut super::Audit, reader: &mut Reader<'_, '_>, name: &str, key: &str, value: &Value<'_>) {
    match key {
        "devices" => {
            let devices = reader.list(name, value, AUDIT_DEVICES_MAX, |reader, value| {
                Some((reader.path(name, value)?, value.span()))
            });
            let Some(devices) = devices else { return };
            for (at, (device, span)) in devices.iter().enumerate() {
                if devices[..at].iter().any(|(other, _)| other == device) {
                    reader.wrong(
                        span.start,
                        format!("`{name}` names a directory twice"),
                        "two copies need two places",
                    );
                }
            }
            audit.devices = devices.into_iter().map(|(device, _)| device).collect();
        }
        "on_full" => set(&mut audit.on_full, reader.choice(name, value, &OnFull::ALL, OnFull::name)),
        "checkpoint_every" => {
            set(&mut audit.checkpoint_every, reader.span(name, value, CHECKPOINT_MS_MIN..=CHECKPOINT_MS_MAX));
        }
        _ => set(&mut audit.checkpoint_entries, reader.count(name, value, 1..=CHECKPOINT_ENTRIES_MAX)),
    }
}

fn remote(remote: &mut super::Remote, reader: &mut Reader<'_, '_>, name: &str, key: &str, value: &Value<'_>) {
    match key {
        "listen" => remote.listen = reader.listen(name, value),
        "domain" => {
            let Some(text) = reader.text(name, value) else { return };
            let inside =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
            if text.is_empty() || text.len() > DOMAIN_BYTES_MAX || !text.bytes().all(inside) {
                let message = format!("`{name}`: `{}` is no trust domain", quote(text));
                reader.wrong(value.span().start, message, "write 1 to 255 characters of a-z 0-9 . - _");
                return;
            }
            remote.domain = Some(text.to_owned());
        }
        "certificate" => remote.certificate = reader.path(name, value),
        "key" => remote.key = reader.path(name, value),
        "roots" => remote.roots = reader.path(name, value),
        _ => remote.lists = reader.path(name, value),
    }
}

/// `[quota.default]` first, because the others begin as copies of it.
fn read_quotas(quotas: Quotas, table: &Table<'_, '_>, reader: &mut Reader<'_, '_>) -> Quotas {
    let Quotas { mut default, mut named } = quotas;
    if let Some((key, value)) = table.entries.get_key_value("default")
        && let Some(table) = reader.table(&table.name, key, value)
    {
        quota(&mut default, &table, reader);
    }
    let others = table.entries.iter().filter(|(key, _)| &**key.get_ref() != "default");
    for (count, (key, value)) in others.enumerate() {
        let Ok(principal) = Name::new(key.get_ref()) else {
            let message = format!("`{}` is no principal's name", quote(&join(&table.name, key.get_ref())));
            reader.wrong(key.span().start, message, "write [quota.NAME] with the name of a principal");
            continue;
        };
        if count == QUOTAS_MAX {
            reader.wrong(
                key.span().start,
                "there are too many quotas",
                format!("write at most {QUOTAS_MAX}"),
            );
            break;
        }
        let mut own = default;
        if let Some(table) = reader.table(&table.name, key, value) {
            quota(&mut own, &table, reader);
        }
        named.insert(principal, own);
    }
    Quotas { default, named }
}

fn quota(quota: &mut Quota, table: &Table<'_, '_>, reader: &mut Reader<'_, '_>) {
    each_of(reader, table, QUOTA, &mut |reader: &mut Reader<'_, '_>,
                                        name: &str,
                                        key: &str,
                                        value: &Value<'_>| {
        match key {
            "leases" => set(&mut quota.leases, reader.count(name, value, 0..=LEASES_MAX as u32)),
            "leased_bytes" => set(&mut quota.leased_bytes, reader.bytes(name, value, 0..=QUOTA_BYTES_MAX)),
            "resident_bytes" => {
                set(&mut quota.resident_bytes, reader.bytes(name, value, 0..=QUOTA_BYTES_MAX))
            }
            "shared_bytes" => set(&mut quota.shared_bytes, reader.bytes(name, value, 0..=QUOTA_BYTES_MAX)),
            "opens" => set(&mut quota.opens, reader.count(name, value, 0..=SLOTS_MAX as u32)),
            "mappings" => set(&mut quota.mappings, reader.count(name, value, 0..=SLOTS_MAX as u32)),
            _ => set(&mut quota.grants, reader.count(name, value, 0..=GRANTS_MAX as u32)),
        }
    });
}

/// What must hold between keys. Each mistake is reported at a key that the file states, never at a default.
fn relations(config: &Config, root: &DeTable<'_>, reader: &mut Reader<'_, '_>) {
    let place = |table: &str, keys: [&str; 2]| {
        let table = root.get(table)?.get_ref().as_table()?;
        keys.iter().find_map(|key| table.get(*key)).map(|value| value.span().start)
    };
    let lease = &config.lease;
    if lease.ttl_default > lease.ttl_max
        && let Some(offset) = place("lease", ["ttl_default", "ttl_max"])
    {
        let [short, long] = [lease.ttl_max, lease.ttl_default].map(Span);
        let message = format!("`lease.ttl_default` ({long}) is longer than `lease.ttl_max` ({short})");
        reader.wrong(offset, message, "make the default at most the maximum");
    }
    if lease.bytes_min > lease.bytes_max
        && let Some(offset) = place("lease", ["bytes_min", "bytes_max"])
    {
        let [small, large] = [lease.bytes_max, lease.bytes_min].map(Bytes);
        let message = format!("`lease.bytes_min` ({large}) is larger than `lease.bytes_max` ({small})");
        reader.wrong(offset, message, "make the smallest size at most the largest");
    }
    if let Some(pool) = config.node.pool
        && pool > 0 // or it leases memory of other machines, which have what they have
        && lease.bytes_min > pool
        && let Some(offset) = place("lease", ["bytes_min", "bytes_max"])
    {
        let message = format!("`lease.bytes_min` ({}) is larger than the pool", Bytes(lease.bytes_min));
        reader.wrong(offset, message, "no lease could ever be made");
    }
    cluster::relations(config, root, reader);
}
