#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| caps::token::fuzzing::block_signed_by_holder(data));
