#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| caps::wire::channel::fuzz(data));
