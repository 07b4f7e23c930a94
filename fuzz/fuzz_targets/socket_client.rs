#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| libmem::fuzzing::conversation(data));
