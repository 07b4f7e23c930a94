#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| audit::fuzzing::path(data));
