//! libmem
