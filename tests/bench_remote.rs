//! `leasehold bench remote --quick`: every key is there, whatever the figures are.

use std::process::Command;

use serde_json::Value;

/// Everything that is measured of Leasehold.
const OURS: [&str; 18] = [
    "p50_us",
    "p99_us",
    "read_64",
    "read_4k",
    "write_64k",
    "read_1m",
    "gather_64x64k",
    "write_any",
    "wire_read_4k",
    "wire_write_4k",
    "wire_read_64k",
    "wire_write_64k",
    "wire_read_1m",
    "clients_16_read_4k",
    "idle",
    "active",
    "overload",
    "slow_peers",
];
/// And of each baseline.
const THEIRS: usize = 14;
const RATIOS: [&str; 6] = [
    "read_64_time_vs_",
    "read_4k_time_vs_",
    "write_64k_time_vs_",
    "read_1m_rate_vs_",
    "gather_64x64k_rate_vs_",
    "clients_16_read_4k_rate_vs_",
];
const BOUNDS: [&str; 13] = [
    "read_64_p99_us",
    "read_4k_p99_us",
    "write_any_p50_max_us",
    "wire_overhead_read_4k",
    "wire_overhead_write_4k",
    "wire_overhead_read_64k",
    "wire_overhead_write_64k",
    "wire_overhead_read_1m",
    "idle_resident_kib_each",
    "overload_goodput_kept",
    "overload_busy_max_us",
    "overload_waited_max_us",
    "slow_peers_honest_lost",
];

#[test]
fn everything_is_measured_and_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["bench", "remote", "--quick", "--json"])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(found["bench"], "remote");
    assert_eq!(output.status.success(), found["ok"] == true, "the exit code says what the document says");
    let redis = found["params"]["redis"].as_str().unwrap() != "not installed: nothing is said of it";
    let baselines: &[&str] = if redis { &["rustls_echo", "redis_tls"] } else { &["rustls_echo"] };
    assert_eq!(found["baselines"].as_object().unwrap().len(), baselines.len());
    for key in OURS {
        assert!(!found["leasehold"][key].is_null(), "leasehold.{key}");
    }
    for baseline in baselines {
        for key in &OURS[..THEIRS] {
            assert!(!found["baselines"][baseline][key].is_null(), "baselines.{baseline}.{key}");
        }
        for ratio in RATIOS {
            assert!(
                found["ratios"][format!("{ratio}{baseline}")].as_f64().unwrap() > 0.0,
                "{ratio}{baseline}"
            );
        }
    }
    for name in BOUNDS {
        let bound = &found["bounds"][name];
        if name == "overload_busy_max_us" && found["leasehold"]["overload"]["busy"] == 0 {
            // Nobody was refused: there is nothing to judge.
            assert!(bound["is"].is_null() && bound["must"].is_string() && bound["met"].is_null(), "{bound}");
            continue;
        }
        assert!(bound["is"].is_number() && bound["must"].is_string() && bound["met"].is_boolean(), "{bound}");
    }
    // What does not depend on time holds in every run.
    for bound in BOUNDS.iter().filter(|bound| bound.starts_with("wire_overhead")) {
        assert_eq!(found["bounds"][bound]["met"], true, "{bound}: {}", found["bounds"][bound]);
    }
    for crowd in ["active", "overload"] {
        let crowd = &found["leasehold"][crowd];
        assert!(crowd["good"].as_u64().unwrap() > 0 && crowd["ended"] == 0, "{crowd}");
    }
    assert_eq!(found["leasehold"]["idle"]["sessions"], 20);
}
