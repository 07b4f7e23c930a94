#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| provider::kernel::fuzzing::events_any(data));
