#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| caps::token::fuzzing::chain(data));
