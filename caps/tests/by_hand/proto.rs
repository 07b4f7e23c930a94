//! Protocol Buffers, as far as tokens need them: varints and lengths.

/// One field's value.
#[derive(Clone, Copy)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("a number where bytes belong"),
        }
    }

    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => panic!("bytes where a number belongs"),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a varint has an end");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// A message's fields in their order.
pub(crate) fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut message)),
            2 => {
                let length = varint(&mut message) as usize;
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Field::Bytes(bytes)
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

/// Every field of this number.
pub(crate) fn repeated(message: &[u8], number: u64) -> impl Iterator<Item = Field<'_>> {
    fields(message).into_iter().filter(move |(is, _)| *is == number).map(|(_, field)| field)
}

pub(crate) fn optional(message: &[u8], number: u64) -> Option<&[u8]> {
    repeated(message, number).next().map(Field::bytes)
}

pub(crate) fn bytes(message: &[u8], number: u64) -> &[u8] {
    optional(message, number).unwrap_or_else(|| panic!("field {number} is missing"))
}

pub(crate) fn number(message: &[u8], field: u64) -> u64 {
    repeated(message, field).next().unwrap_or_else(|| panic!("field {field} is missing")).number()
}
