//! The library `bit`: operations on 32 bits, as in `LuaJIT`'s `BitOp`.

use mlua::{Lua, MultiValue, Table};

use super::raised::number;

/// The 32 bits of a number: rounded to an integer, modulo 2^32.
fn bits_of(number: f64) -> u32 {
    const MODULUS: f64 = 4_294_967_296.0;
    if !number.is_finite() {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^32 and without sign"
    )]
    let bits = number.round_ties_even().rem_euclid(MODULUS) as u64 as u32;
    bits
}

fn arg(lua: &Lua, function: &str, args: &MultiValue, index: usize) -> mlua::Result<u32> {
    number(lua, function, args, index).map(bits_of)
}

/// The table of the library.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    type Unary = fn(u32) -> u32;
    type Binary = fn(u32, u32) -> u32;
    let library = lua.create_table()?;
    let unary: [(&'static str, Unary); 3] = [
        ("tobit", |bits| bits),
        ("bnot", |bits| !bits),
        ("bswap", u32::swap_bytes),
    ];
    for (name, operation) in unary {
        let function = lua.create_function(move |lua, args: MultiValue| {
            Ok(operation(arg(lua, name, &args, 0)?).cast_signed())
        })?;
        library.raw_set(name, function)?;
    }
    let of_all: [(&'static str, Binary); 3] = [
        ("band", |left, right| left & right),
        ("bor", |left, right| left | right),
        ("bxor", |left, right| left ^ right),
    ];
    for (name, operation) in of_all {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let mut bits = arg(lua, name, &args, 0)?;
            for index in 1..args.len() {
                bits = operation(bits, arg(lua, name, &args, index)?);
            }
            Ok(bits.cast_signed())
        })?;
        library.raw_set(name, function)?;
    }
    let shifts: [(&'static str, Binary); 5] = [
        ("lshift", |bits, by| bits << (by & 31)),
        ("rshift", |bits, by| bits >> (by & 31)),
        ("arshift", |bits, by| {
            (bits.cast_signed() >> (by & 31)).cast_unsigned()
        }),
        ("rol", |bits, by| bits.rotate_left(by & 31)),
        ("ror", |bits, by| bits.rotate_right(by & 31)),
    ];
    for (name, operation) in shifts {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let (bits, by) = (arg(lua, name, &args, 0)?, arg(lua, name, &args, 1)?);
            Ok(operation(bits, by).cast_signed())
        })?;
        library.raw_set(name, function)?;
    }
    let to_hex = lua.create_function(|lua, args: MultiValue| {
        let bits = arg(lua, "tohex", &args, 0)?;
        let digits = match args.len() {
            ..2 => 8,
            _ => arg(lua, "tohex", &args, 1)?.cast_signed(),
        };
        Ok(hex(bits, digits))
    })?;
    library.raw_set("tohex", to_hex)?;
    Ok(library)
}

/// So many hexadecimal digits, of a negative number in upper case.
fn hex(bits: u32, digits: i32) -> String {
    let text = format!("{bits:08x}");
    let shown = usize::try_from(digits.unsigned_abs()).unwrap_or(8).min(8);
    let text = text[8 - shown..].to_owned();
    if digits < 0 { text.to_uppercase() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_32_bits() {
        let table = [
            (0.0, 0),
            (-1.0, u32::MAX),
            (4_294_967_301.0, 5),
            (1.5, 2),
            (2.5, 2),
            (-1.5, u32::MAX - 1),
            (f64::NAN, 0),
            (9_007_199_254_740_992.0, 0),
        ];
        for (number, bits) in table {
            assert_eq!(bits_of(number), bits, "{number}");
        }
        let table = [
            (8, "000000ff"),
            (4, "00ff"),
            (-4, "00FF"),
            (0, ""),
            (100, "000000ff"),
        ];
        for (digits, text) in table {
            assert_eq!(hex(255, digits), text);
        }
    }
}
