#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzzing::config_any(data));
